"""`cl.widgets.layer_sweep` under the keyboard and the mouse."""

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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


def test_slider_by_keyboard(sweep: "LabPage") -> None:
    sweep.wait_for("w.cutoff.value", 5)
    handle = sweep.output.get_by_role("slider").nth(0)
    handle.focus()
    for wanted, key in ((4, "ArrowLeft"), (3, "ArrowLeft"), (4, "ArrowRight")):
        sweep.page.keyboard.press(key)
        sweep.wait_for("w.cutoff.value", wanted)
        sweep.output.locator(".caap-caption").get_by_text(f"cutoff {wanted} of 8").wait_for()
        assert sweep.value(SHOWN)
        said = re.compile(rf"At {wanted}: insertion - deletion -?\d")
        sweep.expect(sweep.output.locator(".caap-curve svg")).to_have_attribute("aria-label", said)
    sweep.screenshot("layer_sweep")


def test_click_on_the_curve(sweep: "LabPage") -> None:
    sweep.click(sweep.output.locator(".caap-curve svg"), 0.95, 0.4)  # above the last cutoff
    sweep.wait_for("(w.cutoff.value, w.map.settings['cutoff'])", (8, 8))


def test_blank_and_start_and_class(sweep: "LabPage") -> None:
    sweep.output.get_by_label("blank").select_option("blurred_noise")
    sweep.wait_for("(w.settings['blank'], w.map is not None and w.map.settings['blank'])", ("blurred_noise",) * 2)
    start = sweep.output.get_by_role("slider").nth(1)
    start.focus()
    sweep.page.keyboard.press("ArrowRight")
    sweep.wait_for("(w.start.value, w.cutoff.min)", (1, 2))
    sweep.wait_for("w.map is not None", True)
    assert sweep.value(SHOWN)
    other = sweep.value("scene.labels[0]")
    box = sweep.page.get_by_placeholder("predicted class")
    box.fill(str(other))
    box.press("Enter")
    sweep.wait_for("w.map.target", other)
    sweep.wait_for("len(w.values)", 7)
    assert sweep.value(SHOWN)
    box.fill("99")
    box.press("Enter")
    sweep.output.get_by_role("alert").get_by_text("Class 99 does not exist").wait_for()
    box.fill("")
    box.press("Enter")
    sweep.wait_for("w.message", "")


def test_play(sweep: "LabPage") -> None:
    sweep.value("setattr(w.cutoff, 'value', 2)")
    sweep.output.get_by_role("button", name="play").click()
    sweep.wait_for("w.cutoff.value >= 4", True)
    sweep.output.get_by_role("button", name="play").click()
    sweep.wait_for("w.play.value", False)
    stopped = sweep.value("w.cutoff.value")
    sweep.page.wait_for_timeout(1500)  # longer than a step; nothing may happen, however long it takes
    assert sweep.value("w.cutoff.value") == stopped


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
    # The kernel answers while the widget computes.
    assert sweep.value("w.worker.pending") > 1
    sweep.output.get_by_label("context").select_option("clamped")
    sweep.wait_for("w.settings['context']", "clamped")
    sweep.run("go.set(); layer_sweep_view.caap = computed")
    sweep.wait_for("w.worker.pending", 0)
    assert sweep.value("sum(len(k.maps) for key, k in w._known.items() if 'free' in key)") == 0
    assert sweep.value(SHOWN)


def test_dark_and_narrow_and_reopened(sweep: "LabPage") -> None:
    sweep.theme("dark")
    sweep.width(1024)
    sweep.screenshot("layer_sweep_dark_1024")
    picture = sweep.page.locator(".jp-RenderedImage img")
    sweep.expect(picture).to_have_count(1)
    sweep.expect(picture).to_be_hidden()
    sweep.reopen("layer_sweep.ipynb")
    picture.wait_for()
    sweep.until("document.querySelector('.jp-RenderedImage img').naturalWidth > 600")
