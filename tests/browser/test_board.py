"""The board alone: its colours are those of figures, and it answers the mouse, the keys and the kernel."""

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from caap_lab.attribution.enlarge import enlarged
from caap_lab.plots.maps import ROBUST, map_range, overlay_table
from caap_lab.plots.style import COLOUR_MAP, SIGNED_COLOUR_MAP

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

GRID = (4, 6)
SCORES = np.random.default_rng(3).permutation(24).reshape(GRID).astype("float32") / 4
SCORES[0, 0] = 60  # an outlier
SIGNED = np.random.default_rng(4).normal(size=GRID).astype("float32")
SMALL = np.array([[3.0, 1.0, 3.0], [2.0, np.nan, 3.0]], dtype="float32")
START = f"""
import time
from pathlib import Path
import numpy as np
from caap_lab.widgets.board import Board, colour_tile, map_tile, photo_tile
from caap_lab.widgets.pixels import png
nan = float("nan")
scores = np.array({SCORES.tolist()}, dtype="float32")
signed = np.array({SIGNED.tolist()}, dtype="float32")
small = np.array({SMALL.tolist()}, dtype="float32")
photo = np.full((40, 60, 3), 100, dtype=np.uint8)
photo[..., 0] = 200
tips = [f"says {{place}}" for place in range(24)]
tools = ["modes", "smooth", "robust", "fade", "opacity", "colours", "signs", "top", "lock"]
tiles = [
    photo_tile("photo", "red", "A photo", {GRID}, tips=tips, details="and more"),
    map_tile("plain", "red", "A map whose caption is far too long for one line of its tile, so that its end is cut off "
             "rather than broken into two lines", scores, {GRID}, "logit", pin=True),
    map_tile("signed", "red", "Signed", signed, {GRID}, "effect", signed=True),
    map_tile("small", "red", "Another grid", small, {SMALL.shape}, "logit"),
    map_tile("waiting", "red", "Not there yet", None, {GRID}, "logit"),
]
board = Board(tools, modes=["choose", "box", "paint", "erase"], photos={{"red": png(photo)}}, tiles=tiles, label="Test")
first = dict(opacity=1.0, smooth=False, robust=False, fade=False, colours="by sign", signs="all", top=0, lock=False,
             mode="choose", chosen=[], box=[], painted=[], pinned=[], neighbours=[])
board.set_trait("opacity", 1.0)
board
"""
PIXELS = """([key, places]) => {
    const canvas = document.querySelector(`.caap-tile[data-key="${key}"] canvas`);
    const context = canvas.getContext('2d');
    return places.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]);
}"""
SIZE = (
    'key => { const c = document.querySelector(`.caap-tile[data-key="${key}"] canvas`); return [c.height, c.width]; }'
)
SEND = """code => {
    window.done = jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}).done; return null;
}"""
RED, GREY = (200, 100, 100), round(0.299 * 200 + 0.701 * 100)


@pytest.fixture(scope="module")
def opened(lab_page: "LabPage") -> "LabPage":
    lab_page.open(START, name="board.ipynb")
    return lab_page


@pytest.fixture
def lab(opened: "LabPage") -> "LabPage":
    """The board as it is at first, without transparency."""
    opened.page.mouse.move(0, 0)
    look(opened)
    return opened


def look(lab: "LabPage", **traits: object) -> None:
    """Change the board in the kernel, and wait until the browser has drawn it."""
    lab.run(f"board.tiles = tiles; [setattr(board, n, v) for n, v in (first | {traits!r}).items()]")
    lab.run("board.label = board.label[::-1]")  # the last message: all before it have been drawn
    label = lab.value("board.label")
    lab.until("l => document.querySelector('.caap-board[data-shown]')?.getAttribute('aria-label') === l", label)


def tile(lab: "LabPage", key: str) -> "Locator":
    return lab.output.locator(f'.caap-tile[data-key="{key}"]')


def canvas(lab: "LabPage", key: str) -> "Locator":
    return tile(lab, key).locator("canvas")


def values(lab: "LabPage") -> dict[str, str]:
    """What each tile says of the patch pointed at."""
    pairs = lab.output.locator(".caap-tile").evaluate_all(
        "tiles => tiles.map(tile => [tile.dataset.key, tile.querySelector('.caap-value').textContent])"
    )
    return dict(pairs)


