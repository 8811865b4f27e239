"""What a notebook shows of the public names: completion, signatures, and docstrings that open with an example."""

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jedi
import numpy as np
import pytest
import timm
import torch
from IPython.core.completer import Completer

import caap_lab as cl
from caap_lab import names_elsewhere

PASSED_ON = {
    "attribute": "each method has options of its own, and one's registered by the user are not known before",
    "directions.project_off": "as many vectors as one likes",
    "LabelledResult.plot": "axes of the result to their labels",
    "LogitAttribution.top": "likewise",
    "HookedViT.rewrapped": "arguments of the class itself",
}
"""Where *arguments or **options stay, and why."""


def public() -> Iterator[tuple[str, Any]]:
    """Every public name; those in modules after the modules'."""
    for name in cl.__all__:
        value = getattr(cl, name)
        if not inspect.ismodule(value):
            yield name, value
            continue
        for inner in dir(value):
            if not inner.startswith("_"):
                yield f"{name}.{inner}", getattr(value, inner)


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public functions, and public methods of public classes, under the class that has them."""
    for name, value in public():
        if inspect.isclass(value):
            for inner, method in inspect.getmembers(value, callable):
                own = getattr(method, "__module__", None) or ""
                if not inner.startswith("_") and own.startswith("caap_lab") and not inspect.isclass(method):
                    yield method.__qualname__, method
        elif callable(value):
            yield name, value


def test_completion_offers_public_names_only() -> None:
    """Of both ways in which IPython completes attributes."""
    names = {"cl": cl}
    for name in ("", "widgets.", "directions.", "tokens.", "blanks."):
        text = f"cl.{name}"
        plain = {match.removeprefix(text).strip(".") for match in Completer(namespace=names).attr_matches(text)}
        by_jedi = {found.name for found in jedi.Interpreter(text, [names]).complete()}
        module = getattr(cl, name[:-1]) if name else cl
        wanted = {one for one in module.__all__ if not one.startswith("_")}
        for offered in (plain, by_jedi):
            assert {one for one in offered if not one.startswith("_")} == wanted, name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rollout", 'It is a method: cl.attribute(model, image, "rollout").'),
        ("GradCAM", 'It is a method: cl.attribute(model, image, "grad_cam").'),
        ("HookedTransformer", "Instead: cl.load_model(name) loads a timm model"),
        ("attributes", "Nearest: attribute"),
        ("zzz", "caap_lab has no name 'zzz'.$"),
    ],
)
def test_a_missing_name_says_what_to_use(name: str, said: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(said).replace(r"\$", "$")):
        getattr(cl, name)


def test_names_of_other_tools_point_to_names_that_are_there() -> None:
    """Every `cl.NAME` and `model.NAME` that the errors name."""
    for said in names_elsewhere.ELSEWHERE.values():
        assert all(name in cl.__all__ for name in re.findall(r"\bcl\.(\w+)", said)), said
        assert all(hasattr(cl.HookedViT, name) for name in re.findall(r"\bmodel\.(\w+)", said)), said
    assert not set(names_elsewhere.ELSEWHERE) & set(cl.__all__)


def test_signatures_name_all_options() -> None:
    passed_on = set()
    for name, function in functions():
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        if kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}:
            passed_on.add(re.sub(r"\w+\.plot$", "LabelledResult.plot", name))
    assert {name for name in passed_on if not name.endswith(".of")} == set(PASSED_ON)  # `of` is the package's own


def test_shown_options_are_those_that_are_passed_on() -> None:
    shown = inspect.signature(cl.sweep_blanks).parameters
    caap = inspect.signature(cl.caap).parameters
    assert {name: shown[name].default for name in ("cutoff", "neighbourhood", "attention", "max_memory")} == {
        name: caap[name].default for name in ("cutoff", "neighbourhood", "attention", "max_memory")
    }
    assert shown["protocol"].default == "rise-28" and "blanks" in shown
    changes = inspect.signature(cl.insertion_deletion).parameters
    assert repr(changes["deletion_base"].default) == "the protocol's" and changes["batch_size"].default == 64
    assert inspect.signature(cl.register).parameters["sign"].default == "level"


FOLD = 12
"""Lines of a docstring that a notebook shows without scrolling."""
QUICK = re.compile(
    r"tokens|directions|Patch|record|run_patched|load_|demo_images|methods|logit$|caap$|HookedViT|localisation"
)
"""Examples that take a moment; the others are slow tests."""
NOT_HERE = {
    "BenchmarkResult": "a run of the reader's own",
    "MapList": "photos",
    "direction": "a probe of the reader's own",
    "path_patch": "a larger model",
    "register_neurons": "a model with outliers",
    "token_norms": "a model with outliers",
}
"""What examples need that the demo model and its images do not have."""
ELSEWHERE = {"InputError", "CheckpointError"}
"""Errors are not called."""
Definition = ast.FunctionDef | ast.ClassDef


@functools.cache
def source(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path, modules: bool = False) -> Iterator[tuple[str, Path]]:
    """Names that a file imports from the package, each with its file; or only the modules among them."""
    package = Path(cl.__file__).parent
    for node in source(file).body:
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            folder = file.parent if node.level else package.parent
            for alias in node.names:
                module = folder.joinpath(*filter(None, parts))
                inner = module / alias.name
                whole = [inner / "__init__.pyi", inner.with_suffix(".py")]
                places = whole if modules else [*whole, module.with_suffix(".py")]
                found = next((place for place in places if place.is_file()), None)
                if found is not None and package in found.parents:
                    yield alias.asname or alias.name, found


def definition(name: str, file: Path) -> Definition | None:
    """Where a name is defined, as text: nothing is imported."""
    for node in source(file).body:
        if isinstance(node, Definition) and node.name == name:
            return node
    return next((definition(name, place) for other, place in imports(file) if other == name), None)


def stated(file: Path) -> list[str]:
    """The names in a module's `__all__`, as text."""
    for node in source(file).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return [name for name, _ in imports(file)]


