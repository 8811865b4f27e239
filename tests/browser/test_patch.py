"""`cl.widgets.patch` under the mouse and the keyboard."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SETUP = """
import torch
import caap_lab as cl
model = cl.load_model("demo")
images = [scene.image for scene in cl.demo_images("two", 3, seed=1)]
w = cl.widgets.patch(model, images)

w
"""


@pytest.fixture(scope="module")
def lab(lab_page: "LabPage") -> "LabPage":
    lab_page.open(SETUP, name="patch.ipynb")
    seen(lab_page)
    return lab_page


def canvas(lab: "LabPage", key: str) -> "Locator":
    return lab.output.locator(f'.caap-tile[data-key="{key}"] canvas')


def seen(lab: "LabPage") -> str:
    """Wait until the page shows the effect of the patch that is set."""
    lab.wait_for("(w.result is not None, w.message)", (True, ""))
    effect = str(lab.value("f'{w.result.effect:+.3f}'"))
    lab.expect(lab.output.locator(".caap-effect")).to_contain_text(effect)
    return effect


def choose_none(lab: "LabPage") -> None:
    lab.output.get_by_role("button", name="none", exact=True).click()
    lab.expect(lab.output.locator(".caap-effect")).to_contain_text("No patch is chosen")


def code_runs(lab: "LabPage") -> bool:
    """Whether the code on the page gives the numbers on the page."""
    lab.run(str(lab.output.locator(".caap-code pre").text_content()))
    return bool(lab.value("bool(torch.allclose(after[0], w.result.after, atol=1e-5))"))


def drag(lab: "LabPage", start: tuple[int, int], end: tuple[int, int]) -> None:
    """Drag over the source photo, from the middle of one patch to that of another."""
    left, top, width, height = lab.box(canvas(lab, "source"))
    (x, y), (to_x, to_y) = (
        (left + (col + 0.5) * width / 8, top + (row + 0.5) * height / 8) for row, col in (start, end)
    )
    lab.page.mouse.move(x, y)
    lab.page.mouse.down()
    lab.page.mouse.move(to_x, to_y, steps=8)
    lab.page.mouse.up()


def test_click_paint_and_draw_boxes(lab: "LabPage") -> None:
    choose_none(lab)
    lab.click(canvas(lab, "source"), 2.5 / 8, 3.5 / 8)
    lab.wait_for("w.board.painted", [3 * 8 + 2])
    one = seen(lab)
    lab.click(canvas(lab, "target"), 5.5 / 8, 3.5 / 8)  # a click there chooses the same place
    lab.wait_for("w.board.painted", [3 * 8 + 2, 3 * 8 + 5])
    drag(lab, (3, 2), (3, 5))
    lab.wait_for("w.board.painted", [3 * 8 + col for col in range(2, 6)])
    assert seen(lab) != one
    lab.output.locator(".caap-board").get_by_role("button", name="Drag a box").click()
    drag(lab, (5, 1), (6, 2))
    lab.wait_for("w.board.painted", [*range(26, 30), 41, 42, 49, 50])
    lab.wait_for("w.board.box", [])
    seen(lab)
    lab.screenshot("patch_painted")
    lab.output.locator(".caap-board").get_by_role("button", name="Paint patches").click()
    lab.wait_for("w.board.mode", "paint")


def test_every_control_by_keyboard(lab: "LabPage") -> None:
    lab.output.locator(".noUi-handle").nth(1).focus()
    lab.page.keyboard.press("ArrowLeft")
    lab.wait_for("w.controls.layers.value", (0, 3))
    seen(lab)
    lab.output.get_by_label("point", exact=True).select_option(label="z: outputs of the heads")
    lab.wait_for("w.settings.point.name", "z")
    seen(lab)
    heads = lab.output.get_by_role("group", name="heads")
    heads.get_by_label("1", exact=True).focus()
    lab.page.keyboard.press("Space")
    lab.wait_for("w.settings.heads", (1,))
    lab.output.get_by_role("group", name="prefix tokens").get_by_label("cls").check()
    lab.wait_for("w.settings.prefix", (0,))
    effect = seen(lab)
    lab.output.get_by_label("replace by").select_option(label="zeros")
    lab.wait_for("w.settings.put_in", "zero")
    assert seen(lab) != effect
    assert code_runs(lab)
    row = lab.output.get_by_role("button", name="zeros")
    lab.expect(row).to_have_attribute("aria-pressed", "true")  # a patch that has stood for a while
    lab.output.get_by_label("replace by").select_option(label="the source photo's")
    lab.output.get_by_label("point", exact=True).select_option(label="resid_pre: stream into the block")
    lab.wait_for("w.settings.point.name", "resid_pre")
    lab.expect(heads).to_be_hidden()
    seen(lab)
    row.press("Enter")
    lab.wait_for("(w.settings.put_in, w.settings.point.name, w.settings.heads)", ("zero", "z", (1,)))
    seen(lab)


def test_as_caap_does(lab: "LabPage") -> None:
    lab.output.get_by_label("replace by").select_option(label="the source photo's")
    choose_none(lab)
    lab.click(canvas(lab, "source"), 0.5 / 8, 0.5 / 8)
    lab.wait_for("w.board.painted", [0])
    lab.output.get_by_role("button", name="as CAAP does").click()
    lab.wait_for("(w.board.painted, w.settings.target.name)", ([0, 1, 8, 9], "white blank"))
    seen(lab)
    score = "cl.caap(model, images[0], target=w.result.target.given).scores[0, 0]"
    assert lab.value(f"abs(float({score}) - w.result.scores['after']) < 1e-4") and code_runs(lab)


@pytest.mark.parametrize(("theme", "width"), [("dark", 1024), ("light", 1920)])
def test_everything_fits(lab: "LabPage", theme: str, width: int) -> None:
    lab.theme(theme)
    lab.width(width)
    frame = "document.querySelector('.caap-panel')"
    lab.until(f"() => {frame}.scrollWidth <= {frame}.clientWidth")
    lab.box(canvas(lab, "source"))
    tiles = [lab.box(canvas(lab, key)) for key in ("source", "target")]
    assert min(tile[2] for tile in tiles) > 180 and tiles[0][1] == tiles[1][1]  # side by side
    table = lab.output.locator(".caap-bars")
    beside = lab.box(table)[0] > tiles[1][0] + tiles[1][2] - 1
    assert beside == (width == 1920)
    lab.output.locator(".caap-effect").scroll_into_view_if_needed()
    lab.screenshot(f"patch_{theme}_{width}")
