"""`cl.widgets.trace` under the mouse and the keyboard."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser.lab import LabPage

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.xdist_group("browser")]

SETUP = """
import caap_lab as cl
model = cl.load_model("demo")
one, other = (scene.image for scene in cl.demo_images("two", 2, seed=1))
w = cl.widgets.trace(model, one, other)
w
"""


@pytest.fixture(scope="module")
def lab(lab_page: "LabPage") -> "LabPage":
    lab_page.open(SETUP, name="trace.ipynb")
    computed(lab_page)
    return lab_page


def computed(lab: "LabPage") -> None:
    lab.wait_for("(len(w.traced), w.worker.pending, w.message)", (9, 0, ""))


def test_paint_and_click_a_layer_a_patch_and_a_head(lab: "LabPage") -> None:
    clean = lab.output.locator('.caap-tile[data-key="clean"] canvas')
    left, top, width, height = lab.box(clean)
    lab.page.mouse.move(left + 0.05 * width, top + 0.3 * height)
    lab.page.mouse.down()
    lab.page.mouse.move(left + 0.45 * width, top + 0.3 * height, steps=6)
    lab.page.mouse.up()
    lab.wait_for("len(w.board.painted) > 2 and w.options.painted == tuple(w.board.painted)", True)
    lab.expect(lab.output.locator('.caap-tile[data-key="clean"] .caap-caption')).to_contain_text("patches corrupted")
    layers, heads = (lab.output.locator(".caap-heads canvas").nth(place) for place in (0, 2))
    layers.focus()
    for _ in range(3):
        lab.page.keyboard.press("ArrowDown")
    lab.wait_for("w.layer", 3)
    lab.click(lab.output.locator('.caap-tile[data-key="effects"] canvas'), 2.5 / 8, 2.5 / 8)
    lab.wait_for("tuple(w.cell or ())", ("token", 3, 1 + 2 * 8 + 2))
    lab.click(heads, 0.4, 0.7)
    lab.wait_for("w.cell is not None and w.cell.kind == 'head' and w.layer == w.cell.layer", True)
    lab.output.get_by_text("of the clean image inserted").wait_for()
    computed(lab)
    lab.screenshot("trace_painted")


def test_directions_and_swapped_images(lab: "LabPage") -> None:
    lab.output.get_by_label("direction").select_option("noise")
    lab.wait_for("[traced.direction for traced in w.traced.values()]", ["noise"] * 9)
    lab.output.get_by_text("of the corrupted image inserted").wait_for()
    lab.output.get_by_role("button", name="corrupt all").click()
    lab.wait_for("w.options.painted", ())
    lab.output.get_by_label("corrupt by").select_option("other image")
    computed(lab)
    before = lab.value("w.traced['heads'].per_image.tolist()")
    lab.output.get_by_role("button", name="swap images").click()
    lab.wait_for("w.photo.call", "other")
    computed(lab)
    assert lab.value("w.traced['heads'].per_image.tolist()") != before


@pytest.mark.parametrize(("theme", "width"), [("dark", 1024), ("light", 1920)])
def test_everything_fits(lab: "LabPage", theme: str, width: int) -> None:
    lab.theme(theme)
    lab.width(width)
    lab.until("() => (p => p.scrollWidth <= p.clientWidth)(document.querySelector('.caap-panel'))")
    tiles = lab.output.locator(".caap-tile canvas")
    places = [lab.box(tiles.nth(place)) for place in range(3)]
    assert min(place[2] for place in places) > 140 and (width == 1024 or len({place[1] for place in places}) == 1)
    lab.screenshot(f"trace_{theme}_{width}")
