"""A key for the colours of several maps: which scores are signed, and the meaning of the colours."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.transforms import Bbox, TransformedBbox

from caap_lab.escaping import for_plot
from caap_lab.plots.look import Look
from caap_lab.plots.maps import colour_table, map_colour_map, on_white

KEY_LINE = 0.13
"""Height of one of its lines, in inches."""
Key = dict[bool, list[str]]
"""Names of the maps without signs (False), and of those with signs (True)."""
_STRIP, _THICK, _LETTER = 0.8, 0.06, 0.046
"""Inches: length and height of a strip of colours, and the width of a character of 6 points."""
_WORDS = {
    False: "lowest to highest score",
    True: "against the target, 0, for the target",
}


def key_lines(titles: Sequence[str], signed: Sequence[Sequence[bool]]) -> Key:
    """Which columns have maps without signs (False), and with signs (True); empty ones are omitted.

    Args:
        titles: Titles of the columns.
        signed: Whether each map of each row is signed, one entry per column.
    """
    found: Key = {}
    for kind in (False, True):
        names = [title for title, column in zip(titles, zip(*signed, strict=True), strict=True) if kind in column]
        if names:
            found[kind] = list(dict.fromkeys(names))
    return found


def draw_key(figure: Figure, lines: Key, left: float, top: float, look: Look) -> None:
    """One line per kind of colours: a strip of them, the meaning of its ends, and the columns with such maps.

    Args:
        figure: A figure whose size is final, or grows upwards.
        lines: As `key_lines` returns them.
        left: Its left end, in inches from the left.
        top: Its upper end, in inches from the bottom.
        look: How the maps are drawn.
    """
    width, height = figure.get_size_inches()
    for number, (signed, names) in enumerate(lines.items()):
        middle = top - (number + 0.5) * KEY_LINE
        name = look.colour_map or map_colour_map(signed)
        colours = on_white(name, signed=signed) if look.fade else colour_table(name)
        place = Bbox.from_bounds(left / width, (middle - _THICK / 2) / height, _STRIP / width, _THICK / height)
        strip = BboxImage(TransformedBbox(place, figure.transFigure), interpolation="nearest", origin="upper")
        strip.set_data(colours[None])
        figure.add_artist(strip)
        beside = left + _STRIP + 0.06
        room = int((width - beside) / _LETTER)
        text = f"{_WORDS[signed]}: {', '.join(names)}"
        text = text if len(text) <= room else f"{text[: room - 3].rstrip(', ')}..."
        figure.text(beside / width, middle / height, for_plot(text), ha="left", va="center_baseline", fontsize=6)
