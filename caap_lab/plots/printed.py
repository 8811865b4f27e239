"""Figures at the size at which a paper prints them."""

from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from caap_lab.escaping import for_plot

PAGE, COLUMN = 6.9, 3.3
"""Widths of a page's text and of one of two columns, in inches."""
SMALL, LARGE = 6.0, 7.0
"""Font sizes in points: of numbers at the axes and of notes, and of all other text."""
_LINE = 0.11
"""Height of a line of small text in inches."""
_THINNER = 0.75
"""Size of lines and marks relative to those in a notebook."""


def at_print_size(figure: Figure, height: float, width: float = PAGE) -> Figure:
    """The figure as a paper prints it, without scaling: fonts of 6 and 7 points, thinner lines.

    Args:
        figure: A figure drawn for the screen; it is changed.
        height: Height in inches.
        width: Width in inches; `PAGE` or `COLUMN`.
    """
    figure.set_size_inches(width, height)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontsize(min(max(text.get_fontsize() - 2, SMALL), LARGE))  # type: ignore[operator]
    for ax in figure.axes:
        ax.tick_params(labelsize=SMALL, pad=2)
        for spine in ax.spines.values():
            spine.set_linewidth(0.6)
        ax.xaxis.labelpad, ax.yaxis.labelpad = 2, 2
        for line in ax.lines:
            line.set_linewidth(_THINNER * line.get_linewidth())
            line.set_markersize(_THINNER * line.get_markersize())
        for grid in (*ax.get_xgridlines(), *ax.get_ygridlines()):
            grid.set_linewidth(min(grid.get_linewidth(), 0.5))
    for legend in figure.findobj(Legend):
        assert isinstance(legend, Legend)
        for handle in legend.get_lines():
            handle.set_linewidth(_THINNER * handle.get_linewidth())
    return figure


def add_caption(figure: Figure, text: str) -> None:
    """Lines of small text above everything in a figure, whose height grows accordingly.

    Args:
        figure: A figure; if it has a layout engine, that engine makes the room.
        text: One or more lines.
    """
    lines = text.count("\n") + 1
    room, before = lines * _LINE, figure.get_figheight()
    figure.set_figheight(before + room)
    if figure.get_layout_engine() is not None:
        title = figure.get_suptitle()
        figure.suptitle(f"{for_plot(text)}\n{title}".strip(), fontsize=SMALL)
        return
    share = before / (before + room)
    for ax in figure.axes:  # placed by hand: all keep their distance from the bottom
        left, bottom, width, height = ax.get_position(original=True).bounds
        ax.set_position((left, bottom * share, width, height * share))
    for words in figure.texts:
        words.set_y(words.get_position()[1] * share)
    figure.text(0.5, 1 - 0.3 * _LINE / (before + room), for_plot(text), ha="center", va="top", fontsize=SMALL)
