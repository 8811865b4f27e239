"""How all figures look: one palette, readable by colour-blind people and, by dashes and markers, in grey."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import BytesIO
from threading import RLock
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette without its yellow, which is too light on white, and with a grey."""
Dash = Literal["-", "--", "-.", ":"] | tuple[float, Sequence[float]]
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


class MethodStyle(NamedTuple):
    """How a method is drawn among others."""

    colour: str
    dash: Dash
    marker: str
    ours: bool


def method_styles(methods: Sequence[str], ours: str = "CAAP") -> dict[str, MethodStyle]:
    """A style for each method, in order: CAAP black and solid, no two of the others alike in colour and dash."""
    return {
        method: MethodStyle(
            COLOURS[6] if (own := method.lower() == ours.lower()) else COLOURS[index % 6],
            "-" if own else DASHES[(index // 6 + index) % len(DASHES)],
            MARKERS[index % len(MARKERS)],
            own,
        )
        for index, method in enumerate(methods)
    }


def figure_png(figure: Figure | SubFigure, dpi: int = 100) -> bytes:
    """A figure as PNG bytes."""
    buffer = BytesIO()
    whole = figure.figure if isinstance(figure, SubFigure) else figure
    whole.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


_FONTS = {"pdf.fonttype": 42, "ps.fonttype": 42}
"""TrueType: IEEE's, ACM's and others' checks refuse matplotlib's own choice, Type 3."""
_SAVING = RLock()


@contextmanager
def _fonts_for_print() -> Iterator[None]:
    """These two settings while a file is written; the user's others may change meanwhile in another thread."""
    settings: Any = matplotlib.rcParams
    with _SAVING:
        before = {name: settings[name] for name in _FONTS}
        settings.update(_FONTS)
        try:
            yield
        finally:
            settings.update(before)


class NotebookFigure(Figure):
    """A figure that shows itself as a notebook cell's value, without pyplot, and is saved with TrueType fonts."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """Save as any figure, with TrueType fonts in PDF and PostScript.

        The pages of a `PdfPages` are one file, whose fonts are those of `matplotlib.rcParams["pdf.fonttype"]`.
        """
        from matplotlib.backends.backend_pdf import PdfPages

        with nullcontext() if isinstance(fname, PdfPages) else _fonts_for_print():
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        return figure_png(self)


class NotebookAxes(Axes):
    """Axes whose figure shows itself as the value of a notebook's cell."""

    def _repr_png_(self) -> bytes:
        return figure_png(self.figure)


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure of some inches that no window or pyplot state knows of; without a layout, its maker places the axes."""
    figure = NotebookFigure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def new_axes(ax: Axes | None, width: float = 4.8, height: float = 3.2) -> Axes:
    """The given axes, or those of a new figure."""
    return new_figure(width, height).add_subplot(axes_class=NotebookAxes) if ax is None else ax


def quiet_grid(ax: Axes) -> None:
    """A light grid behind the data."""
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
