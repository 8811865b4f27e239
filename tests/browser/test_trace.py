"""`cl.widgets.trace` under the mouse and the keyboard."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser.lab import LabPage

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.xdist_group("browser")]

SETUP = """
import caap_lab as cl
model = cl.load_model("demo")
scene = cl.demo_images("two", 1, seed=1)[0]
w = cl.widgets.trace(model, scene.image)
w
"""


def test_paint_and_click_a_layer_a_patch_and_a_head(lab: "LabPage") -> None:
    lab.open(SETUP, name="trace.ipynb")
    lab.wait_for("(len(w.traced), w.message)", (9, ""))
    clean = lab.output.locator(".caap-picture").nth(0)
    left, top, width, height = lab.box(clean.locator("canvas, img, svg").first)
    lab.page.mouse.move(left + 0.05 * width, top + 0.3 * height)
    lab.page.mouse.down()
    lab.page.mouse.move(left + 0.45 * width, top + 0.3 * height, steps=6)
    lab.page.mouse.up()
    lab.wait_for("len(w.clean.painted) > 2", True)
    lab.wait_for("(len(w.traced), w.options.painted == tuple(w.clean.painted))", (9, True))
    lab.screenshot("trace_painted")
    layers, heads = (lab.output.locator(".caap-heads canvas").nth(place) for place in (0, 2))
    layers.focus()
    for _ in range(3):
        lab.page.keyboard.press("ArrowDown")
    lab.wait_for("w.layer", 3)
    lab.click(heads, 0.4, 0.7)
    lab.wait_for("w.cell is not None and w.cell.kind == 'head' and w.layer == w.cell.layer", True)
    lab.output.get_by_text("of the clean image put in").wait_for()
    lab.output.get_by_label("direction").select_option("noise")
    lab.wait_for("[traced.direction for traced in w.traced.values()]", ["noise"] * 9)
    lab.output.get_by_text("of the corrupted image put in").wait_for()
    lab.page.set_viewport_size({"width": 1600, "height": 1500})
    lab.output.get_by_label("direction").scroll_into_view_if_needed()
    lab.screenshot("trace_noise")
