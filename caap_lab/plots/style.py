"""The common look of all figures: one palette, readable with colour blindness and, by dashes and markers, in grey."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from io import BytesIO
from itertools import count
from pathlib import Path
from threading import RLock
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from caap_lab.escaping import for_plot
from caap_lab.files import atomic_path
from caap_lab.plots.wrapping import wrapped

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#332288", "#882255",
    "#6B4A10",
)  # fmt: skip
"""Okabe and Ito's palette without its yellow, which is too light on white, and with a grey; then three dark colours
that are distinguishable from these with colour blindness, too."""
ACCENT = COLOURS[1]
"""Marks the choice or the default."""
Dash = Literal["-", "--", "-.", ":"] | tuple[float, Sequence[float]]
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
HIGHLIGHT, HIGHLIGHT_MARKER = COLOURS[6], "*"
"""Style of CAAP among methods; no other level has it."""
METHODS = (
    ("Grad-CAM", "grad_cam"),
    ("Rollout", "rollout"),
    ("T-Attr", "transformer_attribution"),
    ("ViT-CX", "vit_cx"),
    ("TAM", "tam"),
    ("IxG+", "ixg_plus"),
    ("Libra IxG+", "libra_ixg_plus"),
    ("MDA", "mda"),
    ("MUTEX", "mutex"),
)
"""Methods that look the same in every figure, by the paper's names and by ours, in the order of the colours."""
COLOUR_MAP = "viridis"
"""Perceptually uniform, readable with colour blindness and in grey."""
SIGNED_COLOUR_MAP = "RdBu_r"
"""Red favours the target, blue counts against it, white is 0; readable with colour blindness."""
BAND_OPACITY = 0.15
"""Opacity of the band of a standard error."""
TITLE, LABEL, TICK = 9, 9, 8
"""Font sizes in points."""
_LETTER, _FEWEST = 0.55, 12
"""Mean width of a letter, in font sizes; the fewest letters in a line."""
_FIGURE_ROOM = 0.95
"""Width of a figure's title, as a fraction of the figure."""
_TITLE_ROOM, _TITLE_LINES = 0.75, 3
"""Width of a title, as a fraction of its panel; most lines for one line of its text."""


def on_ground(colour: str) -> str:
    """A colour that is visible on the background of matplotlib's current style: black becomes the text's colour."""
    return to_hex(matplotlib.rcParams["text.color"]) if colour == COLOURS[6] else colour


def grey(lightness: float) -> tuple[float, float, float, float]:
    """A grey on a light background, black at 0 and gone at 1; the same contrast on that of a dark style."""
    return to_rgba(matplotlib.rcParams["text.color"], 1 - lightness)


class LevelStyle(NamedTuple):
    """The style of one level (a method, a model, a kind of pairs) among others."""

    colour: str
    dash: Dash
    marker: str
    highlighted: bool = False

    @property
    def ink(self) -> str:
        """Its colour on the current background."""
        return on_ground(self.colour)


Styles = Mapping[str, LevelStyle]


_LEVELS = (*COLOURS[:6], *COLOURS[8:])
"""Colours of levels; one highlighted level may be added."""
_PLACES = {name.lower(): place for place, names in enumerate(METHODS) for name in names}


def level_styles(levels: Sequence[str], highlighted: str = "CAAP") -> dict[str, LevelStyle]:
    """A style for each level; no two are the same in colour and dash, nor in colour and marker.

    The paper's methods look the same in all figures (`METHODS`); other levels get the remaining styles, in order.

    Args:
        levels: Names, such as those of methods or models.
        highlighted: The level drawn black, solid and thick, with a star; CAAP among methods.
    """
    known = {level: _PLACES[level.lower()] for level in levels if level.lower() in _PLACES}
    free = (place for place in count() if place not in known.values())
    styles = {}
    for level in levels:
        if level.lower() == highlighted.lower():
            styles[level] = LevelStyle(HIGHLIGHT, "-", HIGHLIGHT_MARKER, highlighted=True)
            continue
        place = known[level] if level in known else next(free)
        turn, colour = divmod(place, len(_LEVELS))  # colours repeat with other dashes and markers
        dash, marker = DASHES[(colour + turn) % len(DASHES)], MARKERS[(colour + turn) % len(MARKERS)]
        styles[level] = LevelStyle(_LEVELS[colour], dash, marker)
    return styles


def style_axes(ax: Axes, *, xlabel: str | None = None, ylabel: str | None = None, title: str = "") -> Axes:
    """A light grid behind the data, no box around it, and labels without interpreted mathematics.

    Args:
        ax: The axes.
        xlabel: Label of the x axis, with its unit; None keeps the present one.
        ylabel: The same for the y axis.
        title: Title of the axes.
    """
    ax.grid(color=grey(0.9))
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=TICK)
    if xlabel is not None:
        ax.set_xlabel(for_plot(xlabel), fontsize=LABEL)
    if ylabel is not None:
        ax.set_ylabel(for_plot(ylabel), fontsize=LABEL)
    title_axes(ax, title)
    return ax


def title_figure(figure: Figure, title: str, size: float = TITLE) -> None:
    """Write a title over a figure, in as many lines as its width needs."""
    figure.suptitle(in_lines(title, _FIGURE_ROOM * figure.get_figwidth(), size), fontsize=size)