@functools.cache
def documented() -> dict[str, Definition]:
    """Definitions of public names, and of the methods that are typed as often as functions.

    They are read from the files, as each process of the tests reads them: importing everything takes seconds.
    """
    found: dict[str, Definition | None] = {}
    stub = Path(cl.__file__).with_suffix(".pyi")
    modules = dict(imports(stub, modules=True))
    for name, file in imports(stub):
        if name in modules:
            inner = dict(imports(file))
            found |= {f"{name}.{one}": definition(one, inner.get(one, file)) for one in stated(file)}
        else:
            found[name] = definition(name, file)
    hooked = found["HookedViT"]
    assert hooked is not None
    methods = {node.name: node for node in hooked.body if isinstance(node, ast.FunctionDef)}
    found |= {"record": methods["record"], "HookedViT.run_patched": methods["run_patched"]}
    return {name: node for name, node in found.items() if node is not None and name not in ELSEWHERE}


def docstrings() -> dict[str, str]:
    return {name: ast.get_docstring(node) or "" for name, node in documented().items()}


def example(text: str) -> str:
    """The first example of a docstring, above the fold; empty if there is none."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines[:FOLD]) if line == "```python"), None)
    return "" if start is None else "\n".join(lines[start + 1 : lines.index("```", start)])


def test_docstrings_are_those_that_help_shows() -> None:
    shown = {name: inspect.getdoc(value) for name, value in public() if callable(value) and name not in ELSEWHERE}
    shown |= {"record": cl.HookedViT.record.__doc__, "HookedViT.run_patched": cl.HookedViT.run_patched.__doc__}
    assert {name: inspect.cleandoc(text or "") for name, text in shown.items()} == docstrings()


def test_docstrings_open_with_one_sentence_and_an_example() -> None:
    for name, text in docstrings().items():
        first, *rest = text.splitlines()
        assert first.endswith((".", "?", "`")) and not "".join(rest[:1]), name
        code = example(text)
        is_result = isinstance(documented()[name], ast.ClassDef)  # most of them are made by functions, not typed
        assert code or is_result, name
        ast.parse(code)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What examples take as given."""
    model: Any = cl.load_model("demo")
    scenes = cl.demo_images("two", 2, seed=1)
    image, images = scenes[0].image, [scene.image for scene in scenes]
    vector, other = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    return {
        **{"cl": cl, "torch": torch, "timm": timm, "np": np, "model": model, "module": model.vit},
        **{"image": image, "images": images, "x": model.preprocess(image), "m": cl.caap(model, image, cutoff=2)},
        **{"mask": scenes[0].masks[scenes[0].label], "clean": images[0], "corrupted": images[1]},
        **{"vector": vector, "other": other, "text_embeddings": torch.ones(2, 512)},
    }


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


PHOTOS = re.compile(r"\.jpg|\.pt\b|PATH|tabby|imagenet:|folder:|masks|widgets|L11H3|ground.png")
"""Examples with files or classes of the reader's own."""
RUN = [
    (name, code)
    for name, text in docstrings().items()
    if (code := example(text)) and not PHOTOS.search(code) and name not in NOT_HERE
]


@pytest.mark.parametrize(
    ("name", "code"),
    [pytest.param(name, code, id=name, marks=[pytest.mark.slow] * (not QUICK.match(name))) for name, code in RUN],
)
def test_examples_run(
    name: str, code: str, names: dict[str, Any], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names["image"].save("photo.png")
    exec(compile(code, f"example of {name}", "exec"), dict(names))
    assert "Traceback" not in capfd.readouterr().err