def middles(lab: "LabPage", key: str, grid: tuple[int, int] = GRID) -> np.ndarray:
    """Colours in the middle of all patches of a tile, [row, col, 4]."""
    height, width = lab.page.evaluate(SIZE, key)
    rows, cols = grid
    places = [
        (int((col + 0.5) * width / cols), int((row + 0.5) * height / rows))
        for row in range(rows)
        for col in range(cols)
    ]
    return np.array(lab.page.evaluate(PIXELS, [key, places])).reshape(*grid, 4)


def looked_up(scores: np.ndarray, ends: tuple[float, float], name: str = COLOUR_MAP) -> np.ndarray:
    from matplotlib import colormaps

    low, high = ends
    shares = (scores.astype(float) - low) / (high - low)
    return np.asarray(colormaps[name](shares, bytes=True))[..., :3]


def over(ground: float, colours: np.ndarray, opacity: np.ndarray | float) -> np.ndarray:
    return ground * (1 - np.asarray(opacity)) + colours * np.asarray(opacity)


def at(lab: "LabPage", key: str, row: float, col: float, grid: tuple[int, int] = GRID) -> tuple[float, float]:
    left, top, width, height = lab.box(canvas(lab, key))
    return left + (col + 0.5) * width / grid[1], top + (row + 0.5) * height / grid[0]


def press(lab: "LabPage", name: str) -> None:
    lab.output.get_by_role("button", name=name, exact=True).click()


def test_colours_are_those_of_figures(lab: "LabPage") -> None:
    assert np.array_equal(middles(lab, "plain")[..., :3], looked_up(SCORES, map_range(SCORES)))
    signed = looked_up(SIGNED, map_range(SIGNED, True), SIGNED_COLOUR_MAP)
    assert np.array_equal(middles(lab, "signed")[..., :3], signed)
    assert (middles(lab, "photo")[..., :3] == RED).all()
    assert (middles(lab, "waiting")[..., :3] == GREY).all()  # maps lie over a grey photo
    small = middles(lab, "small", SMALL.shape)[..., :3]
    known = np.isfinite(SMALL)
    assert np.array_equal(small[known], looked_up(SMALL, (1, 3))[known])
    assert (small[~known] == GREY).all()
    look(lab, robust=True)
    ends = map_range(SCORES, robust=True)
    assert ends[1] < 60
    assert np.array_equal(middles(lab, "plain")[..., :3], looked_up(SCORES, ends))
    for colours in ("magma", "gray"):
        look(lab, colours=colours)
        assert np.array_equal(middles(lab, "plain")[..., :3], looked_up(SCORES, map_range(SCORES), colours))


def test_opacity_follows_the_score(lab: "LabPage") -> None:
    for key, scores, name, signed in (
        ("plain", SCORES, COLOUR_MAP, False),
        ("signed", SIGNED, SIGNED_COLOUR_MAP, True),
    ):
        look(lab, fade=True, opacity=0.5)
        low, high = map_range(scores, signed)
        places = np.minimum((256 * (scores.astype(float) - low) / (high - low)).astype(int), 255)
        table = overlay_table(name, signed=signed)[places]
        wanted = over(GREY, table[..., :3], 0.5 * table[..., 3:] / 255)
        assert (
            np.abs(middles(lab, key)[..., :3] - wanted).max() <= 2
        )  # the browser rounds where it lays one over another


def test_smooth_maps_are_upsampled_ones(lab: "LabPage") -> None:
    look(lab, smooth=True)
    height, width = lab.page.evaluate(SIZE, "plain")
    scores = enlarged(torch.from_numpy(SCORES), (height, width)).numpy()
    rng = np.random.default_rng(0)
    places = [(int(x), int(y)) for x, y in zip(rng.integers(0, width, 60), rng.integers(0, height, 60), strict=True)]
    shown = np.array(lab.page.evaluate(PIXELS, ["plain", places]))[:, :3]
    wanted = np.array([looked_up(scores[y : y + 1, x], map_range(SCORES))[0] for x, y in places])
    assert np.abs(shown - wanted).max() <= 4  # at most the next of 256 colours


