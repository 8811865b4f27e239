"""`cl.widgets.attention` under the mouse and the keyboard."""

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SETUP = """
import caap_lab as cl
model = cl.load_model("demo")
scene = cl.demo_images("two", 1, seed=3)[0]
"""
START = "w = cl.widgets.attention(model, scene.image)\nw"
COLOUR = """([x, y, colour]) => {
    const canvas = document.querySelector('.caap-heads canvas');
    const [wide, high] = [canvas.width / canvas.clientWidth, canvas.height / canvas.clientHeight];
    const shown = canvas.getContext('2d').getImageData(Math.round(x * wide), Math.round(y * high), 1, 1).data;
    return colour.every((value, i) => value === shown[i]);
}"""
"""Whether the heads have a colour at a place."""


@pytest.fixture
def view(lab_page: "LabPage") -> "LabPage":
    lab = lab_page
    lab.open(SETUP, START, name="attention.ipynb")  # the kernel of the test before, which has the model's packages
    lab.wait_for("w.map is None", False)
    lab.page.wait_for_function("Number(document.querySelector('.caap-heads')?.dataset.shown) > 0")
    return lab


def picture(lab: "LabPage", place: int) -> "Locator":
    """The photo, or the chosen head's map over it."""
    return lab.output.locator(".caap-picture canvas").nth(place)


def heads(lab: "LabPage") -> "Locator":
    return lab.output.locator(".caap-heads canvas")


def cell(lab: "LabPage", row: float, col: float, place: int = 0) -> tuple[float, float]:
    """Where the middle of a patch is on the page."""
    left, top, width, height = lab.box(picture(lab, place))
    return left + (col + 0.5) * width / 8, top + (row + 0.5) * height / 8


def click(lab: "LabPage", row: int, col: int, place: int = 0) -> None:
    lab.click(picture(lab, place), (col + 0.5) / 8, (row + 0.5) / 8)


def tile(lab: "LabPage", layer: int, head: int) -> tuple[float, float, float]:
    """Left and top of a head's map in the canvas, and its width."""
    step = (lab.box(heads(lab))[2] - 2) / 4  # between maps, and before the first one, are 2 pixels
    return 2 + head * step, 2 + layer * step, step - 2


def test_click_a_query(view: "LabPage") -> None:
    lab = view
    before = heads(lab).evaluate("canvas => canvas.toDataURL()")
    assert lab.value("w.query") == 0  # the class token
    click(lab, 5, 3)
    lab.wait_for("w.query", 1 + 5 * 8 + 3)
    assert lab.value("w.token.label") == "the chosen patch"
    lab.page.wait_for_function("document.querySelector('.caap-heads').dataset.query === '5 3'")
    assert heads(lab).evaluate("canvas => canvas.toDataURL()") != before
    # Each patch of each head has its own colour.
    for layer, head, row, col in ((0, 0, 0, 0), (3, 2, 6, 1), (7, 3, 2, 7)):
        left, top, width = tile(lab, layer, head)
        at = [left + (col + 0.5) * width / 8, top + (row + 0.5) * width / 8]
        wanted = lab.value(f"list(w.grid.table[3 * int(w._tiles[{layer}, {head}, {row}, {col}]) :][:3])")
        lab.until(COLOUR, [*at, [*wanted, 255]])
    click(lab, 1, 6, place=1)  # the large map takes queries as well
    lab.wait_for("w.query", 1 + 1 * 8 + 6)
    lab.page.get_by_label("query", exact=True).select_option("class token")
    lab.wait_for("(w.query, w.photo.chosen)", (0, []))
    lab.page.wait_for_function("document.querySelector('.caap-heads').dataset.query === ''")


def test_head_by_keyboard_and_mouse(view: "LabPage") -> None:
    lab = view
    heads(lab).focus()
    for key in ("PageUp", "ArrowDown", "ArrowDown", "ArrowRight"):
        lab.page.keyboard.press(key)
    lab.wait_for("w.grid.chosen", [2, 1])
    caption = lab.output.locator(".caap-picture .caap-caption").nth(1)
    caption.get_by_text("layer 2, head 1", exact=True).wait_for()
    lab.expect(heads(lab)).to_have_attribute("aria-label", re.compile("Chosen: layer 2, head 1: "))
    lab.expect(lab.output.locator(".caap-heads")).to_have_attribute("data-chosen", "2 1")
    tip = lab.output.locator(".caap-heads .caap-tip")
    lab.expect(tip).to_have_text(lab.value("w.grid.tips[2 * 4 + 1]"))
    lab.expect(lab.output.locator(".caap-scale")).to_contain_text(lab.value("f'{w.map.max():.3g}'"))
    left, top, width = tile(lab, 4, 3)
    heads(lab).click(position={"x": left + width / 2, "y": top + width / 2})
    lab.wait_for("w.grid.chosen", [4, 3])
    lab.expect(lab.output.locator(".caap-link")).to_contain_text("pattern[0, 3, 0, 1:]")


