"""The controls that all widgets share, under the mouse and the keyboard: fields, check boxes, files and buttons."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

VIEW = """
import ipywidgets, pandas as pd, torch
import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.models.classes import ClassNames
from caap_lab.plots.style import text_figure
from caap_lab.widgets.image_picker import ImagePicker
from caap_lab.widgets.method_picker import MethodPicker
from caap_lab.widgets.panel import Panel, group
from caap_lab.widgets.photos import photos_of
from caap_lab.widgets.target_box import TargetBox

demo = cl.load_model("demo")
class Named:  # a classifier of many classes that needs no weights
    has_classifier = True
    class_names = ClassNames(
        (*ClassNames.imagenet1k().names, *(f"filler {i}" for i in range(1000, 21843))),
        (*ClassNames.imagenet1k().ids, *(f"n9{i:07}" for i in range(1000, 21843))),
    )
    def target(self, target):
        return self.class_names.find(target)
shares = torch.full((21843,), 1e-6)
shares[[285, 282, 340]] = torch.tensor([0.5, 0.2, 0.1])  # Egyptian cat, tiger cat, zebra
class Controls(Panel):
    def __init__(self):
        super().__init__()
        photos = photos_of(demo, cl.demo_images("two", 6, seed=1))
        self.images = ImagePicker(names=[p.name for p in photos], pictures=[p.thumbnail for p in photos])
        self.box = TargetBox(Named(), None)
        self.box.suggest(shares)
        self.methods = MethodPicker([*METHODS], ["caap", "rollout"], demo)
        self.slider = ipywidgets.IntSlider(4, min=0, max=12, description="cutoff")
        self.drop = ipywidgets.Dropdown(options=["grey", "black"], description="blank")
        self.ground = ipywidgets.HTML('<div style="height: 300px; background: #8883">shown</div>')
        controls = [("image", self.images), ("class", self.box), ("methods", self.methods)]
        groups = [group(title, widget) for title, widget in controls]
        self._lay_out([*groups, group("settings", self.slider, self.drop)], self.ground)
        self.box.on_choice(self._changed, self._on)
        self._on(self.methods, "value", self._changed)
        self._on(self.images, "file", self.take)
        self._on(self.drop, "value", self.fail)
        self._changed()
    def take(self):
        name, content = self.images.file
        if name and content[:4] != b"\\x89PNG":
            self.images.problem = f"{name} is not an image."
        elif name:
            self.images.names = [*self.images.names, name]
            self.images.pictures = [*self.images.pictures, content]
            self.images.chosen = len(self.images.names) - 1
    def fail(self):
        raise cl.InputError("No blank of this kind.")
    def to_figure(self):
        return text_figure(self.link)
    def to_dataframe(self):
        return pd.DataFrame({"method": self.methods.value, "class": self.box.target})
    @property
    def file_name(self):
        return "demo: photo"
    @property
    def link(self):
        return f"call({self.box.target}, {list(self.methods.value)})"