def test_signs(lab: "LabPage") -> None:
    press(lab, "Positive scores only")
    signed = looked_up(SIGNED, map_range(SIGNED, True), SIGNED_COLOUR_MAP)
    assert np.array_equal(middles(lab, "signed")[..., :3], np.where(SIGNED[..., None] > 0, signed, GREY))
    assert np.array_equal(middles(lab, "plain")[..., :3], looked_up(SCORES, map_range(SCORES)))  # has no signs
    press(lab, "Negative scores only")
    assert np.array_equal(middles(lab, "signed")[..., :3], np.where(SIGNED[..., None] < 0, signed, GREY))
    lab.wait_for("board.signs", "negative")
    group = lab.output.get_by_role("group", name="Signs shown")
    lab.run("board.tiles = tiles[:2]")
    lab.expect(group).to_be_hidden()
    lab.run("board.tiles = tiles")
    lab.expect(group).to_be_visible()


def test_lock_gives_maps_of_one_unit_one_scale(lab: "LabPage") -> None:
    press(lab, "lock scale")
    assert np.array_equal(middles(lab, "plain")[..., :3], looked_up(SCORES, map_range(SCORES)))  # holds the other one
    known = np.isfinite(SMALL)
    small = middles(lab, "small", SMALL.shape)[..., :3]
    assert np.array_equal(small[known], looked_up(SMALL, map_range(SCORES))[known])
    signed = looked_up(SIGNED, map_range(SIGNED, True), SIGNED_COLOUR_MAP)
    assert np.array_equal(middles(lab, "signed")[..., :3], signed)  # of another unit
    lab.wait_for("board.lock", True)
    lab.run("board.tiles = [{**tiles[1], 'locked': [0.0, 120.0]}]")
    lab.expect(lab.output.locator(".caap-tile")).to_have_count(1)
    assert np.array_equal(middles(lab, "plain")[..., :3], looked_up(SCORES, (0, 120)))


def test_colour_bars(lab: "LabPage") -> None:
    bar = tile(lab, "plain").locator(".caap-bar")
    lab.expect(bar.locator(".caap-bar-unit")).to_have_text("logit")
    ticks = [float(text) for text in bar.locator(".caap-bar-ticks span").all_text_contents()]
    assert ticks[0] <= 20
    assert ticks[-1] == 60
    assert len(ticks) >= 3
    lab.expect(bar.locator(".caap-bar-above")).to_be_hidden()
    press(lab, "Colours from the 2nd to the 98th percentile, robust to outliers")
    assert ROBUST == (2, 98)
    lab.expect(bar.locator(".caap-bar-above")).to_be_visible()
    high = map_range(SCORES, robust=True)[1]
    assert f"to {high:.4g}\n" in str(bar.get_attribute("title"))
    lab.expect(tile(lab, "photo").locator(".caap-bar")).to_be_hidden()
    lab.expect(tile(lab, "waiting").locator(".caap-bar")).to_be_hidden()
    states = {key: tile(lab, key).get_attribute("data-state") for key in ("photo", "plain", "waiting")}
    assert states == {"photo": "photo", "plain": "map", "waiting": "computing"}


def test_pointing_at_one_tile_fills_all(lab: "LabPage") -> None:
    lab.page.mouse.move(*at(lab, "plain", 2, 4))
    order = [int(i) for i in torch.from_numpy(SCORES).flatten().argsort(descending=True, stable=True)]
    rank = order.index(2 * 6 + 4) + 1
    said = values(lab)
    assert said["photo"] == "row 2, column 4"
    assert said["plain"] == f"{SCORES[2, 4]:.4g}, rank {rank} of 24"
    assert said["signed"].startswith(f"{SIGNED[2, 4]:.4g}, rank ")
    assert said["small"] == "3, rank 3 of 5"  # at the same place of the photo: row 1, column 2; ties in reading order
    assert said["waiting"] == ""
    lab.expect(lab.output.locator(".caap-tip")).to_have_text(f"row 2, column 4: {said['plain']}")
    lab.page.mouse.move(*at(lab, "photo", 1, 1))
    lab.expect(lab.output.locator(".caap-tip")).to_have_text("row 1, column 1says 7")
    lab.page.mouse.move(*at(lab, "small", 1, 1, SMALL.shape))
    assert values(lab)["small"] == "not known yet"
    lab.page.mouse.move(0, 0)
    assert not any(values(lab).values())