def test_query_by_keyboard(view: "LabPage") -> None:
    lab = view
    lab.page.mouse.move(0, 0)  # a patch under the mouse is the one that arrow keys start from
    picture(lab, 0).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):  # the first shows where one is
        lab.page.keyboard.press(key)
    lab.wait_for("w.query", 1 + 1 * 8 + 1)
    lab.page.keyboard.press("Escape")
    lab.wait_for("w.query", 0)


def test_paint_objects(view: "LabPage") -> None:
    lab = view
    assert lab.value("w.regions is None")
    lab.output.get_by_role("button", name="paint", exact=True).click()
    mode(lab, "Enter paints")
    drag(lab, [(1, 1), (1, 2), (2, 2)])
    lab.wait_for("w.photo.painted", [9, 10, 18])
    lab.wait_for("w.regions is None", False)
    lines = lab.output.locator(".caap-curve polyline")
    lab.expect(lines).to_have_count(4)
    lab.page.get_by_label("object", exact=True).select_option("object 2")
    lab.wait_for("(w.object.value, w.photo.painted)", (1, []))
    lab.expect(lab.output.locator(".caap-picture").first).to_have_attribute("data-overlay", "true")  # the other object
    drag(lab, [(5, 4), (5, 6)])
    lab.wait_for(
        "w.regions is not None and w.regions.regions.reshape(-1)[[9, 10, 18, 44, 45, 46]].tolist()", [0, 0, 0, 1, 1, 1]
    )
    lab.expect(lines).to_have_count(5)
    mass = lab.value("w.regions.mean('mass', heads='mean')[0, 7].item()")
    forms = "|".join(re.escape(form) for form in (f"{mass:.3g}", f"{mass:#.3g}", f"{mass:.3f}"))
    said = lab.output.locator(".caap-curve svg").first
    lab.expect(said).to_have_attribute("aria-label", re.compile(f"At 7: intra-object ({forms})[,.]"))
    lab.screenshot("attention_painted")
    for choice, shown in (("erase", [44, 46]), ("paint", [44, 45, 46])):
        lab.output.get_by_role("button", name=choice, exact=True).click()
        mode(lab, f"Enter {choice}s")
        click(lab, 5, 5)
        lab.wait_for("w.photo.painted", shown)
    lab.output.get_by_role("button", name="clear", exact=True).click()
    lab.wait_for("list(w.objects.masks)", ["object 1"])
    lab.expect(lines).to_have_count(4)


def mode(lab: "LabPage", hint: str) -> None:
    """Wait until the mouse does in the photo what the hint for the keyboard says."""
    lab.expect(picture(lab, 0)).to_have_attribute("aria-label", re.compile(hint))


def drag(lab: "LabPage", cells: list[tuple[int, int]]) -> None:
    """Press the mouse at the first patch and draw it over the others."""
    places = [cell(lab, *place) for place in cells]
    lab.page.mouse.move(*places[0])
    lab.page.mouse.down()
    for place in places[1:]:
        lab.page.mouse.move(*place, steps=4)
    lab.page.mouse.up()


def test_dark_narrow_and_reopened(lab_page: "LabPage") -> None:
    lab = lab_page
    own_masks = "w = cl.widgets.attention(model, scene, overlap=0.3)\nw"
    lab.open(SETUP, own_masks, name="attention.ipynb")
    lab.theme("dark")
    lab.width(1024)
    lab.wait_for("w.regions is None or w.map is None", False)
    click(lab, 3, 3)
    lab.wait_for("w.query", 28)
    lab.page.wait_for_function("document.querySelector('.caap-heads').dataset.query === '3 3'")
    lab.until("(panel => panel.scrollWidth <= panel.clientWidth)(document.querySelector('.caap-panel'))")
    lab.screenshot("attention_dark_top")
    lab.output.locator(".caap-curve").scroll_into_view_if_needed()
    lab.screenshot("attention_dark_below")
    lab.reopen("attention.ipynb")
    lab.expect(lab.output.locator("img")).to_have_count(1)


def test_a_pooling_head_has_a_row_of_its_own(lab_page: "LabPage") -> None:
    lab = lab_page
    make = """
import timm
sizes = dict(img_size=64, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=10)
pooled = cl.HookedViT(timm.create_model("vit_base_patch16_siglip_224", **sizes))
"""
    show = "w = cl.widgets.attention(pooled, scene.image)\nw"
    lab.open(SETUP + make, show, name="pool.ipynb")
    lab.wait_for("w.map is None", False)
    lab.page.wait_for_function("Number(document.querySelector('.caap-heads')?.dataset.shown) > 0")
    lab.expect(lab.output.locator(".caap-heads-frame").get_by_text("pool", exact=True)).to_be_visible()
    heads(lab).focus()
    for key in ("PageDown", "ArrowRight"):
        lab.page.keyboard.press(key)
    lab.wait_for("w.grid.chosen", [3, 1])
    lab.expect(lab.output.locator(".caap-picture .caap-caption").nth(1)).to_have_text("pool, head 1")
    lab.expect(lab.output.locator(".caap-link")).to_contain_text("attn_pool.pattern")
    lab.screenshot("a_pooling_head")
