"""Pictures of all widgets and of displayed results, from a real JupyterLab, for the documentation.

    python -m experiments.widget_pictures --out docs/images/widgets
    python -m experiments.widget_pictures --out docs/images/widgets --only patch map

Needs JupyterLab, playwright and a Chromium. Everything is of the bundled world, so no weights are needed.
"""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from browser.lab import LabPage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # JupyterLab and browser of the tests
LARGEST = 200_000
"""Largest size of a PNG in bytes."""
LEVELS = (255, 127, 63, 51, 31, 24)
"""Largest level of a colour."""
WIDTH = 1280
"""Size of the browser's window in pixels; the side bars are closed."""
START = """
import caap_lab as cl
model = cl.load_model("demo")
images = cl.open_images("demo:two")[:6]
scenes = cl.demo_images("two", 6, seed=1)
masks = {str(label): mask for label, mask in scenes[0].masks.items()}
"""
WIDGETS = {
    "explore": """
w = cl.widgets.explore(model, scenes, methods=["caap", "transformer_attribution", "libra_ixg_plus"])
w.wait(); w.board.chosen = list(w.maps["caap"].rank()[0])
w""",
    "layer_sweep": "w = cl.widgets.layer_sweep(model, scenes[0])\nw.wait()\nw",
    "attention": "w = cl.widgets.attention(model, scenes[0], masks)\nw.look(1 + 2 * 8 + 5)\nw.wait()\nw",
    "patch": "w = cl.widgets.patch(model, scenes)\nw.wait()\nw",
    "trace": "w = cl.widgets.trace(model, scenes[0], scenes[1])\nw.wait()\nw",
    "benchmark": """
cl.benchmark(model, ["caap", "rollout", "legrad"], images, out="runs/picture", progress=False)
w = cl.widgets.benchmark("runs/picture")
w.wait()
w""",
}
RESULTS = {
    "map": "cl.caap(model, scenes[0].image)",
    "map_list": "cl.caap(model, [scene.image for scene in scenes[:3]], progress=False)",
    "sweep": """
source = model.record(scenes[0].image, "resid_pre")
cl.sweep(
    model,
    scenes[1].image,
    lambda layer, token: cl.Patch("resid_pre", layer, tokens=token, source=source),
    over={"layer": range(model.n_layers), "token": range(model.spec.n_tokens)},
    metric=scenes[0].label,
    progress=False,
)""",
    "cache": "model.run_with_cache(scenes[0].image)[1]",
    "table": "cl.sweep_cutoffs(model, images[:3], cutoffs=[1, 3, 5], protocol='xplique', progress=False).summary()",
}
DARK = ("explore",)
"""Pictures that are also made in JupyterLab's dark theme."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.widget_pictures", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--only", nargs="*", default=[], help="names of pictures; all by default")
    args = parser.parse_args()
    from browser.lab import LabPage, LabServer, find_browser

    args.out.mkdir(parents=True, exist_ok=True)
    cells = {name: cell for name, cell in {**WIDGETS, **RESULTS}.items() if not args.only or name in args.only}
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        server = LabServer(Path(home))
        try:
            browser = playwright.chromium.launch(
                executable_path=find_browser(), chromium_sandbox=os.name != "posix" or os.geteuid() != 0
            )
            draw(LabPage(server, browser, Path(home)), cells, args.out)
        finally:
            server.stop()


def draw(lab: "LabPage", cells: Mapping[str, str], folder: Path) -> None:
    """Run the cells in one notebook, and save the output of each as a picture."""
    lab.page.set_viewport_size({"width": WIDTH, "height": 1800})
    lab.open(START, *(cell.strip() for cell in cells.values()), name="pictures.ipynb")
    if lab.page.locator("#jp-left-stack").is_visible():
        lab.execute("application:toggle-left-area")
    for theme in ("light", "dark"):
        lab.theme(theme)
        for place, name in enumerate(cells, start=1):
            if theme == "light" or name in DARK:
                path = folder / (f"{name}.png" if theme == "light" else f"{name}_{theme}.png")
                path.write_bytes(small(output_of(lab, place)))
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def output_of(lab: "LabPage", place: int) -> bytes:
    """The output of a code cell, once it no longer changes."""
    output = lab.page.locator(".jp-CodeCell").nth(place).locator(".jp-Cell-outputArea")
    output.evaluate("element => element.scrollIntoView({block: 'start'})")
    lab.box(output)
    lab.page.mouse.move(0, 0)
    return output.screenshot()


def small(png: bytes) -> bytes:
    """A PNG of at most `LARGEST` bytes, with reduced levels of each colour if necessary."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for top in LEVELS:
        written = io.BytesIO()
        levels = [round(round(value * top / 255) * 255 / top) for value in range(256)]
        picture.point(levels * 3).save(written, "PNG", optimize=True)
        if written.tell() < LARGEST:
            break
    return written.getvalue()


if __name__ == "__main__":
    main()