def test_the_highest_patches_are_outlined(lab: "LabPage") -> None:
    before = middles(lab, "small", SMALL.shape)
    field = lab.output.get_by_label("top", exact=True)
    field.fill("2")
    field.press("Enter")
    lab.wait_for("board.top", 2)
    height, width = lab.page.evaluate(SIZE, "small")
    outlined = set()
    for row in (0, 1):
        for col in range(3):
            x, y = int((col + 0.5) * width / 3), min((row + 1) * height // 2, height - 4)
            below = np.array(lab.page.evaluate(PIXELS, ["small", [(x, y + step) for step in range(-4, 4)]]))
            if (below[:, :3].min(axis=1) > 235).any() and (below[:, :3].max(axis=1) < 20).any():  # white with a rim
                outlined.add((row, col))
    # Ties in reading order: the two corners of the upper row, not the one below.
    assert outlined == {(0, 0), (0, 2)}
    assert np.array_equal(middles(lab, "small", SMALL.shape), before)  # an outline, not a colour


def test_choose_box_and_paint(lab: "LabPage") -> None:
    mouse = lab.page.mouse
    lab.click(canvas(lab, "small"), 0.5, 0.75)
    lab.wait_for("board.chosen", [3, 3])  # in the grid of the first tile
    mouse.move(*at(lab, "plain", 1, 1))
    mouse.down()
    mouse.move(*at(lab, "plain", 2, 3))
    mouse.up()
    assert lab.value("board.chosen") == [3, 3]  # a drag is no click
    press(lab, "Drag a box")
    mouse.move(*at(lab, "plain", 2, 4))
    mouse.down()
    mouse.move(*at(lab, "plain", 1, 1))
    mouse.up()
    lab.wait_for("(board.mode, board.box, board.chosen)", ("box", [1, 1, 2, 4], [3, 3]))
    mouse.down()
    mouse.move(*at(lab, "plain", 3, 5))
    lab.page.keyboard.press("Escape")
    mouse.up()
    assert lab.value("board.box") == [1, 1, 2, 4]  # Escape let the drag go
    press(lab, "Paint patches")
    mouse.move(*at(lab, "photo", 0, 0))
    mouse.down()
    mouse.move(*at(lab, "photo", 0, 1))
    mouse.move(*at(lab, "photo", 1, 1))
    mouse.up()
    lab.wait_for("board.painted", [0, 1, 7])
    lab.click(canvas(lab, "photo"), 1.5 / 6, 1.5 / 4)
    lab.wait_for("board.painted", [0, 1])  # a click on a painted patch clears it
    press(lab, "Erase patches")
    lab.click(canvas(lab, "plain"), 0.5 / 6, 0.5 / 4)
    lab.wait_for("board.painted", [1])
    press(lab, "Paint patches")
    mouse.move(*at(lab, "plain", 2, 0))
    mouse.down()
    mouse.move(*at(lab, "plain", 2, 5))  # so fast that the browser says nothing between
    mouse.up()
    lab.wait_for("board.painted", [1, *range(12, 18)])


def test_drawing_in_one_tile_alone(lab: "LabPage") -> None:
    look(lab, mode="paint", painted=[0])
    lab.run("board.tiles = [tiles[1], {**tiles[0], 'paint': True}]")
    lab.expect(tile(lab, "plain")).to_have_attribute("data-mode", "choose")
    before = middles(lab, "photo")
    assert tuple(before[0, 0, :3]) != RED
    assert tuple(before[0, 1, :3]) == RED
    lab.click(canvas(lab, "plain"), 1.5 / 6, 1.5 / 4)
    lab.wait_for("(board.chosen, board.painted)", ([1, 1], [0]))
    lab.click(canvas(lab, "photo"), 2.5 / 6, 1.5 / 4)
    lab.wait_for("board.painted", [0, 8])


def test_keyboard_alone(lab: "LabPage") -> None:
    keys = lab.page.keyboard
    canvas(lab, "plain").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "Enter"):  # the first shows where one is
        keys.press(key)
    lab.wait_for("board.chosen", [1, 2])
    assert values(lab)["plain"].startswith(f"{SCORES[1, 2]:.4g}, rank")
    lab.expect(lab.output.locator(".caap-said")).to_contain_text("row 1, column 2")
    keys.press("a")  # JupyterLab's command for a new cell above
    keys.press("Escape")
    lab.wait_for("board.chosen", [])
    look(lab, mode="box")
    canvas(lab, "plain").focus()
    for key in ("ArrowDown", "Enter", "ArrowDown", "ArrowRight", "Enter"):
        keys.press(key)
    lab.wait_for("len(board.box)", 4)
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == 1
    lab.output.get_by_role("button", name="Pin: A map", exact=False).press("Enter")
    lab.wait_for("board.pinned", ["plain"])
    lab.expect(tile(lab, "plain")).to_have_class(re.compile("caap-pinned"))
    lab.output.get_by_label("opacity", exact=True).press("ArrowLeft")
    lab.wait_for("board.opacity", 0.95)


