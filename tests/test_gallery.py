"""The gallery lists every method and every plot, as the registry and the package have them."""

import inspect
import re
from pathlib import Path

import pytest

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.variant import parse_variant
from experiments.gallery_examples import GROUPS, START
from experiments.gallery_methods import line_of, methods_text
from experiments.gallery_page import pages
from experiments.gallery_plots import drawn

DOCS = Path(__file__).parents[1] / "docs"
REMADE = "python -m experiments.gallery"
EXAMPLES = [example for group in GROUPS.values() for example in group]
RUN = [pytest.param(one, id=one.shows, marks=[pytest.mark.slow] * (place > 0)) for place, one in enumerate(EXAMPLES)]
"""One in every run of the tests; all made the pictures."""
BUILT_IN = [name for name, method in METHODS.items() if method.family != "own"]


@pytest.mark.parametrize("page", pages())
def test_pages_are_what_the_package_says(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text == pages()[page], f"{REMADE} --only pages"
    for picture in re.findall(r"\]\((images/[^)]+)\)", text):
        assert (DOCS / picture).is_file(), f"{picture}: {REMADE}"


def test_a_method_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = re.findall(r"^### (\w+)$", methods_text("images"), re.MULTILINE)
    assert sorted(titles) == sorted(BUILT_IN)
    monkeypatch.setitem(METHODS, "new_one", METHODS["caap"])
    assert "### new_one" in methods_text("images")


@pytest.mark.parametrize("name", BUILT_IN)
def test_lines_of_methods_can_be_typed(name: str) -> None:
    variant = parse_variant(line_of(name))
    assert variant.name == name and set(variant.options) <= set(METHODS[name].options["vit"])


def test_every_plot_of_the_package_has_an_example() -> None:
    plots = {
        f"{name}.{method}"
        for name, found in ((name, getattr(cl, name)) for name in dir(cl))
        if inspect.isclass(found)
        for method in dir(found)
        if re.match("plot|overlay|graph", method)
    }
    assert plots > {"Trace.plot", "AttentionRegions.plot_entropy"}
    assert plots - {example.shows for example in EXAMPLES} == set()


def test_pictures_are_small() -> None:
    paths = list((DOCS / "images" / "gallery").rglob("*.png"))
    assert sum(path.stat().st_size for path in paths) < 3_000_000
    assert {path.stem for path in paths if path.parent.name == "plots"} == {example.picture for example in EXAMPLES}
    assert {path.stem for path in paths if path.parent.name == "methods"} == {*BUILT_IN, "images"}


@pytest.mark.parametrize("example", RUN)
def test_examples_draw(example: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(START, names)
    assert drawn(example, names).axes  # type: ignore[arg-type]
