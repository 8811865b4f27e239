"""Photos with the maps of many methods on a page, at the size at which a paper prints it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from caap_lab.errors import InputError
from caap_lab.escaping import for_plot
from caap_lab.plots.colour_key import KEY_LINE, draw_key, key_lines
from caap_lab.plots.gallery import GalleryRow, draw_strip
from caap_lab.plots.look import LOOK, Look
from caap_lab.plots.maps import map_range, plot_image, plot_map
from caap_lab.plots.printed import COLUMN, LARGE, PAGE, SMALL
from caap_lab.plots.style import new_figure

_EDGE, _GAP, _LINE, _SCALE = 0.04, 0.04, 0.13, 0.17
"""Inches: around all tiles and between them, a line of text, and a scale with its numbers."""
_LARGEST = 1.0
"""Inches: width of a tile if there are few columns; the sheet is narrower then."""
_LETTER = 0.6
"""Width of a character relative to its font size."""
_BOTH = 11
"""Number of characters of the two numbers below a map."""


def plot_sheet(rows: Sequence[GalleryRow], titles: Sequence[str], *, title: str = "", look: Look = LOOK) -> Figure:
    """The photo, then each map of the row over it, with a line of text above each row; a colour key below all.

    Every map has its own colour range, whose ends are written below it: for signed scores only the absolute value,
    because both ends are equally far from 0.

    Args:
        rows: Images of one shape, with the same number of maps in every row; their titles form one line above them.
        titles: Titles of the columns.
        title: Title of the sheet.
        look: How the maps are drawn.

    Raises:
        InputError: rows differ in length, or there are none; or the look is invalid.
    """
    look.checked()
    if not rows or not titles or any(len(row.maps) != len(titles) for row in rows):
        raise InputError("A sheet needs rows of maps, one map per title in every row.")
    key = key_lines(titles, [row.signed for row in rows])
    tile = min((PAGE - 2 * _EDGE + _GAP) / (len(titles) + 1) - _GAP, _LARGEST)
    width = max(2 * _EDGE + (len(titles) + 1) * (tile + _GAP) - _GAP, COLUMN)
    highs = [tile * row.image.shape[0] / row.image.shape[1] for row in rows]
    head = _LINE * (1 + bool(title)) + _EDGE
    height = head + sum(_LINE + high + _SCALE for high in highs) + KEY_LINE * (len(key) + 1) + 2 * _EDGE
    figure = new_figure(width, height, layout=None)
    lefts = [_EDGE + number * (tile + _GAP) for number in range(len(titles) + 1)]
    if title:
        _write(figure, _EDGE, height - _EDGE - _LINE / 2, _short(title, _letters(width, LARGE)), LARGE)
    for left, name in zip(lefts, ("image", *titles), strict=True):
        shown = _short(name, _letters(tile, SMALL) + 1)
        _write(figure, left + tile / 2, height - head + _LINE / 2, shown, SMALL, "center")
    top = height - head
    for row, high in zip(rows, highs, strict=True):
        words = _short(" \N{MIDDLE DOT} ".join(row.titles), _letters(width, SMALL))
        _write(figure, _EDGE, top - _LINE / 2, words, SMALL, weight="bold")
        top -= _LINE + high
        places = [(left / width, top / height, tile / width, high / height) for left in lefts]
        plot_image(row.image, figure.add_axes(places[0]))
        for place, scores, signed in zip(places[1:], row.maps, row.signed, strict=True):
            ax = plot_map(scores, row.image, figure.add_axes(place), signed=signed, **look._asdict())
            draw_strip(ax, row.image, signed, look)
            _ends(ax, map_range(scores, signed, robust=look.robust), signed)
        top -= _SCALE
    draw_key(figure, key, _EDGE, top, look)
    ends = "the 2nd and 98th percentile of its scores" if look.robust else "its lowest and highest score"
    note = f"Each map has its own range: its colours end at {ends}, the numbers below it, in its method's unit."
    note = note if len(note) <= _letters(width, SMALL) else "Each map has its own range of colours."
    _write(figure, _EDGE, top - KEY_LINE * (len(key) + 0.5), note, SMALL)
    return figure


def _ends(ax: Axes, limits: tuple[float, float], signed: bool) -> None:
    """The scores at the ends of a map's colours, below them."""
    if signed:
        texts = [(0.5, f"\N{PLUS-MINUS SIGN}{short_number(limits[1], 3)}", "center")]
    else:
        pairs = [[short_number(limit, digits) for limit in limits] for digits in (3, 2, 1)]
        low, high = next((pair for pair in pairs if len("".join(pair)) <= _BOTH), pairs[-1])
        alike = low == high and limits[0] != limits[1]  # there is no room for more digits
        texts = [(0.5, f"\N{ALMOST EQUAL TO}{low}", "center")] if alike else [(0.0, low, "left"), (1.0, high, "right")]
    for place, text, side in texts:
        ax.text(place, -0.09, text, ha=side, va="top", fontsize=SMALL, alpha=0.75, transform=ax.transAxes)


def short_number(value: float, digits: int) -> str:
    """A number in few characters: 0.0076, 7.6e-4, -540."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    plain = f"{float(f'{value:.{digits}g}'):z.9f}".rstrip("0").rstrip(".")
    return plain if value == 0 or (plain != "0" and len(plain) <= len(power) + 1) else power


def _write(
    figure: Figure, x: float, y: float, text: str, size: float, side: str = "left", weight: str = "normal"
) -> None:
    """Text at a position in inches from the left and from the bottom."""
    width, height = figure.get_size_inches()
    look = {"ha": side, "va": "center_baseline", "fontsize": size, "fontweight": weight}
    figure.text(x / width, y / height, for_plot(text), **look)  # type: ignore[arg-type]


def _letters(width: float, size: float) -> int:
    """How many characters of a font size fit in some inches."""
    return int(width * 72 / (_LETTER * size))


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 3].rstrip()}..."
