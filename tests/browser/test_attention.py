"""`cl.widgets.attention` under the mouse and the keyboard, in both themes, for few heads and for many."""

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SETUP = """
import caap_lab as cl
import numpy as np
import timm
model = cl.load_model("demo")
scene = cl.demo_images("two", 1, seed=3)[0]
"""
START = "w = cl.widgets.attention(model, scene.image)\nw"
COLOUR = """([x, y, colour]) => {
    const canvas = document.querySelector('.caap-heads canvas');
    const [wide, high] = [canvas.width / canvas.clientWidth, canvas.height / canvas.clientHeight];
    const shown = canvas.getContext('2d').getImageData(Math.round(x * wide), Math.round(y * high), 1, 1).data;
    return colour.every((value, i) => Math.abs(value - shown[i]) <= 1);
}"""
"""Whether the heads have a colour at a place."""
FITS = "(panel => panel.scrollWidth <= panel.clientWidth)(document.querySelector('.caap-panel'))"


@pytest.fixture(scope="module")
def opened(lab_page: "LabPage") -> "LabPage":
    lab_page.open(SETUP, START, name="attention.ipynb")
    return lab_page


@pytest.fixture
def lab(opened: "LabPage") -> "LabPage":
    """The widget as it is at first."""
    opened.page.mouse.move(0, 0)  # a patch under the mouse is the one that arrow keys start from
    opened.run(
        "w.order.by.value, w.order.within.value, w.order.first.value = 'layer and head', 'each layer', 'highest'\n"
        "w.board.mode, w.grid.scale, w.object.value, w.grid.chosen = 'choose', 'each head', 0, [7, 0]\n"
        "w.board.robust = True\n"
        "w.look(0)"
    )
    opened.wait_for("w.map is None", False)
    opened.until("Number(document.querySelector('.caap-heads')?.dataset.shown) > 0")
    opened.until("document.querySelector('.caap-heads').dataset.chosen === '7 0'")
    return opened


def picture(lab: "LabPage", key: str) -> "Locator":
    return lab.output.locator(f'.caap-tile[data-key="{key}"] canvas')


def caption(lab: "LabPage", key: str) -> "Locator":
    return lab.output.locator(f'.caap-tile[data-key="{key}"] .caap-caption')


def grid(lab: "LabPage") -> "Locator":
    return lab.output.locator(".caap-heads")


def heads(lab: "LabPage") -> "Locator":
    return grid(lab).locator("canvas")


def cell(lab: "LabPage", row: float, col: float) -> tuple[float, float]:
    """Where the middle of a patch of the photo is on the page."""
    left, top, width, height = lab.box(picture(lab, "photo"))
    return left + (col + 0.5) * width / 8, top + (row + 0.5) * height / 8


def click(lab: "LabPage", row: int, col: int, key: str = "photo") -> None:
    lab.click(picture(lab, key), (col + 0.5) / 8, (row + 0.5) / 8)


def tile(lab: "LabPage", row: int, column: int) -> tuple[float, float, float]:
    """Left and top of a map in the canvas, and its width; the means stand apart."""
    lab.box(heads(lab))
    width = float((grid(lab).get_attribute("data-size") or "").split()[0])
    means = (8 * (column == 4), 8 * (row == 8))
    return 2 + column * (width + 2) + means[0], 2 + row * (width + 2) + means[1], width


def click_head(lab: "LabPage", row: int, column: int) -> None:
    left, top, width = tile(lab, row, column)
    heads(lab).click(position={"x": left + width / 2, "y": top + width / 2})


