"""`cl.widgets.layer_sweep` under the keyboard and the mouse, in both themes."""

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SETUP = """
import caap_lab as cl
import torch
model = cl.load_model("demo")
scene = cl.demo_images("two", 1, seed=1)[0]
w = cl.widgets.layer_sweep(model, scene.image)
w
"""
SHOWN = "torch.equal(w.map.scores, cl.caap(model, scene.image, w.target, **w.settings).scores)"


@pytest.fixture(scope="module")
def sweep(lab_page: "LabPage") -> "LabPage":
    lab_page.open(SETUP, name="layer_sweep.ipynb")
    lab_page.wait_for("(len(w._here.maps), len(w.values))", (9, 9))
    return lab_page


def caption(lab: "LabPage") -> "Locator":
    return lab.output.locator('.caap-tile[data-key="map"] .caap-caption')


def chart(lab: "LabPage") -> "Locator":
    return lab.output.locator(".caap-curve").get_by_role("slider")


def thumbnails(lab: "LabPage") -> "Locator":
    return lab.output.locator(".caap-strip canvas")


def test_slider_by_keyboard(sweep: "LabPage") -> None:
    sweep.wait_for("w.cutoff.value", 5)
    handle = sweep.output.get_by_role("slider").nth(0)
    handle.focus()
    for wanted, key in ((4, "ArrowLeft"), (3, "ArrowLeft"), (4, "ArrowRight")):
        sweep.page.keyboard.press(key)
        sweep.wait_for("w.cutoff.value", wanted)
        sweep.expect(caption(sweep)).to_contain_text(f", cutoff {wanted} of 8")
        assert sweep.value(SHOWN)
        said = re.compile(rf"At {wanted}: insertion - deletion -?\d")
        sweep.expect(chart(sweep)).to_have_attribute("aria-label", said)
        sweep.expect(sweep.output.locator(".caap-strip")).to_have_attribute("data-chosen", f"0 {wanted}")


def test_chart_by_mouse_and_keyboard(sweep: "LabPage") -> None:
    sweep.click(chart(sweep), 0.97, 0.4)  # above the last cutoff
    sweep.wait_for("(w.cutoff.value, w.map.settings['cutoff'])", (8, 8))
    sweep.expect(chart(sweep)).to_have_css("cursor", "pointer")
    left, top, _, height = sweep.box(chart(sweep))
    sweep.page.mouse.move(left + 58, top + height / 2)  # on the axis: the first cutoff
    tip = sweep.output.locator(".caap-curve-tip")
    sweep.expect(tip).to_have_text(sweep.value("f'cutoff 0: insertion - deletion {w.values[0]:#.3g}'"))
    assert sweep.value("w.cutoff.value") == 8, "looking changes nothing"
    sweep.page.mouse.move(0, 0)
    for key, wanted in (("ArrowLeft", 7), ("Home", 0), ("End", 8), ("PageDown", 3), ("ArrowUp", 4)):
        chart(sweep).press(key)
        sweep.wait_for("w.cutoff.value", wanted)
    sweep.expect(tip).to_have_text(sweep.value("f'cutoff 4: insertion - deletion {w.values[4]:#.3g}'"))


def test_thumbnails(sweep: "LabPage") -> None:
    sweep.expect(sweep.output.locator(".caap-strip .caap-heads-columns span")).to_have_text([*"012345678"])
    sweep.click(thumbnails(sweep), 2.5 / 9, 0.5)
    sweep.wait_for("w.cutoff.value", 2)
    sweep.expect(caption(sweep)).to_contain_text(", cutoff 2 of 8")
    thumbnails(sweep).hover(position={"x": 5, "y": 20})
    sweep.expect(sweep.output.locator(".caap-strip .caap-tip")).to_have_text(sweep.value("w.strip.tips[0]"))
    thumbnails(sweep).press("ArrowRight")
    sweep.wait_for("w.cutoff.value", 3)