def test_all_of_it_while_the_kernel_is_busy(lab: "LabPage") -> None:
    stop = lab.server.folder / "stop"
    lab.page.evaluate(SEND, "while not Path('stop').exists(): time.sleep(0.01)")
    lab.until("() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status !== 'idle'")
    try:
        press(lab, "Interpolate scores between patches")
        press(lab, "fade")
        press(lab, "One colour per patch")
        press(lab, "fade")
        lab.output.get_by_label("colours", exact=True).select_option("magma")
        assert np.array_equal(middles(lab, "plain")[..., :3], looked_up(SCORES, map_range(SCORES), "magma"))
        press(lab, "Drag a box")
        lab.page.mouse.move(*at(lab, "plain", 0, 0))
        assert values(lab)["plain"] == "60, rank 1 of 24"
        lab.page.mouse.down()
        lab.page.mouse.move(*at(lab, "plain", 1, 2))
        lab.page.mouse.up()
        lab.page.mouse.move(0, 0)
        height, width = lab.page.evaluate(SIZE, "plain")
        below = [(width // 4, height // 2 + step) for step in range(-3, 4)]
        edge = np.array(lab.page.evaluate(PIXELS, ["plain", below]))
        assert (np.abs(edge[:, :3] - (0xE6, 0x9F, 0)).max(axis=1) < 3).any()  # the box's frame
    finally:
        stop.touch()
    lab.page.evaluate("window.done.then(() => null)")
    lab.wait_for("(board.colours, board.box, board.chosen, board.mode)", ("magma", [0, 0, 1, 2], [], "box"))
    stop.unlink()


def test_only_what_changed_is_drawn_again(lab: "LabPage") -> None:
    lab.page.evaluate(
        "() => { window.decoded = 0; const old = window.createImageBitmap;"
        " window.createImageBitmap = (...args) => { window.decoded += 1; return old(...args); }; }"
    )
    shown = "() => Number(document.querySelector('.caap-board').dataset.shown)"
    before = lab.page.evaluate(shown)
    lab.run("board.photos = {'red': png(photo)}; board.tiles = [{**tile, 'caption': 'New'} for tile in tiles]")
    lab.expect(tile(lab, "plain").locator(".caap-caption")).to_have_text("New")
    assert lab.page.evaluate("window.decoded") == 0
    lab.run(
        "with board.hold_sync():\n    board.photos = {'blue': png(photo[..., ::-1].copy())}\n"
        "    board.tiles = [photo_tile('photo', 'blue', 'Blue', (4, 6))]"
    )
    lab.expect(lab.output.locator(".caap-tile")).to_have_count(1)
    assert (middles(lab, "photo")[..., :3] == RED[::-1]).all()
    assert lab.page.evaluate("window.decoded") == 1
    assert lab.page.evaluate(shown) > before
    lab.run("board.photos = {'red': png(photo)}")


@pytest.mark.parametrize(("theme", "width"), [("light", 1920), ("dark", 1024)])
def test_themes_and_widths(lab: "LabPage", theme: str, width: int) -> None:
    look(lab, top=3, chosen=[1, 1])
    lab.theme(theme)
    lab.width(width)
    columns = 5 if width == 1920 else 2
    lab.until(
        "n => getComputedStyle(document.querySelector('.caap-tiles')).gridTemplateColumns.split(' ').length === n",
        columns,
    )
    lab.page.mouse.move(*at(lab, "plain", 1, 1))
    lab.screenshot(f"board_{theme}_{width}")
    boxes = lab.output.locator(".caap-tile canvas").evaluate_all(
        "all => all.map(c => { const r = c.getBoundingClientRect(); return [r.width, r.right]; })"
    )
    assert all(right <= width for _, right in boxes)
    assert all(drawn >= 200 for drawn, _ in boxes)  # pictures grow with the cell
    assert lab.page.evaluate("(o => o.scrollWidth <= o.clientWidth)(document.querySelector('.jp-OutputArea-output'))")
    heights = lab.output.locator(".caap-caption, .caap-value").evaluate_all("all => all.map(e => e.offsetHeight)")
    assert set(heights) == {20, 22}  # one line each, whatever they say
    title = tile(lab, "photo").locator(".caap-caption").get_attribute("title")
    assert title == "A photo\nand more"
