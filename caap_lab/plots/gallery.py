"""Many maps in one grid: photos and maps over them, each with its scale below it."""

from collections.abc import Sequence
from textwrap import shorten
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from caap_lab.errors import InputError
from caap_lab.escaping import for_plot
from caap_lab.plots.colour_key import KEY_LINE, Key, draw_key, key_lines
from caap_lab.plots.look import LOOK, Look
from caap_lab.plots.maps import (
    Pixels,
    Scores,
    colour_table,
    cut_ends,
    map_colour_map,
    map_range,
    on_white,
    plot_image,
    plot_map,
)
from caap_lab.plots.style import new_figure

PANEL, TITLE, GAP, SCALE = 1.35, 0.3, 0.1, 0.2
"""Inches: a panel with the gap next to it, a title of two lines, the gap, and a scale with its numbers."""
WIDTH = 24
"""Number of characters of a title that fit above a panel."""
SCALE_LETTERS = 25
"""Number of characters below a scale per inch."""
DIGIT = 1.2
"""Width of a digit relative to a character."""
UNIT_LETTERS = 14
"""Minimum number of characters of a shortened unit between the numbers of a scale; with less room it is omitted."""


class GalleryRow(NamedTuple):
    """One image and its maps."""

    image: Pixels
    titles: Sequence[str]
    """Text above the image, one entry per line, such as the model and the target."""
    maps: Sequence[Scores]
    signed: Sequence[bool]
    """Whether the colours of each map are centred on 0."""
    units: Sequence[str] = ()
    """The quantity of each map's scores; if given, each map has its scale below it."""


class Tile(NamedTuple):
    """A photo, or a map over it."""

    image: Pixels
    title: str
    """Title, which may have several lines."""
    scores: Scores | None = None
    """None to show only the photo."""
    signed: bool = False
    unit: str = ""
    """The quantity of the scores; if given, the map has its scale below it."""


def plot_gallery(rows: Sequence[GalleryRow], titles: Sequence[str], look: Look = LOOK) -> Figure:
    """The image, then each map of the row over it; every map has its own colour range.

    Args:
        rows: Images of one size, with the same number of maps in every row.
        titles: Titles of the columns of maps.
        look: How the maps are drawn.

    Raises:
        InputError: rows differ in length, or there are none; or the look is invalid.
    """
    if not all(isinstance(row, GalleryRow) for row in rows):
        raise InputError("plot_gallery draws arrays in GalleryRow objects; cl.gallery(rows) draws attribution maps.")
    if not rows or not rows[0].maps or len({len(row.maps) for row in rows}) > 1:
        raise InputError("A gallery needs rows with the same number of maps.")
    lines = []
    for place, row in enumerate(rows):
        above = titles if place == 0 else [""] * len(row.maps)
        units = row.units or [""] * len(row.maps)
        maps = zip(above, row.maps, row.signed, units, strict=True)
        lines.append([Tile(row.image, "\n".join(row.titles)), *(Tile(row.image, *one) for one in maps)])
    key = key_lines(titles, [row.signed for row in rows])
    return plot_tiles(lines, look, key=key if len(key) > 1 and look.colour_map is None else None)


