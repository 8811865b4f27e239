"""The gallery's two pages as text: from the registry of methods, the examples of plots, and the files of pictures."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from caap_lab.attribution.registry import METHODS
from experiments.gallery_methods import MOST, methods_text
from experiments.gallery_plots import plots_text

ROOT = Path(__file__).parents[1]
FOR_THE_STILL = ("w.wait", "w.board", "w.look")
"""Lines that put a widget into the state of its picture."""
COMMAND = "CAAP_LAB_TEST_DATA=PATH python -m experiments.gallery"


def pages() -> dict[str, str]:
    """Text of each page by the name of its file in docs."""
    return {"gallery.md": methods_page(), "gallery_plots.md": plots_page()}


def methods_page() -> str:
    """Every method on the same three images."""
    return f"""# Gallery of methods

All {len(METHODS)} methods on the same three images, each with its family, its paper, its cost, and the line that makes
its maps:

- a generated scene with one digit, under the bundled model (`cl.load_model("demo")`);
- a photo, under ViT-tiny (augreg, ImageNet-1k), for the class that it predicts;
- a generated scene with two digits, under the bundled model, of which one is explained: a method that answers for a
  class should leave the other one out.

Each map has its own colour range, so compare where maps are high, not how high they are. Yellow is high; maps with
signs are red where a patch favours the class and blue where it counts against it. [How maps look](overlays.md)
explains the colours, [Attribution methods](methods.md) the options, and three images say nothing about which method is
better: see [Metrics](benchmark.md). Methods that draw thousands of masks draw fewer here, as their line says; one that
takes more than {MOST} passes for a map of the photo is shown only on the two scenes. N is the number of patches.

![The three images](images/gallery/methods/images.png)

{methods_text("images/gallery/methods")}

*Photo: china.jpg by danielbuechele (CC BY 2.0, from scikit-learn). Pictures and this page are remade by*
`{COMMAND}`.
"""


def plots_page() -> str:
    """Every plot, widget and figure."""
    return f"""# Gallery of plots, widgets and figures

Every plot of the package, every widget and every figure of the demo profile, each with the lines that make it. All are
of the bundled world: they show what you get, but nothing about photographs. [Gallery of methods](gallery.md) has the
attribution methods.

## Plots

{plots_text("images/gallery/plots")}

## Widgets

Stills of the [widgets](widgets.md), which work in JupyterLab and other notebooks.

{_joined(_widgets())}

## Figures of the paper

Drawn in the demo profile; [The paper's figures](figures.md) explains each, and how to draw the paper's own.

{_joined(_figures())}

*Pictures of plots and this page are remade by* `{COMMAND}`, *those of widgets by*
`python -m experiments.widget_pictures --out docs/images/widgets`, *those of figures by* `make figures`.
"""


def _joined(parts: Iterator[str]) -> str:
    return "\n\n".join(parts)


def _widgets() -> Iterator[str]:
    from experiments.widget_pictures import START, WIDGETS

    yield f"```python\n{START.strip()}\n```"
    for name, cell in WIDGETS.items():
        lines = [
            line for line in re.split(r"[;\n] ?", cell.strip()) if not line.startswith(("w.wait", "w.board", "w.look"))
        ]
        yield f"### {name.replace('_', ' ').capitalize()}"
        yield "```python\n" + "\n".join(lines) + "\n```"
        yield f"![The widget {name}](images/widgets/{name}.png)"


def _figures() -> Iterator[str]:
    for path in sorted((ROOT / "docs" / "images" / "figures").glob("*.png")):
        script = ROOT / "figures" / f"{path.stem}.py"
        script = script if script.exists() else script.with_name("gallery.py")
        title = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
        assert title is not None, script
        yield f"### {title.splitlines()[0].rstrip('.')}"
        yield f"```\ncaap-lab figures {path.stem} --out runs/figures\n```"
        yield f"![{path.stem}, drawn in the demo profile](images/figures/{path.name})"