"""


@pytest.fixture(scope="module")
def controls(lab_page: "LabPage") -> "LabPage":
    lab_page.open(VIEW, "w = Controls()\nw", name="controls.ipynb")
    lab_page.page.evaluate(CLIPBOARD)
    return lab_page


PARTS = "['.caap-column', '.caap-main'].map(name => document.querySelector(name).getBoundingClientRect())"
BESIDE = f"(([column, main]) => main.left >= column.right && main.top <= column.top)({PARTS})"
ABOVE = f"(([column, main]) => main.left === column.left && main.top >= column.bottom)({PARTS})"
CLIPBOARD = "navigator.clipboard.writeText = async (text) => { window.copied = text; }"
"""A page without a window manager has no clipboard."""


def field(lab: "LabPage") -> "Locator":
    return lab.page.get_by_role("combobox", name="class")


def options(lab: "LabPage") -> "Locator":
    return lab.page.get_by_role("listbox", name="class").get_by_role("option")


def test_choose_a_class_by_keyboard(controls: "LabPage") -> None:
    lab, box = controls, field(controls)
    lab.expect(box).to_have_attribute("placeholder", "predicted: Egyptian cat, 50.0%")
    box.fill("cat")
    lab.expect(options(lab).first).to_have_text("285: Egyptian cat50.0%")  # the likeliest first, of all classes
    lab.expect(options(lab).nth(1)).to_have_text("282: tiger cat20.0%")
    lab.screenshot("controls_list")
    box.press("ArrowDown")
    box.press("ArrowDown")
    lab.expect(options(lab).nth(1)).to_have_attribute("aria-selected", "true")
    assert box.get_attribute("aria-activedescendant") == options(lab).nth(1).get_attribute("id")
    box.press("Enter")
    lab.wait_for("w.box.target", 282)
    lab.expect(box).to_have_value("282: tiger cat")
    lab.expect(options(lab)).to_have_count(0)
    for text, index in (("n02391049", 340), ("21842", 21842), ("Egyptian cat", 285), ("sorrel", 339)):
        box.fill(text)
        box.press("Enter")
        lab.wait_for("w.box.target", index)


def test_a_class_by_mouse_and_back_to_the_prediction(controls: "LabPage") -> None:
    lab, box = controls, field(controls)
    box.fill("zeb")
    options(lab).get_by_text("340: zebra").click()
    lab.wait_for("w.box.value", "340: zebra")
    box.click()
    options(lab).get_by_text("predicted: Egyptian cat").click()
    lab.wait_for("(w.box.target, w.box.value)", (None, ""))


def test_what_means_several_classes_or_none(controls: "LabPage") -> None:
    lab, box = controls, field(controls)
    lab.run("w.box.value = '340: zebra'")
    box.fill("cat")
    box.press("Enter")
    problem = lab.page.locator(".caap-target").get_by_role("alert")
    lab.expect(problem.first).to_contain_text("classes match “cat”: choose one")
    lab.expect(box).to_have_attribute("aria-invalid", "true")
    lab.expect(options(lab).first).to_be_visible()
    box.fill("zebrafish")
    lab.page.get_by_text("no match").wait_for()
    box.press("Enter")
    lab.expect(problem.first).to_contain_text("Nearest: 340 zebra")
    lab.expect(problem.first).to_contain_text("Still shown: zebra.")
    lab.expect(box).to_have_value("zebrafish")
    assert lab.value("(w.box.target, w.message)") == (340, "")
    assert lab.box(problem.first)[1] - lab.box(box)[1] < 40  # right below the field
    box.fill("zeb")
    box.press("Escape")
    lab.expect(box).to_have_value("zebrafish")  # Escape gives back what stood there
    box.fill("")
    box.press("Enter")
    lab.wait_for("(w.box.target, w.box.problem)", (None, ""))
    lab.expect(problem.first).to_have_text("")


def test_one_class_rather_than_another(controls: "LabPage") -> None:
    lab = controls
    lab.page.get_by_role("button", name="rather than").click()
    other = lab.page.get_by_role("combobox", name="rather than")
    lab.expect(other).to_be_focused()
    other.fill("tiger cat")
    other.press("Enter")
    lab.wait_for("w.box.target == cl.contrast(285, 282)", True)  # the prediction, by its name, is spoken for
    lab.expect(field(lab)).to_have_value("285: Egyptian cat")
    other.fill("")
    other.press("Enter")
    lab.wait_for("w.box.target", 285)


def test_methods_by_search(controls: "LabPage") -> None:
    lab = controls
    search = lab.page.get_by_role("searchbox", name="search methods")
    search.fill("lrp")
    boxes = lab.page.locator(".caap-methods").get_by_role("checkbox")
    lab.expect(boxes).to_have_count(1)
    search.press("Enter")
    lab.wait_for("w.methods.value", ("caap", "rollout", "attn_lrp"))
    search.fill("Abnar")  # by its source
    boxes.uncheck()
    lab.wait_for("w.methods.value", ("caap", "attn_lrp"))
    search.press("Escape")
    attn_lrp, caap = (lab.page.get_by_role("checkbox", name=name) for name in ("attn_lrp", "caap"))
    attn_lrp.uncheck()
    lab.expect(caap).to_be_disabled()  # one stays
    integrated = lab.page.locator(".caap-method").filter(has_text="integrated_gradients")
    lab.expect(integrated.locator(".caap-note")).to_have_text("150")
    caap.scroll_into_view_if_needed()
    assert lab.value("w.methods.value") == ("caap",)


def test_drop_choose_and_refuse_files(controls: "LabPage", tmp_path: Path) -> None:
    lab = controls
    photo, pdf, large = (tmp_path / name for name in ("mine.png", "paper.pdf", "large.png"))
    Image.radial_gradient("L").resize((300, 200)).save(photo)
    pdf.write_bytes(b"%PDF-1.7 and more")
    large.write_bytes(photo.read_bytes() + bytes(50 << 20))
    zone = lab.page.locator(".caap-drop")
    lab.expect(zone).to_contain_text("Drop a photo here, or choose a file")
    problem = lab.page.locator(".caap-images").get_by_role("alert")
    for path, sentence in ((pdf, "paper.pdf is not an image"), (large, "large.png has 50 MB; at most 25 MB")):
        zone.locator("input").set_input_files(path)
        lab.expect(problem).to_contain_text(sentence)
    zone.locator("input").set_input_files(photo)
    lab.wait_for("(w.images.names[-1], w.images.chosen)", ("mine.png", 6))
    lab.expect(lab.page.locator(".caap-file-name")).to_have_text("mine.png (7 of 7)")
    lab.expect(problem).to_have_text("")
    files = lab.page.evaluate_handle(
        """async () => {
            const canvas = new OffscreenCanvas(9, 9);
            canvas.getContext("2d").fillRect(0, 0, 9, 9);
            const files = new DataTransfer();
            files.items.add(new File([await canvas.convertToBlob()], "dropped.png", { type: "image/png" }));
            return files;
        }"""
    )
    for event in ("dragover", "drop"):
        zone.dispatch_event(event, {"dataTransfer": files})
    lab.wait_for("(w.images.names[-1], w.images.chosen)", ("dropped.png", 7))
    lab.page.get_by_role("radio", name="dropped.png").press("ArrowRight")
    lab.wait_for("w.images.chosen", 0)


def test_save_and_copy(controls: "LabPage", tmp_path: Path) -> None:
    lab = controls
    for kind, start in (("PNG", b"\x89PNG"), ("PDF", b"%PDF"), ("CSV", b"\xef\xbb\xbfmethod")):
        with lab.page.expect_download() as download:
            lab.page.get_by_role("button", name=f"as {kind}").click()
        assert download.value.suggested_filename == f"demo_photo.{kind.lower()}"
        download.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(start)
    lab.page.get_by_role("button", name="Copy the Python code").click()
    lab.expect(lab.page.locator(".caap-actions").get_by_role("status")).to_have_text("copied")
    assert lab.page.evaluate("window.copied") == lab.value("w.link")
    lab.expect(lab.page.locator(".caap-link")).to_have_text(lab.value("w.link"))


@pytest.mark.parametrize("width", [1024, 1920])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_messages_are_in_sight(controls: "LabPage", theme: str, width: int) -> None:
    lab = controls
    lab.theme(theme)
    lab.width(width)
    lab.run("w._show_message(''); w.drop.value = 'black' if w.drop.value == 'grey' else 'grey'")
    message = lab.page.locator(".caap-message")
    lab.expect(message).to_have_text("No blank of this kind.")
    lab.expect(message).to_be_in_viewport()
    lab.screenshot(f"controls_{theme}_{width}")
    lab.until(BESIDE if width == 1920 else ABOVE)
    lab.until("(panel => panel.scrollWidth <= panel.clientWidth + 1)(document.querySelector('.caap-panel'))")
