"""What a notebook shows of the public names: completion, signatures, and docstrings that open with an example."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import jedi
from IPython.core.completer import Completer

import caap_lab as cl

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
        assert plain == wanted and {one for one in by_jedi if not one.startswith("_")} == wanted, name


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
