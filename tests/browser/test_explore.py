"""`cl.widgets.explore` under the mouse and the keyboard, in both themes, also while the kernel is busy."""

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
import time, torch
from pathlib import Path
model = cl.load_model("demo")
scenes = cl.demo_images("two", 4, seed=1)
"""
START = "w = cl.widgets.explore(model, scenes, methods=['caap', 'rollout'])\nw"
SEND = """code => {
    window.done = jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}).done; return null;
}"""
LOSE_A_PIECE = """() => {
    const send = WebSocket.prototype.send;
    window.lost = false;
    let large = 0;
    WebSocket.prototype.send = function (data) {
        large += (data.byteLength ?? 0) > 1000000;
        if (large < 5) return send.call(this, data);
        window.lost = true;
        WebSocket.prototype.send = send;
    };
}"""
"""The fifth piece of a file does not leave the browser."""
CANNOT_READ = """name => {
    const slice = File.prototype.slice;
    File.prototype.slice = function (...bounds) {
        if (this.name !== name) return slice.apply(this, bounds);
        File.prototype.slice = slice;
        return { arrayBuffer: () => Promise.reject(new Error("it is gone")) };
    };
}"""
"""A file of this name is gone when it is read."""
MINUS = "\N{MINUS SIGN}"
PICTURE = 'key => document.querySelector(`.caap-tile[data-key="${key}"] canvas`).toDataURL()'


@pytest.fixture(scope="module")
def opened(lab_page: "LabPage") -> "LabPage":
    lab_page.open(SETUP, START, name="explore.ipynb")
    return lab_page


@pytest.fixture
def lab(opened: "LabPage") -> "LabPage":
    """The widget as it is at first."""
    opened.page.mouse.move(0, 0)  # a patch under the mouse is the one that arrow keys start from
    opened.run(
        "w.difference.first.value = w.difference.second.value = w.target_box.value = ''\n"
        "w.compare.kind.value, w.method_picker.value, w.image_picker.chosen = 'nothing', ('caap', 'rollout'), 0\n"
        "w.board.chosen, w.board.box, w.board.pinned, w.board.mode = [], [], [], 'choose'\n"
        "w.board.opacity, w.board.top, w.board.lock = 0.8, 0, False"
    )
    opened.wait_for("sorted(w.maps)", ["caap", "rollout"])
    shows(opened, ["photo", "caap", "rollout"])
    return opened


def shows(lab: "LabPage", keys: list[str]) -> None:
    """Wait until these tiles are drawn, each with its map."""
    lab.until(
        "keys => { const tiles = [...document.querySelectorAll('.caap-tile')];"
        " return JSON.stringify(tiles.map(t => t.dataset.key)) === JSON.stringify(keys)"
        " && tiles.every(t => t.dataset.state !== 'computing'); }",
        keys,
    )


def tile(lab: "LabPage", key: str) -> "Locator":
    return lab.output.locator(f'.caap-tile[data-key="{key}"]')


def canvas(lab: "LabPage", key: str) -> "Locator":
    return tile(lab, key).locator("canvas")


def caption(lab: "LabPage", key: str) -> "Locator":
    return tile(lab, key).locator(".caap-caption")


def cell(lab: "LabPage", key: str, row: float, col: float) -> tuple[float, float]:
    """Where the middle of a patch is on the page."""
    left, top, width, height = lab.box(canvas(lab, key))
    return left + (col + 0.5) * width / 8, top + (row + 0.5) * height / 8


def click(lab: "LabPage", key: str, row: int, col: int) -> None:
    lab.click(canvas(lab, key), (col + 0.5) / 8, (row + 0.5) / 8)


def look(lab: "LabPage", name: str) -> None:
    """Nothing is wider than the page, at any width and in both themes; pictures for people."""
    for theme, width in (("dark", 1024), ("light", 1920), ("light", 1280)):
        lab.theme(theme)
        lab.width(width)
        lab.until(
            "() => { const main = document.querySelector('.caap-main').getBoundingClientRect();"
            " return main.right <= window.innerWidth && [...document.querySelectorAll('.caap-tile')]"
            ".every(t => t.getBoundingClientRect().right <= main.right + 1); }"
        )
        lab.screenshot(f"{name}_{theme}_{width}")


def test_click_a_patch(lab: "LabPage") -> None:
    place = "document.querySelector('.caap-tiles').offsetTop - document.querySelector('.caap-panel').offsetTop"
    before = lab.page.evaluate(place)
    click(lab, "rollout", 5, 3)
    lab.wait_for("w.board.chosen", [5, 3])
    for name in ("caap", "rollout"):  # each map says its own value of the same patch
        score, rank = lab.value(f"(w.maps['{name}'].scores[5, 3].item(), w.maps['{name}'].rank().index((5, 3)) + 1)")
        said = tile(lab, name).locator(".caap-value")
        lab.expect(said).to_contain_text(f"rank {rank} of 64")
        assert float(re.split("[ ,]", said.text_content() or "")[0].replace(MINUS, "-")) == pytest.approx(
            score, rel=0.01
        )
    lab.expect(lab.output.locator(".caap-board .caap-tip")).to_contain_text("only this patch inserted: ")
    table = lab.output.locator("table.caap-classes")
    lab.expect(table).to_contain_text("Patch at row 5, column 3")
    best = lab.value("w.maps['caap'].all_scores[5, 3].max().item()")
    lab.expect(table).to_contain_text(f"{best:.3f}")
    assert lab.page.evaluate(place) == before  # the table has not moved it
    look(lab, "explore_patch")


def test_keyboard_alone(lab: "LabPage") -> None:
    canvas(lab, "photo").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "Enter"):  # the first shows where one is
        lab.page.keyboard.press(key)
    lab.wait_for("w.board.chosen", [2, 1])
    lab.page.locator(".caap-images").get_by_role("radio").nth(0).focus()
    lab.page.keyboard.press("ArrowRight")
    lab.wait_for("w.image_picker.chosen", 1)
    lab.wait_for("[m.image.equal(torch.from_numpy(w.photos[1].pixels)) for m in w.maps.values()]", [True, True])
    assert lab.value("w.board.chosen") == []  # a new photo begins anew


def test_class_and_methods(lab: "LabPage") -> None:
    other = lab.value("scenes[0].labels[0]")
    box = lab.page.get_by_role("combobox", name="class").first
    box.fill(str(other))
    box.press("Enter")
    lab.wait_for("w.target", other)
    lab.wait_for("w.maps['caap'].target", other)
    assert lab.value("torch.equal(w.maps['caap'].scores, cl.caap(model, scenes[0].image, w.target).scores)")
    lab.expect(caption(lab, "caap")).to_have_text(f"caap for '{other}'")
    lab.expect(caption(lab, "rollout")).to_have_text("rollout for any class")
    box.fill("zebra")
    box.press("Enter")
    problem = lab.output.get_by_role("alert").get_by_text("There is no class 'zebra'")
    problem.wait_for()
    assert lab.box(problem)[1] < lab.page.viewport_size["height"]  # type: ignore[index]
    lab.expect(caption(lab, "caap")).to_have_text(f"caap for '{other}'")  # what is said is what is shown
    methods = lab.page.locator(".caap-methods")
    for name in ("libra_ixg_plus", "rollout"):
        methods.get_by_role("checkbox", name=name).click()
    shows(lab, ["photo", "caap", "libra_ixg_plus"])


def test_pin_a_map(lab: "LabPage") -> None:
    first = lab.value("w.target")
    tile(lab, "caap").get_by_role("button", name="Pin").click()
    lab.wait_for("w.board.pinned", ["caap"])
    lab.page.locator(".caap-images").get_by_role("radio").nth(2).click()
    shows(lab, ["photo", "caap", "rollout", "pin 1"])
    lab.expect(caption(lab, "pin 1")).to_have_text(f"caap for '{first}', image 0")
    assert lab.value("torch.equal(w.shown_maps['pin 1'].scores, cl.caap(model, scenes[0].image).scores)")
    tile(lab, "pin 1").get_by_role("button", name="Unpin").click()
    shows(lab, ["photo", "caap", "rollout"])


def test_two_classes_and_their_difference(lab: "LabPage") -> None:
    lab.page.get_by_label("with", exact=True).select_option("another class")
    rows = ["photo", "caap", "rollout", "other photo", "other caap", "other rollout"]
    shows(lab, rows)
    second = lab.value("w.shown_maps['other caap'].target")
    assert second == lab.value("w._results.logits[0].topk(2).indices[1].item()")
    places = lab.page.evaluate("[...document.querySelectorAll('.caap-tile')].map(t => [t.offsetLeft, t.offsetTop])")
    lefts, tops = zip(*places, strict=True)
    assert lefts[:3] == lefts[3:] and tops[0] == tops[2] < tops[3] == tops[5]  # a row each, map below map
    for name, option in (("of", f"caap for '{lab.value('w.target')}'"), ("minus", f"caap for '{second}'")):
        lab.page.get_by_label(name, exact=True).select_option(option)
    shows(lab, [*rows, "difference"])
    difference = "w.maps['caap'].scores - w.shown_maps['other caap'].scores"
    assert lab.value(f"torch.equal(w.shown_maps['difference'].scores, {difference})")
    look(lab, "explore_compare")


def test_two_photos(lab: "LabPage") -> None:
    lab.page.get_by_label("with", exact=True).select_option("another photo")
    lab.page.get_by_label("photo", exact=True).select_option("image 3")
    shows(lab, ["photo", "caap", "rollout", "other photo", "other caap", "other rollout"])
    lab.expect(caption(lab, "other photo")).to_contain_text("image 3")
    canvas(lab, "caap").hover(position={"x": 5, "y": 5})
    for key in ("caap", "other caap", "other rollout"):
        lab.expect(tile(lab, key).locator(".caap-value")).to_contain_text(" of 64")


def test_drag_a_box(lab: "LabPage") -> None:
    lab.page.get_by_role("button", name="Drag a box").click()
    lab.page.mouse.move(*cell(lab, "caap", 2, 1))
    lab.page.mouse.down()
    lab.page.mouse.move(*cell(lab, "caap", 4, 3))
    lab.page.mouse.move(*cell(lab, "caap", 5, 4))
    lab.page.mouse.up()
    lab.wait_for("w.board.box", [2, 1, 5, 4])
    lab.output.get_by_text("Box, rows 2 to 5, columns 1 to 4").wait_for()
    # The call in the link gives the numbers of the table.
    ending = "w.link.rsplit('\\n', 1)"
    best = lab.value(
        f"(lambda ns: (exec({ending}[0], ns), eval({ending}[1], ns).max().item())[1])"
        "({'cl': cl, 'model': model, 'images': scenes})"
    )
    lab.expect(lab.output.locator("table.caap-classes")).to_contain_text(f"{best:.3f}")


def test_hands_and_look_while_the_kernel_is_busy(lab: "LabPage", tmp_path: Path) -> None:
    flag = tmp_path / "go on"
    lab.page.evaluate(SEND, f"while not Path({str(flag)!r}).exists(): time.sleep(0.01)")
    before = lab.page.evaluate(PICTURE, "caap")
    lab.page.get_by_role("slider", name="opacity").press("ArrowLeft")
    lab.until(f"before => ({PICTURE})('caap') !== before", before)
    lab.page.get_by_role("spinbutton", name="top").fill("3")
    lab.page.get_by_role("button", name="Drag a box").click()
    lab.page.mouse.move(*cell(lab, "rollout", 1, 1))
    lab.expect(tile(lab, "caap").locator(".caap-value")).to_contain_text(" of 64")
    lab.page.mouse.down()
    lab.page.mouse.move(*cell(lab, "rollout", 3, 2))
    lab.page.mouse.up()
    lab.page.get_by_role("spinbutton", name="top").press("Enter")
    flag.touch()
    lab.page.evaluate("window.done")
    lab.wait_for("(w.board.opacity, w.board.top, w.board.chosen, w.board.box)", (0.75, 3, [], [1, 1, 3, 2]))


def known_of_upload(lab: "LabPage") -> str:
    """What tells where an upload stands."""
    page = lab.page.evaluate(
        "() => ({problem: document.querySelector('.caap-images .caap-problem')?.textContent,"
        " progress: (bar => bar && [bar.hidden, bar.value, bar.max])(document.querySelector('.caap-drop progress')),"
        " connection: jupyterapp.shell.currentWidget.sessionContext.session.kernel.connectionStatus,"
        " lost: window.lost})"
    )
    kernel = lab.value("(w.image_picker.received, w.image_picker.problem, w.message, [p.name for p in w.photos])")
    return f"page: {page}; kernel: {kernel}; errors: {lab.errors}; server: {lab.server.log()[-2000:]}"


def test_upload(lab: "LabPage", tmp_path: Path) -> None:
    """A photo arrives, also through a bad connection, and while a cell ends whose thread took the first pieces."""
    path = tmp_path / "mine.png"  # a single message of more than 10 MB would end the connection to the kernel
    Image.effect_noise((3600, 3600), 90).save(path, compress_level=0)
    assert path.stat().st_size > 12 << 20
    lab.page.evaluate(LOSE_A_PIECE)
    lab.page.evaluate(SEND, "w.image_picker.chosen = 1; time.sleep(0.3)")
    lab.page.locator(".caap-drop input").set_input_files(path)
    try:
        lab.wait_for("(w.photos[-1].name, w.image_picker.chosen == len(w.photos) - 1)", ("mine.png", True))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{known_of_upload(lab)}") from error
    assert lab.page.evaluate("window.lost")
    lab.wait_for("sorted(w.maps)", ["caap", "rollout"])
    lab.expect(lab.output.locator(".caap-drop progress")).to_be_hidden()
    lab.expect(caption(lab, "photo")).to_contain_text("mine.png")
    again = "eval(w.link.split('\\n')[0], {'cl': cl, 'model': model})"
    assert lab.value(f"torch.equal({again}.scores, w.maps['caap'].scores)")


def test_upload_of_several_files(lab: "LabPage", tmp_path: Path) -> None:
    """Each is taken, and what is wrong with one is said as long as nothing else is dropped; one that is gone, too."""
    names = ["first.png", "gone.png", "text.png", "last.png"]
    for name in names:
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    (tmp_path / "text.png").write_text("no image")
    problem = lab.output.locator(".caap-images .caap-problem")
    choose = lab.page.locator(".caap-drop input")
    lab.page.evaluate(CANNOT_READ, "gone.png")
    choose.set_input_files([tmp_path / name for name in names])
    lab.wait_for("[p.name for p in w.photos[-2:]]", ["first.png", "last.png"])
    lab.expect(problem).to_contain_text("gone.png could not be sent (it is gone); choose it again.")
    lab.expect(problem).to_contain_text("text.png is not an image")
    choose.set_input_files(tmp_path / "first.png")
    lab.expect(problem).to_have_text("")


def test_reopened_notebook_shows_the_picture(lab: "LabPage") -> None:
    picture = lab.page.locator(".jp-RenderedImage img")
    lab.expect(picture).to_have_count(1)
    lab.expect(picture).to_be_hidden()  # the widget lives
    drawn = "document.querySelector('.jp-RenderedImage img').src"
    lab.page.evaluate(f"window.before = {drawn}")
    click(lab, "photo", 5, 3)
    lab.wait_for("w.board.chosen", [5, 3])
    lab.until(f"{drawn} !== window.before")  # the picture is drawn after a pause
    lab.reopen("explore.ipynb")
    picture.wait_for()
    lab.until("document.querySelector('.jp-RenderedImage img').naturalWidth > 600")
    error = lab.output.get_by_text("Error displaying widget")  # of the widget, whose picture is enough
    error.wait_for(state="attached")
    lab.expect(error).to_be_hidden()
    lab.screenshot("explore_reopened")