def test_click_a_query(lab: "LabPage") -> None:
    before = heads(lab).evaluate("canvas => canvas.toDataURL()")
    assert lab.value("w.query") == 0  # the class token
    click(lab, 5, 3)
    lab.wait_for("w.query", 1 + 5 * 8 + 3)
    assert lab.value("w.token.label") == "the chosen patch"
    lab.until("document.querySelector('.caap-heads').dataset.query === '5 3'")
    lab.expect(caption(lab, "photo")).to_have_text("query: patch at row 5, column 3")
    assert heads(lab).evaluate("canvas => canvas.toDataURL()") != before
    # Each patch of each head has its own colour.
    for layer, head, row, col in ((0, 0, 0, 0), (3, 2, 6, 1), (7, 3, 2, 7), (4, 4, 1, 1), (8, 4, 0, 6)):
        left, top, width = tile(lab, layer, head)
        at = [left + (col + 0.5) * width / 8, top + (row + 0.5) * width / 8]
        place = f"[{layer}, {head}]"
        share = f"float(w._looked.maps{place}[{row}, {col}] / w._looked.ends('each head')['robust']{place})"
        wanted = lab.value(f"list(w.board.tables['by sign'][4 * int(255 * min({share}, 1) + 0.5) :][:3])")
        lab.until(COLOUR, [*at, [*wanted, 255]])
    click(lab, 1, 6, key="map")  # the large map takes queries as well
    lab.wait_for("w.query", 1 + 1 * 8 + 6)
    lab.page.get_by_label("query", exact=True).select_option("class token")
    lab.wait_for("(w.query, w.board.chosen)", (0, []))
    lab.until("document.querySelector('.caap-heads').dataset.query === ''")


def test_head_by_keyboard_and_mouse(lab: "LabPage") -> None:
    heads(lab).focus()
    for key in ("PageUp", "ArrowDown", "ArrowDown", "ArrowRight"):
        lab.page.keyboard.press(key)
    lab.wait_for("w.grid.chosen", [2, 1])
    lab.expect(caption(lab, "map")).to_have_text("layer 2, head 1")
    lab.expect(heads(lab)).to_have_attribute("aria-label", re.compile("Chosen: layer 2, head 1: "))
    lab.expect(grid(lab)).to_have_attribute("data-chosen", "2 1")
    lab.expect(grid(lab).locator(".caap-tip")).to_have_text(lab.value("w.grid.tips[2 * 5 + 1]"))
    high = lab.value("f\"{w._looked.ends('each head')['robust'][2, 1]:.3g}\"")
    lab.expect(grid(lab).locator(".caap-heads-bar")).to_contain_text(f"{high} of its attention")
    click_head(lab, 4, 3)
    lab.wait_for("w.grid.chosen", [4, 3])
    lab.expect(lab.output.locator(".caap-link")).to_contain_text("pattern[0, 3, 0, 1:]")
    heads(lab).press("End")
    lab.wait_for("w.grid.chosen", [4, 4])
    lab.expect(caption(lab, "map")).to_have_text("layer 4, mean over heads")
    click_head(lab, 8, 4)
    lab.expect(caption(lab, "map")).to_have_text("mean over layers and heads")


def test_pointed_heads_are_shown_large(lab: "LabPage") -> None:
    chosen = picture(lab, "map").evaluate("canvas => canvas.toDataURL()")
    left, top, width = tile(lab, 1, 2)
    heads(lab).hover(position={"x": left + width / 2, "y": top + width / 2})
    lab.expect(caption(lab, "map")).to_have_text("layer 1, head 2")
    assert picture(lab, "map").evaluate("canvas => canvas.toDataURL()") != chosen
    assert lab.value("(w.grid.chosen, w.board.tile('map')['caption'])") == ([7, 0], "layer 7, head 0"), "browser only"
    lab.page.mouse.move(0, 0)
    lab.expect(caption(lab, "map")).to_have_text("layer 7, head 0")
    assert picture(lab, "map").evaluate("canvas => canvas.toDataURL()") == chosen