def plot_tiles(
    lines: Sequence[Sequence[Tile]],
    look: Look = LOOK,
    panel: float = PANEL,
    note: str = "",
    key: Key | None = None,
) -> Figure:
    """Photos and maps in lines; every map has its own colour range.

    Args:
        lines: Tiles with images of one shape; lines may be shorter than the first.
        look: How the maps are drawn.
        panel: Width of a tile with the gap next to it in inches.
        note: Text below all tiles.
        key: Meaning of the colours of signed and other maps, below the maps.

    Raises:
        InputError: the look is invalid.
    """
    look.checked()
    columns = max(map(len, lines))
    shape = lines[0][0].image.shape
    below = SCALE * any(tile.unit for line in lines for tile in line)
    high = panel * shape[0] / shape[1]
    line_height, below_note = high + TITLE + below, 0.15 * bool(note)
    foot = below_note + KEY_LINE * len(key or {})
    width, height = panel * columns, line_height * len(lines) + 2 * GAP + foot
    # All panels have the same size, so their places are known; computing them by layout takes as long as drawing all.
    figure = new_figure(width, height, layout=None)
    gaps = {"wspace": GAP / (panel - GAP), "hspace": (TITLE + GAP + below) / (high - GAP)}
    edges = {
        "left": GAP / 2 / width,
        "right": 1 - GAP / 2 / width,
        "bottom": (GAP + below + foot) / height,
        "top": 1 - (TITLE + 2 * GAP) / height,
    }
    panels = figure.subplots(len(lines), columns, squeeze=False, gridspec_kw=gaps | edges)
    for axes, line in zip(panels, lines, strict=True):
        for ax, tile in zip(axes, line, strict=False):
            _draw(ax, tile, look, panel)
        for ax in axes[len(line) :]:
            ax.set_axis_off()
    if key:
        draw_key(figure, key, GAP, foot + GAP / 2, look)
    if note:
        figure.text(0.5, 0.06 / height, for_plot(note), ha="center", va="bottom", fontsize=6, alpha=0.65)
    return figure


def _draw(ax: Axes, tile: Tile, look: Look, panel: float) -> None:
    if tile.scores is None:
        plot_image(tile.image, ax)
    else:
        plot_map(tile.scores, tile.image, ax, signed=tile.signed, **look._asdict())
        if tile.unit:
            _scale(ax, tile, look, round(SCALE_LETTERS * panel))
    if tile.title:
        letters = round(WIDTH * panel / PANEL)
        ax.set_title("\n".join(_short(line, letters) for line in tile.title.split("\n")), fontsize=7)


def _scale(ax: Axes, tile: Tile, look: Look, letters: int) -> None:
    """The colours below a map, with the scores at their ends and the unit between them.

    It belongs to the map's own axes: a matplotlib colour bar takes longer to draw than the map.
    """
    assert tile.scores is not None
    limits = map_range(tile.scores, tile.signed, robust=look.robust)
    draw_strip(ax, tile.image, tile.signed, look)
    signs = ["\N{LESS-THAN OR EQUAL TO}" * cut_ends(tile.scores, limits)[0], "\N{GREATER-THAN OR EQUAL TO}"]
    signs[1] *= cut_ends(tile.scores, limits)[1]
    low, high = (f"{sign}{number_text(limit)}" for sign, limit in zip(signs, limits, strict=True))
    left, right = (1 + DIGIT * len(number) for number in (low, high))
    room = int(letters - left - right)
    unit = _short(tile.unit, room) if room >= min(len(tile.unit), UNIT_LETTERS) else ""
    middle = (left + letters - right) / 2 / letters
    look_of_text = {"fontsize": 5.5, "va": "top", "alpha": 0.75}
    for place, text, side in ((0.0, low, "left"), (middle, unit, "center"), (1.0, high, "right")):
        ax.text(place, -0.08, text, ha=side, transform=ax.transAxes, **look_of_text)  # type: ignore[arg-type]


def draw_strip(ax: Axes, image: Pixels, signed: bool, look: Look) -> None:
    """The colours of a map in a strip below it, within its own axes."""
    height, width = image.shape[:2]
    name = look.colour_map or map_colour_map(signed)
    colours = on_white(name, signed=signed) if look.fade else colour_table(name)
    top, bottom = height * 1.03 - 0.5, height * 1.07 - 0.5
    strip = ax.imshow(colours[None], extent=(-0.5, width - 0.5, bottom, top), aspect="equal", interpolation="nearest")
    strip.set_clip_on(False)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def number_text(value: float) -> str:
    """A number in at most three digits, as an end of a scale: 12.3, 0.004, 2e-05."""
    return f"{np.float64(value):z.3g}"


def _short(text: str, letters: int = WIDTH) -> str:
    cut = shorten(text, letters, placeholder="...")
    return for_plot(f"{text[: letters - 3]}..." if cut == "..." else cut)  # one long word would leave only dots
