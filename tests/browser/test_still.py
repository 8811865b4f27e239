"""The picture beside a living widget is hidden in the pages of any front end, and nothing else is."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from caap_lab.widgets.scripts import joined, styles

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
WIDGET = '<div class="widget-view"><div class="caap-panel"><div id="here"></div></div></div>'
PAGES = {
    "lab": '<div class="jp-OutputArea-child"><div class="jp-OutputPrompt"></div><div>{}</div></div>',
    "vscode": '<div class="output_container"><div class="output"><div>{}</div></div></div>',
    "colab": '<div class="display_data output_subarea">{}</div>',
}
"""How front ends wrap each output of a cell: JupyterLab, Notebook 7 and voila; VS Code; Colab."""
ALTS = {"lab": "cl.caap(model, image)", "vscode": "cl.caap(model, image)", "colab": None}
MODEL = """
window.changed = () => {};
window.model = { still: "", get: name => model[name], on: (_, call) => { changed = call; }, off: () => {} };
window.forget = hideStill({ model, el: document.getElementById("here") });
"""


@pytest.fixture(scope="module")
def page(browser: "Browser") -> Iterator["Page"]:
    page = browser.new_page()
    yield page
    page.close()


def image(alt: str | None, name: str) -> str:
    return f'<img id="{name}" src="{PIXEL}"' + ("" if alt is None else f' alt="{alt}"') + ">"


def put(page: "Page", wrapped: str, after: str = "") -> None:
    """A widget alone in the first cell, then a second cell with somebody else's picture."""
    first = f'<div class="cell"><div id="outputs">{wrapped.format(WIDGET)}{after}</div></div>'
    second = f'<div class="cell">{wrapped.format(image("a figure", "other"))}</div>'
    page.set_content(f"<style>{styles('widgets.css')}</style><main>{first}{second}</main>")
    page.add_script_tag(content=f"(() => {{ {joined('still.js')}{MODEL} }})()")


def add(page: "Page", html: str) -> None:
    page.evaluate("html => document.getElementById('outputs').insertAdjacentHTML('beforeend', html)", html)


@pytest.mark.parametrize("name", PAGES)
def test_the_picture_hides_when_it_comes_and_shows_when_the_widget_goes(page: "Page", name: str) -> None:
    put(page, PAGES[name])
    page.evaluate("model.still = 'cl.caap(model, image)'")
    add(page, PAGES[name].format(image(ALTS[name], "still")))
    page.wait_for_function("!document.getElementById('still').checkVisibility()")
    add(page, PAGES[name].format(image("a figure", "third")))
    assert page.locator("#third").is_visible() and page.locator("#other").is_visible()
    page.evaluate("forget()")
    assert page.locator("#still").is_visible()


def test_others_pictures_stay(page: "Page") -> None:
    """A widget without a picture of its own, as one that stands in another, and one whose picture is still to come."""
    put(page, PAGES["lab"], PAGES["lab"].format(image("a figure", "third")))
    page.evaluate("model.still = 'cl.caap(model, image)'; changed()")
    assert page.locator("#third").is_visible() and page.locator("#other").is_visible()
    put(page, PAGES["colab"], PAGES["colab"].format(image(None, "third")))
    page.evaluate("changed()")
    assert page.locator("#third").is_visible()