def test_zoom(lab: "LabPage") -> None:
    fit = lab.page.get_by_role("button", name="Show all maps")
    lab.expect(fit).to_be_disabled()
    lab.page.get_by_role("button", name="Zoom in").click()
    lab.expect(grid(lab)).to_have_attribute("data-zoom", "1.30")
    for _ in range(3):
        heads(lab).press("+")
    lab.expect(grid(lab)).to_have_attribute("data-zoom", "2.86")
    heads(lab).press("PageUp")  # what is chosen is scrolled into sight
    heads(lab).press("PageDown")
    lab.wait_for("w.grid.chosen", [8, 0])
    lab.until("(f => f.scrollTop + f.clientHeight >= f.scrollHeight - 3)(document.querySelector('.caap-heads-frame'))")
    lab.page.get_by_role("button", name="Zoom out").click()
    lab.expect(grid(lab)).to_have_attribute("data-zoom", "2.20")
    fit.click()
    lab.expect(grid(lab)).to_have_attribute("data-zoom", "1.00")
    heads(lab).hover()
    lab.page.keyboard.down("Control")
    lab.page.mouse.wheel(0, -100)
    lab.page.keyboard.up("Control")
    lab.expect(grid(lab)).to_have_attribute("data-zoom", "1.30")
    heads(lab).press("0")
    lab.expect(grid(lab)).to_have_attribute("data-zoom", "1.00")


def test_scale_and_order(lab: "LabPage") -> None:
    bar = grid(lab).locator(".caap-heads-bar")
    lab.page.get_by_label("Upper end of the colours").select_option("all heads")
    high = lab.value("f\"{w._looked.ends('all heads')['robust'][0, 0]:.3g}\"")
    lab.expect(bar).to_contain_text(f"{high} of its attention")
    lab.output.get_by_role("button", name="Colours from the lowest").click()
    high = lab.value("f\"{w._looked.ends('all heads')['full'][0, 0]:.3g}\"")
    lab.expect(bar).to_contain_text(f"{high} of its attention")
    lab.page.get_by_label("sort by").select_option("entropy of all patches (nats)")
    lab.expect(grid(lab).locator(".caap-caption")).to_contain_text("by entropy of all patches (nats), highest first")
    lab.expect(grid(lab).locator(".caap-heads-columns span")).to_have_text(["1.", "2.", "3.", "4.", "mean"])
    lab.page.get_by_label("within").select_option("all layers")
    lab.wait_for("w.grid.split", [8, 0])
    click_head(lab, 0, 0)
    best = lab.value("[int(i) for i in np.unravel_index(w._rows.entropy.argmax(), (8, 4))]")
    lab.wait_for("w.grid.chosen", best)
    lab.expect(caption(lab, "map")).to_have_text("layer {}, head {}".format(*best))


def test_query_by_keyboard(lab: "LabPage") -> None:
    picture(lab, "photo").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):  # the first shows where one is
        lab.page.keyboard.press(key)
    lab.wait_for("w.query", 1 + 1 * 8 + 1)
    lab.page.keyboard.press("Escape")
    lab.wait_for("w.query", 0)


def test_paint_objects(lab: "LabPage") -> None:
    assert lab.value("w.regions is None")
    mode(lab, "Paint patches")
    drag(lab, [(1, 1), (1, 2), (2, 2)])
    lab.wait_for("w.board.painted", [9, 10, 18])
    lab.wait_for("w.regions is None", False)
    lines = lab.output.locator(".caap-curve polyline")
    lab.expect(lines).to_have_count(4)
    lab.page.get_by_label("object", exact=True).select_option("object 2")
    lab.wait_for("(w.object.value, w.board.painted)", (1, []))
    drag(lab, [(5, 4), (5, 6)])
    lab.wait_for(
        "w.regions is not None and w.regions.regions.reshape(-1)[[9, 10, 18, 44, 45, 46]].tolist()", [0, 0, 0, 1, 1, 1]
    )
    lab.expect(lines).to_have_count(5)
    mass = lab.value("w.regions.mean('mass', heads='mean')[0, 7].item()")
    forms = "|".join(re.escape(form) for form in (f"{mass:.3g}", f"{mass:#.3g}", f"{mass:.3f}"))
    chart = lab.output.locator(".caap-curve").get_by_role("slider")
    lab.expect(chart).to_have_attribute("aria-label", re.compile(f"At 7: intra-object ({forms})[,.]"))
    chart.press("ArrowLeft")
    lab.wait_for("w.grid.chosen", [6, 0])
    for choice, shown in (("Erase patches", [44, 46]), ("Paint patches", [44, 45, 46])):
        mode(lab, choice)
        click(lab, 5, 5)
        lab.wait_for("w.board.painted", shown)
    lab.output.get_by_role("button", name="clear this object").click()
    lab.wait_for("list(w.objects.masks)", ["object 1"])
    lab.expect(lines).to_have_count(4)


