"""`cl.widgets.explore` under the mouse and the keyboard."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SETUP = """
import caap_lab as cl
import torch
model = cl.load_model("demo")
scenes = cl.demo_images("two", 4, seed=1)
"""
START = "w = cl.widgets.explore(model, scenes, methods=['caap', 'rollout'])\nw"


@pytest.fixture(scope="module")
def opened(lab_page: "LabPage") -> "LabPage":
    lab_page.open(SETUP, START, name="explore.ipynb")
    return lab_page


@pytest.fixture
def explorer(opened: "LabPage") -> "LabPage":
    """The widget as it is at first."""
    lab = opened
    for name, value in {
        "w.mode": "choose",
        "w.method_list": ("caap", "rollout"),
        "w.gallery": 0,
        "w.target_box": "",
    }.items():
        trait = "chosen" if name == "w.gallery" else "value"
        lab.value(f"setattr({name}, {trait!r}, {value!r})")
    lab.value("[setattr(w.photo, name, []) for name in ('chosen', 'box')] and None")
    lab.page.mouse.move(0, 0)  # a patch under the mouse is the one that arrow keys start from
    lab.wait_for("len(w.maps)", 2)
    shown(lab, 2)
    for place in range(3):
        mode(lab, "Enter chooses the patch", place)
    return lab


def shown(lab: "LabPage", overlays: int) -> None:
    """Wait until the photo and so many maps are drawn."""
    lab.page.wait_for_function(
        "n => document.querySelectorAll('.caap-picture[data-shown]').length === n + 1", arg=overlays
    )


def mode(lab: "LabPage", hint: str, place: int = 0) -> None:
    """Wait until the mouse does in a picture what its hint for the keyboard says."""
    lab.expect(canvas(lab, place)).to_have_attribute("aria-label", re.compile(hint))


def canvas(lab: "LabPage", place: int = 0) -> "Locator":
    return lab.output.locator(".caap-picture canvas").nth(place)


def cell(lab: "LabPage", row: float, col: float, place: int = 0) -> tuple[float, float]:
    """Where the middle of a patch is on the page."""
    left, top, width, height = lab.box(canvas(lab, place))
    return left + (col + 0.5) * width / 8, top + (row + 0.5) * height / 8


def click(lab: "LabPage", row: int, col: int, place: int = 0) -> None:
    lab.click(canvas(lab, place), (col + 0.5) / 8, (row + 0.5) / 8)


def test_click_a_patch(explorer: "LabPage") -> None:
    lab = explorer
    click(lab, 5, 3, place=1)
    lab.wait_for("w.photo.chosen", [5, 3])
    tip = lab.output.locator(".caap-picture .caap-tip").nth(1)
    lab.expect(tip).to_have_text(lab.value("w.overlays['caap'].tips[5 * 8 + 3]"))
    score = lab.value("'%.4g' % w.maps['caap'].scores[5, 3]")
    lab.expect(tip).to_contain_text(f"row 5, column 3: logit {score}, rank ")
    table = lab.output.locator(".caap-panel table")
    lab.expect(table).to_contain_text("Patch at row 5, column 3")
    best = lab.value("w.maps['caap'].all_scores[5, 3].max().item()")
    lab.expect(table).to_contain_text(f"{best:.3f}")
    lab.screenshot("explore_patch")


def test_keyboard_alone(explorer: "LabPage") -> None:
    lab = explorer
    canvas(lab).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "Enter"):  # the first shows where one is
        lab.page.keyboard.press(key)
    lab.wait_for("w.photo.chosen", [2, 1])
    lab.page.get_by_role("radio").nth(0).focus()
    lab.page.keyboard.press("ArrowRight")
    lab.wait_for("w.gallery.chosen", 1)
    lab.wait_for("[m.image.equal(torch.from_numpy(w.photos[1].pixels)) for m in w.maps.values()]", [True, True])


def test_class_and_methods(explorer: "LabPage") -> None:
    lab = explorer
    other = lab.value("scenes[0].labels[0]")
    box = lab.page.get_by_placeholder("predicted class")
    box.fill(str(other))
    box.press("Enter")
    lab.wait_for("w.target", other)
    lab.wait_for("w.maps['caap'].target", other)
    assert lab.value("torch.equal(w.maps['caap'].scores, cl.caap(model, scenes[0].image, w.target).scores)")
    lab.expect(lab.output.locator(".caap-caption").nth(1)).to_contain_text(f"'{other}'")
    box.fill("zebra")
    box.press("Enter")
    lab.output.get_by_role("alert").get_by_text("There is no class 'zebra'").wait_for()
    box.fill("")
    box.press("Enter")
    lab.output.get_by_role("alert").wait_for(state="detached")
    lab.page.get_by_role("listbox").select_option(["caap", "grad_cam", "libra_ixg_plus"])
    lab.wait_for("list(w.maps)", ["caap", "grad_cam", "libra_ixg_plus"])
    shown(lab, 3)
    lab.screenshot("explore_methods")


def test_opacity_is_applied_without_a_new_picture(explorer: "LabPage") -> None:
    lab = explorer
    pictures = "[...document.querySelectorAll('.caap-picture')].map(picture => picture.dataset.shown).join(' ')"
    colours = "document.querySelectorAll('.caap-picture canvas')[1].toDataURL()"
    lab.page.evaluate(f"window.before = [{pictures}, {colours}]")
    lab.output.get_by_role("slider").first.press("ArrowLeft")
    lab.wait_for("[picture.opacity for picture in w.overlays.values()]", [0.55, 0.55])
    lab.until(f"{colours} !== window.before[1]")
    assert lab.page.evaluate(f"{pictures} === window.before[0]")
    lab.output.get_by_role("slider").first.press("ArrowRight")
    lab.until(f"{colours} === window.before[1]")


def test_drag_a_box(explorer: "LabPage") -> None:
    lab = explorer
    lab.page.get_by_role("button", name="drag a box").click()
    mode(lab, "Enter sets one corner")
    lab.page.mouse.move(*cell(lab, 2, 1))
    lab.page.mouse.down()
    lab.page.mouse.move(*cell(lab, 4, 3))
    lab.page.mouse.move(*cell(lab, 5, 4))
    lab.page.mouse.up()
    lab.wait_for("w.photo.box", [2, 1, 5, 4])
    lab.output.get_by_text("Box, rows 2 to 5, columns 1 to 4").wait_for()
    # The call in the link gives the numbers of the table.
    ending = "w.link.rsplit('\\n', 1)"
    best = lab.value(
        f"(lambda ns: (exec({ending}[0], ns), eval({ending}[1], ns).max().item())[1])"
        "({'cl': cl, 'model': model, 'images': scenes})"
    )
    lab.expect(lab.output.locator(".caap-panel table")).to_contain_text(f"{best:.3f}")
    lab.screenshot("explore_box")


def test_upload(explorer: "LabPage", tmp_path: Path) -> None:
    lab = explorer
    photo, broken, pdf, large = (tmp_path / name for name in ("mine.png", "broken.jpg", "paper.pdf", "large.png"))
    Image.radial_gradient("L").resize((300, 200)).save(photo)
    pdf.write_bytes(b"%PDF-1.7 and more")
    broken.write_bytes(b"\xff\xd8\xff\xe0 no photo")
    large.write_bytes(photo.read_bytes() + bytes(50 << 20))
    field = lab.page.locator(".caap-upload input")
    for path, sentence in (
        (pdf, "paper.pdf is not an image"),
        (broken, "broken.jpg is not an image"),
        (large, "large.png has 50 MB; at most 25 MB can be uploaded"),
    ):
        field.set_input_files(path)
        lab.output.get_by_role("alert").get_by_text(sentence).wait_for()
    field.set_input_files(photo)
    lab.wait_for("(len(w.photos), w.photos[-1].name, w.gallery.chosen)", (5, "mine.png", 4))
    lab.wait_for("len(w.maps)", 2)
    assert lab.value("w.message") == ""
    lab.output.locator(".caap-caption").get_by_text("mine.png").first.wait_for()


def test_a_photo_of_many_megabytes_arrives(explorer: "LabPage", tmp_path: Path) -> None:
    # One message of more than 10 MB would end the connection to the kernel.
    path = tmp_path / "noise.png"
    Image.effect_noise((3600, 3600), 90).save(path, compress_level=0)
    assert path.stat().st_size > 12 << 20
    explorer.page.locator(".caap-upload input").set_input_files(path)
    explorer.wait_for("(w.photos[-1].name, w.gallery.chosen == len(w.photos) - 1)", ("noise.png", True))


def test_dark_theme_at_1024_pixels(explorer: "LabPage") -> None:
    lab = explorer
    lab.theme("dark")
    lab.width(1024)
    click(lab, 2, 3)
    lab.wait_for("w.photo.chosen", [2, 3])
    lab.page.wait_for_timeout(300)
    lab.screenshot("explore_dark_1024")
    lab.until(
        "[...document.querySelectorAll('.caap-panel canvas')].every(c => c.getBoundingClientRect().right <= 1024)"
    )


def test_reopened_notebook_shows_the_picture(explorer: "LabPage") -> None:
    lab = explorer
    picture = lab.page.locator(".jp-RenderedImage img")
    lab.expect(picture).to_have_count(1)
    lab.expect(picture).to_be_hidden()  # the widget lives
    drawn = "document.querySelector('.jp-RenderedImage img').src"
    lab.page.evaluate(f"window.before = {drawn}")
    click(lab, 5, 3)
    lab.wait_for("w.photo.chosen", [5, 3])
    lab.until(f"{drawn} !== window.before")  # the picture is drawn after a pause
    lab.reopen("explore.ipynb")
    picture.wait_for()
    lab.until("document.querySelector('.jp-RenderedImage img').naturalWidth > 600")
    lab.screenshot("explore_reopened")