def test_the_scale_is_locked_at_first(sweep: "LabPage") -> None:
    lock = sweep.output.get_by_role("button", name="lock scale")
    sweep.expect(lock).to_have_attribute("aria-pressed", "true")
    bar = sweep.output.locator('.caap-tile[data-key="map"] .caap-bar')
    before = bar.get_attribute("title")
    thumbnails(sweep).press("End")
    sweep.expect(caption(sweep)).to_contain_text(", cutoff 8 of 8")
    colours = re.search("colours from .*", before or "").group()
    sweep.expect(bar).to_have_attribute("title", re.compile(re.escape(colours)))
    lock.click()
    sweep.wait_for("w.board.lock", False)
    sweep.expect(bar).not_to_have_attribute("title", re.compile(re.escape(colours)))
    lock.click()
    sweep.wait_for("w.board.lock", True)


def test_blank_and_start_and_class(sweep: "LabPage") -> None:
    sweep.output.get_by_label("blank").select_option("blurred_noise")
    sweep.wait_for("(w.settings['blank'], w.map is not None and w.map.settings['blank'])", ("blurred_noise",) * 2)
    sweep.run("w.cutoff.value = 8")
    start = sweep.output.get_by_role("slider").nth(1)
    start.focus()
    sweep.page.keyboard.press("ArrowRight")
    sweep.wait_for("(w.start.value, w.cutoff.min)", (1, 2))
    sweep.wait_for("w.map is not None", True)
    assert sweep.value(SHOWN)
    other = sweep.value("scene.labels[0]")
    box = sweep.page.get_by_role("combobox", name="class")
    box.fill(str(other))
    box.press("Enter")
    sweep.wait_for("w.map.target", other)
    sweep.wait_for("len(w.values)", 7)
    assert sweep.value(SHOWN)


HOLD = """
import threading
from caap_lab.widgets import layer_sweep_view
begun, go, computed = threading.Event(), threading.Event(), layer_sweep_view.caap
def held(*given, **options):
    begun.set()
    go.wait()
    return computed(*given, **options)
layer_sweep_view.caap = held
"""
"""Maps that are not computed before the test says so."""


def test_leaving_a_slow_setting_stops_its_work(sweep: "LabPage") -> None:
    sweep.wait_for("w.worker.pending", 0)
    sweep.run(HOLD)
    sweep.output.get_by_label("context").select_option("free")
    sweep.wait_for("(w.settings['context'], begun.is_set())", ("free", True))
    sweep.expect(sweep.output.locator('.caap-tile[data-key="map"]')).to_have_attribute("data-state", "computing")
    # The kernel answers while the widget computes.
    assert sweep.value("w.worker.pending") > 1
    sweep.output.get_by_label("context").select_option("clamped")
    sweep.wait_for("w.settings['context']", "clamped")
    sweep.run("go.set(); layer_sweep_view.caap = computed")
    sweep.wait_for("w.worker.pending", 0)
    assert sweep.value("sum(len(k.maps) for key, k in w._known.items() if 'free' in key)") == 0
    assert sweep.value(SHOWN)


def test_play_by_keyboard(sweep: "LabPage") -> None:
    sweep.run("w.cutoff.value = 2")
    button = sweep.output.get_by_role("button", name="play")
    button.press("Enter")
    pause = sweep.output.get_by_role("button", name="pause")
    sweep.expect(pause.locator("i")).to_have_class(re.compile("fa-pause"))
    sweep.wait_for("w.cutoff.value >= 3", True)
    pause.press("Enter")
    sweep.wait_for("w.play.value", False)
    sweep.expect(button.locator("i")).to_have_class(re.compile("fa-play"))
    sweep.run("w.cutoff.value = 7")
    button.press("Enter")
    sweep.wait_for("(w.cutoff.value, w.play.value)", (8, False))  # it stops at the end
    sweep.expect(button).to_be_visible()


def test_light_and_dark_narrow_and_wide_and_reopened(sweep: "LabPage") -> None:
    for theme in ("light", "dark"):
        sweep.theme(theme)
        for width in (1024, 1920):
            sweep.width(width)
            sweep.until("(panel => panel.scrollWidth <= panel.clientWidth)(document.querySelector('.caap-panel'))")
            sweep.expect(chart(sweep)).to_be_visible()
            sweep.screenshot(f"layer_sweep_{theme}_{width}")
    picture = sweep.page.locator(".jp-RenderedImage img")
    sweep.expect(picture).to_have_count(1)
    sweep.expect(picture).to_be_hidden()
    sweep.reopen("layer_sweep.ipynb")
    picture.wait_for()
    sweep.until("document.querySelector('.jp-RenderedImage img').naturalWidth > 600")
