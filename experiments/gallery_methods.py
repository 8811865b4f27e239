"""Every registered method on the same three images: the pictures, and the part of the page that shows them."""

from collections.abc import Iterator
from pathlib import Path

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.method import Method
from caap_lab.attribution.registry import METHODS
from caap_lab.plots.gallery import Tile, plot_tiles
from caap_lab.plots.style import figure_png
from caap_lab.variant import parse_variant
from experiments.gallery_images import PHOTOS, Shown, kept_map, write_png

SHORTENED = {"rise": "rise:samples=300", "shapley": "shapley:samples=400"}
"""Methods that draw thousands of masks by default, with the options that the pictures are made with."""
MOST = 3000
"""Largest number of passes for the photo's map; a method that takes more is only shown on the two scenes."""
PANEL = 1.75
"""Width of a map and the gap next to it, in inches."""
SIGNS = {
    "signed": "negative scores count against the target",
    "positive": "scores are never negative",
    "level": "only differences between its patches count",
}


def write_method_pictures(images: list[Shown], maps: Path, out: Path) -> None:
    """Write `NAME.png` for each method, and `images.png` with the images themselves."""
    first = [kept_map(shown, "caap", maps) for shown in images]
    tiles = [Tile(m.image.numpy(), f"{m.model_name}\nexplained: {m.caption}") for m in first]
    write_png(figure_png(plot_tiles([tiles], panel=PANEL)), out / "images.png")
    for name in METHODS:
        tiles = [
            Tile(m.image.numpy(), "", m.scores.double().numpy(), m.sign == "signed")
            for shown in images
            if shown.name not in PHOTOS or _passes(name, shown) <= MOST
            for m in [kept_map(shown, line_of(name), maps)]
        ]
        write_png(figure_png(plot_tiles([tiles], panel=PANEL)), out / f"{name}.png")


def line_of(name: str) -> str:
    """A method with the options of its picture, as one text."""
    return SHORTENED.get(name, name)


def _passes(name: str, shown: Shown) -> float:
    """Forward passes of one map, a backward pass counted as two."""
    return METHODS[name].passes(ModelSize.of(shown.model), parse_variant(line_of(name)).options)


def methods_text(folder: str) -> str:
    """Markdown: the families in turn, and each method with its paper, its cost and the line that makes its map.

    Args:
        folder: Folder of the pictures, relative to the page.
    """
    families = dict.fromkeys(method.family for method in METHODS.values())
    return "\n\n".join(part for family in families for part in _family(family, folder))


def _family(family: str, folder: str) -> Iterator[str]:
    yield f"## {family.capitalize()}"
    for name, method in METHODS.items():
        if method.family == family:
            yield f"### {name}"
            yield _facts(method)
            yield f'```python\nm = cl.attribute(model, image, "{line_of(name)}")\n```'
            yield f"![Maps of {name} over the three images]({folder}/{name}.png)"


def _facts(method: Method) -> str:
    backwards = method.backwards.text if method.backwards.text not in ("", "0") else "none"
    answer = "depends on the class" if method.class_specific else "is the same for every class"
    return (
        f"{method.source}. Forward passes per image: {method.forwards.text}; backward passes: {backwards}. "
        f"Needs {method.needs}. The map {answer}; {SIGNS[method.sign]}."
    )
