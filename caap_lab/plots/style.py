"""How all figures look: one palette, readable by colour-blind people and, by dashes and markers, in grey."""

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette without its yellow, which is too light on white, and with a grey."""
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def new_figure(width: float, height: float) -> Figure:
    """A figure of some inches that no window or pyplot state knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(ax: Axes | None, width: float = 4.8, height: float = 3.2) -> Axes:
    """The given axes, or those of a new figure."""
    return new_figure(width, height).subplots() if ax is None else ax


def quiet_grid(ax: Axes) -> None:
    """A light grid behind the data."""
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