def mode(lab: "LabPage", name: str) -> None:
    """Choose what the mouse does in the photo."""
    button = lab.output.get_by_role("button", name=name)
    button.click()
    lab.expect(button).to_have_attribute("aria-pressed", "true")


def drag(lab: "LabPage", cells: list[tuple[int, int]]) -> None:
    """Press the mouse at the first patch and draw it over the others."""
    places = [cell(lab, *place) for place in cells]
    lab.page.mouse.move(*places[0])
    lab.page.mouse.down()
    for place in places[1:]:
        lab.page.mouse.move(*place, steps=4)
    lab.page.mouse.up()


POOLED = """
w.close()
sizes = dict(img_size=64, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=10)
pooled = cl.HookedViT(timm.create_model("vit_base_patch16_siglip_224", **sizes))
w = cl.widgets.attention(pooled, scene)
w
"""
MANY = """
w.close()
sizes = dict(img_size=32, patch_size=4, embed_dim=48, depth=40, num_heads=24, num_classes=10)
w = cl.widgets.attention(cl.HookedViT(timm.create_model("vit_base_patch16_224", **sizes)), scene.image)
w
"""


def test_a_pooling_head_has_a_row_of_its_own(opened: "LabPage") -> None:
    lab = opened
    show(lab, POOLED)
    lab.expect(grid(lab).get_by_text("pool", exact=True)).to_be_visible()
    click(lab, 1, 1)
    lab.wait_for("w.board.chosen", [1, 1])
    heads(lab).focus()
    for key in ("PageDown", "ArrowUp", "ArrowRight"):
        lab.page.keyboard.press(key)
    lab.wait_for("w.grid.chosen", [3, 1])
    lab.expect(caption(lab, "map")).to_have_text("pool, head 1")
    lab.expect(caption(lab, "photo")).to_have_text("query: pooling head")
    lab.expect(lab.output.locator(".caap-link")).to_contain_text("attn_pool.pattern")
    lab.wait_for("w.board.chosen", [])
    lab.screenshot("a_pooling_head")


def test_all_heads_of_a_large_model_are_seen_at_first(opened: "LabPage") -> None:
    lab = opened
    show(lab, MANY)
    for theme in ("light", "dark"):
        lab.theme(theme)
        for width in (1024, 1920):
            lab.width(width)
            lab.until(FITS)
            lab.until(
                "(f => f.scrollWidth <= f.clientWidth && f.scrollHeight <= f.clientHeight && f.clientHeight <= 600)"
                "(document.querySelector('.caap-heads-frame'))"
            )
            lab.screenshot(f"attention_{theme}_{width}")
    lab.reopen("attention.ipynb")
    lab.expect(lab.output.locator("img")).to_have_count(2)  # of both widgets


def show(lab: "LabPage", cell: str) -> None:
    """Show another model in the same notebook."""
    lab.open(SETUP, START, cell, name="attention.ipynb")
    lab.wait_for("w.map is None", False)
    lab.until("Number(document.querySelector('.caap-heads')?.dataset.shown) > 0")