def title_axes(ax: Axes, title: str, pad: float | None = None) -> None:
    """Write a title in as many lines as the width of the panel needs; of a long line of the text, only the first three.

    Args:
        ax: The axes.
        title: The title; an empty one keeps the present one.
        pad: Room below it in points; by default matplotlib's.
    """
    if not title:
        return
    panel = ax.get_subplotspec()
    if panel is None:
        part = ax.get_position().width
    else:
        whole = panel.get_topmost_subplotspec()  # with a colour bar, the axes are a part of their panel
        part = len(whole.colspan) / whole.get_gridspec().ncols
    inches = _TITLE_ROOM * part * ax.figure.bbox.width / ax.figure.dpi
    ax.set_title(in_lines(title, inches, TITLE, _TITLE_LINES), fontsize=TITLE, pad=pad)


def one_line(text: str, letters: int, size: float = TITLE) -> tuple[str, float]:
    """A caption that stays on one line: in a smaller font if it is long, down to two thirds, and then cut.

    Args:
        text: The caption.
        letters: Number of characters that fit at the usual size.
        size: The usual size in points.

    Returns:
        The text to show, and its font size.
    """
    most = letters * 3 // 2
    shown = text if len(text) <= most else f"{text[: most - 3].rstrip()}..."
    return shown, size * min(1.0, letters / max(len(shown), 1))


def shared_legend(figure: Figure, columns: int = 6, styles: Styles | None = None, more: Sequence[Line2D] = ()) -> None:
    """One legend below all panels of a figure, each name once.

    Args:
        figure: The figure.
        columns: Number of columns.
        styles: Entries with both dash and marker, for figures with both lines and points; by default the labels in the
            panels.
        more: Additional entries, with labels, such as an explanation of hollow marks.
    """
    handles: dict[str, Artist] = {}
    for level, look in ({} if styles is None else styles).items():
        drawn = {"color": look.ink, "linestyle": look.dash, "marker": look.marker, "markersize": 4}
        named = Line2D([], [], **drawn)  # type: ignore[arg-type]
        if look.highlighted:
            named.set(linewidth=2.6, markersize=7)
        handles[for_plot(level)] = named
    for ax in figure.axes if styles is None else []:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles |= {str(handle.get_label()): handle for handle in more}
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(columns, len(handles)),
            frameon=False,
            fontsize=TICK,
        )


def figure_png(figure: Figure | SubFigure, dpi: int = 100) -> bytes:
    """A figure as PNG bytes."""
    buffer = BytesIO()
    whole = figure.figure if isinstance(figure, SubFigure) else figure
    whole.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


_SAVED_DPI = 150


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Save a figure as PNG and PDF next to each other; the extension of `path` is ignored."""
    paths = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    engine, dpi = figure.get_layout_engine(), figure.dpi
    figure.dpi = _SAVED_DPI  # before the layout: hinting makes text wider or narrower with the resolution
    if engine is not None:  # only once: the layout takes longer than drawing, and would run for each file
        engine.execute(figure)
        figure.set_layout_engine("none")
    try:
        for target in paths:
            with atomic_path(target) as part:
                figure.savefig(part, dpi=_SAVED_DPI, format=target.suffix[1:])
    finally:
        figure.dpi = dpi
        if engine is not None:
            figure.set_layout_engine(engine)
    return paths


_FONTS = {"pdf.fonttype": 42, "ps.fonttype": 42}
"""TrueType: format checks of IEEE, ACM and others reject matplotlib's default, Type 3."""
_SAVING = RLock()


@contextmanager
def _fonts_for_print() -> Iterator[None]:
    """Set these two options while a file is written; another thread may change the user's other options meanwhile."""
    settings: Any = matplotlib.rcParams
    with _SAVING:
        before = {name: settings[name] for name in _FONTS}
        settings.update(_FONTS)
        try:
            yield
        finally:
            settings.update(before)


class NotebookFigure(Figure):
    """A figure that is displayed as the value of a notebook cell, without pyplot, and is saved with TrueType fonts."""

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
    """Axes whose figure is displayed as the value of a notebook cell."""

    def _repr_png_(self) -> bytes:
        return figure_png(self.figure)


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure outside pyplot's state, with a size in inches; without a layout, the caller places the axes."""
    figure = NotebookFigure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def text_figure(text: str, width: float = 9, height: float = 1) -> Figure:
    """A sentence instead of a figure, such as why there is none."""
    figure = new_figure(width, height)
    figure.text(0.5, 0.5, for_plot(text), ha="center", va="center", wrap=True)
    return figure


def in_lines(text: str, inches: float, size: float, most: int | None = None) -> str:
    """A text for matplotlib, in as many lines as it needs in a width of some inches.

    Args:
        text: The text; its own lines stay separate.
        inches: The width.
        size: Font size in points.
        most: Largest number of lines for one line of the text; the rest is cut. None for all.
    """
    letters = max(_FEWEST, letters_in(inches, size))
    return "\n".join(wrapped(for_plot(line), letters, most) for line in text.split("\n"))


def letters_in(inches: float, size: float) -> int:
    """How many letters of a font size in points fit into a width, on average."""
    return int(72 * inches / (_LETTER * size))


def label_bar(bar: Colorbar, label: str, size: float) -> None:
    """Label a colour bar, in as many lines as its length needs."""
    box = bar.ax.get_window_extent()
    pixels = box.height if bar.orientation == "vertical" else box.width
    bar.set_label(in_lines(label, pixels / bar.ax.figure.dpi, size), fontsize=size)


def new_axes(ax: Axes | None, width: float = 4.8, height: float = 3.2) -> Axes:
    """The given axes, or those of a new figure."""
    return new_figure(width, height).add_subplot(axes_class=NotebookAxes) if ax is None else ax
