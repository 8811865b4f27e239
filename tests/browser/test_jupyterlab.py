"""What every widget stands on: controls reach the kernel, and pictures outlive it."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SLIDER = """
import ipywidgets
slider = ipywidgets.IntSlider(value=3, max=10, description="cutoff")
slider
"""


BROKEN = """
import anywidget
class Broken(anywidget.AnyWidget):
    _esm = '''export default {render({el}) {
        const button = document.createElement("button");
        button.textContent = "press";
        button.onclick = () => { throw new Error("from the widget"); };
        el.append(button);
    }}'''
Broken()
"""


@pytest.fixture(scope="module")
def opened(lab_page: "LabPage") -> "LabPage":
    """A page for the tests that leave its notebook open."""
    lab_page.open(SLIDER, BROKEN, name="slider.ipynb")
    return lab_page


def test_slider_by_keyboard(opened: "LabPage") -> None:
    handle = opened.output.get_by_role("slider")
    handle.focus()
    handle.press("ArrowRight")
    opened.wait_for("slider.value", 4)


PICTURE = """
import ipywidgets
from IPython.display import Image, display
from PIL import Image as Pixels
Pixels.new("RGB", (60, 40), "teal").save("teal.png")
"""
SHOWN = """sizes => {
    const images = [...document.querySelectorAll('.jp-OutputArea-output img')];
    return JSON.stringify(images.map(image => [image.naturalWidth, image.naturalHeight])) === JSON.stringify(sizes);
}"""
"""Whether the pictures are these, decoded."""


def test_pictures_outlive_the_kernel(lab: "LabPage", tmp_path: Path) -> None:
    """One beside a widget, and one that was put in its place later; in JupyterLab, and as nbconvert's HTML."""
    lab.open(
        PICTURE,
        "display(ipywidgets.IntSlider(description='cutoff')); display(Image('teal.png'))",
        "handle = display('soon', display_id=True)",
        "handle.update(Image('teal.png'))",
    )
    lab.expect(lab.output.get_by_role("slider")).to_have_count(1)
    lab.reopen()
    lab.output.get_by_text("Error displaying widget").wait_for()  # the new kernel does not know it
    assert lab.output.get_by_role("slider").count() == 0
    lab.until(SHOWN, [[60, 40], [60, 40]])
    lab.screenshot("reopened")
    lab.to_html(tmp_path / "test.html")
    lab.page.goto((tmp_path / "test.html").as_uri())
    assert lab.page.locator("img").count() == 2
    lab.until(SHOWN, [[60, 40], [60, 40]])


def test_errors_in_a_widget_are_seen(opened: "LabPage") -> None:
    with opened.page.expect_event("pageerror"):
        opened.output.get_by_role("button", name="press").click()
    assert len(opened.errors) == 1 and "from the widget" in opened.errors.pop()


def test_errors_in_a_cell_are_seen(lab: "LabPage") -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.open("1 / 0")


def test_dark_and_narrow(opened: "LabPage") -> None:
    opened.theme("dark")
    opened.width(1024)
    opened.expect(opened.page.locator(".jp-Notebook")).to_have_css("background-color", "rgb(17, 17, 17)")


def test_lab_asks_nothing_and_keeps_its_token(opened: "LabPage") -> None:
    assert opened.page.get_by_role("dialog").count() == 0
    assert opened.page.get_by_text("official Jupyter news").count() == 0
    assert (opened.server.folder / "notebooks" / "01_quickstart.ipynb").exists()
    opened.page.context.clear_cookies()
    assert opened.page.request.get(f"{opened.server.url}/api/contents").status == 403


def test_the_tour_opens_first_and_its_links_open_pages(lab: "LabPage") -> None:
    tour = "notebooks/00_tour.ipynb"
    lab.page.goto(f"{lab.server.url}/?token={lab.server.token}")
    lab.until("name => window.jupyterapp?.shell?.currentWidget?.context?.path === name", tour)
    lab.page.get_by_role("link", name="The bundled world").click()
    lab.page.locator(".jp-MarkdownViewer h1").wait_for()  # rendered, not its source
    assert lab.page.evaluate("jupyterapp.shell.currentWidget.context.path") == "docs/demo.md"
