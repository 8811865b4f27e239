"""Scores of patches over an image."""

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from caap_lab.escaping import for_plot
from caap_lab.plots.look import LOOK, Bar, Look, check_frame
from caap_lab.plots.style import ACCENT, COLOUR_MAP, SIGNED_COLOUR_MAP, TITLE, label_bar, new_axes, new_figure, one_line
from caap_lab.plots.wrapping import wrapped

ROBUST = (2.0, 98.0)
"""Percentiles of the scores at the ends of a robust colour range."""
_TITLE_LETTERS = 46
"""Number of characters of the usual size above a map of 3 inches."""
_NOTE_LETTERS = 150
"""Number of characters in a line below a map and its image."""
Scores = Float[np.ndarray, "row col"]
Pixels = UInt8[np.ndarray, "height width 3"]


def plot_map(
    scores: Scores,
    image: Pixels | None = None,
    ax: Axes | None = None,
    *,
    signed: bool = False,
    opacity: float = LOOK.opacity,
    smooth: bool = LOOK.smooth,
    robust: bool = LOOK.robust,
    fade: bool = LOOK.fade,
    colour_map: str | None = LOOK.colour_map,
    limits: tuple[float, float] | None = None,
    label: str | None = None,
    bar: Bar = "right",
    title: str = "",
) -> Axes:
    """Scores of patches over their image, which is shown in grey so that all colours belong to the scores.

    Args:
        scores: One score per patch; or at any other resolution, such as that of the pixels. NaN is transparent.
        image: The image; None for the scores only, without transparency.
        ax: Axes to draw in; by default those of a new figure.
        signed: Centre the colours on 0: positive scores favour the target, negative ones count against it.
        opacity: Opacity of the scores over the image, 0 to 1.
        smooth: Interpolate between patches instead of showing each patch's own score.
        robust: The colours end at the 2nd and 98th percentile of the scores, so that one outlier does not make all
            others look the same; a colour bar has a tip if scores lie beyond its end. Otherwise at the lowest and the
            highest.
        fade: Opacity follows the score: low scores, or signed ones near 0, are transparent.
        colour_map: A matplotlib colour map; by default one that fits the sign of the scores.
        limits: Scores at the two ends of the colours; by default those of `map_range`.
        label: The quantity of the scores; if given, a colour bar is drawn.
        bar: Position of the colour bar.
        title: Title of the axes.

    Raises:
        InputError: the look or the limits are invalid.
    """
    Look(opacity, smooth, robust, fade, colour_map).checked()
    check_frame(bar, limits)
    height, width = scores.shape if image is None else image.shape[:2]
    ax = new_axes(ax, 3.6, 3.6 * height / width)
    if image is not None:
        # As RGB: grey values would be mapped to colours at the figure's resolution, which takes twice as long.
        ax.imshow(grey(image), interpolation="nearest")
    low, high = map_range(scores, signed, robust=robust) if limits is None else limits
    name = colour_map or map_colour_map(signed)
    fades = fade and image is not None
    shown = ax.imshow(
        scores,
        cmap=ListedColormap(overlay_table(name, signed=signed) / 255, name) if fades else name,
        vmin=low,
        vmax=high,
        alpha=None if image is None else opacity,
        interpolation="bilinear" if smooth else "nearest",
        interpolation_stage="data",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    ax.set_axis_off()
    if title:
        ax.set_title(for_plot(title), fontsize=TITLE)
    if label is not None:  # a separate scale, without the overlay's opacity
        scale = ScalarMappable(shown.norm, ListedColormap(on_white(name, signed=signed) / 255, name) if fades else name)
        cut = cut_ends(scores, (low, high))
        extend: Literal["neither", "min", "max", "both"] = (
            "both" if all(cut) else "min" if cut[0] else "max" if cut[1] else "neither"
        )
        figure = cast(Figure, ax.figure)
        drawn = figure.colorbar(scale, ax=ax, location=bar, fraction=0.05, pad=0.02, extend=extend, extendfrac=0.04)
        label_bar(drawn, label, 8)
        drawn.ax.tick_params(labelsize=7)
    return ax


def plot_image(image: Pixels, ax: Axes | None = None, *, title: str = "") -> Axes:
    """An image without axes around it."""
    ax = new_axes(ax, 3.6, 3.6 * image.shape[0] / image.shape[1])
    ax.imshow(image, interpolation="nearest")
    ax.set_axis_off()
    if title:
        ax.set_title(for_plot(title), fontsize=TITLE)
    return ax


def plot_image_and_map(
    scores: Scores,
    image: Pixels,
    *,
    label: str,
    titles: tuple[str, str] = ("", ""),
    note: str = "",
    signed: bool = False,
    look: Look = LOOK,
) -> Figure:
    """The image next to its scores, with their scale.

    Args:
        scores: One score per patch.
        image: The image.
        label: The quantity of the scores.
        titles: Titles of the image and of the map.
        note: Text below both, such as settings.
        signed: Centre the colours on 0.
        look: How the scores are drawn.
    """
    height, width = image.shape[:2]
    figure = new_figure(7.2, 3.6 * height / width)
    left, right = figure.subplots(1, 2)
    plot_image(image, left, title=titles[0])
    plot_map(scores, image, right, signed=signed, label=label, **look._asdict())
    caption, size = one_line(titles[1], _TITLE_LETTERS)
    right.set_title(for_plot(caption), fontsize=size)
    figure.supxlabel(for_plot(wrapped(note, _NOTE_LETTERS)), fontsize=6, alpha=0.65)
    return figure


def colour_patches(
    ax: Axes, colours: UInt8[np.ndarray, "row col 4"], size: tuple[int, int], opacity: float = 0.5
) -> None:
    """Overlay a different colour on each patch of an image, such as that of its object.

    Args:
        ax: Axes with an image, as `plot_image` draws it.
        colours: Red, green, blue and opacity of each patch; with an opacity of 0 the patch is not changed.
        size: Height and width of the image in pixels.
        opacity: Opacity of all other patches, 0 to 1.
    """
    extent = (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
    ax.imshow(colours, alpha=opacity * (colours[..., 3] > 0), interpolation="nearest", extent=extent)


def outline_patches(
    ax: Axes,
    grid: tuple[int, int],
    size: tuple[int, int],
    corners: Sequence[int],
    colour: str = ACCENT,
    label: str | None = None,
) -> None:
    """A frame around some patches of an image.

    Args:
        ax: Axes with an image, as `plot_image` and `plot_map` draw it.
        grid: Rows and columns of patches.
        size: Height and width of the image in pixels.
        corners: First row and column and last row and column; or row and column of one patch.
        colour: Colour of the frame.
        label: Label in a legend.
    """
    top, left, bottom, right = corners if len(corners) == 4 else (*corners, *corners)
    row, col = size[0] / grid[0], size[1] / grid[1]  # a patch's size in pixels
    corner, extent = (left * col - 0.5, top * row - 0.5), ((right - left + 1) * col, (bottom - top + 1) * row)
    ax.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=colour, linewidth=2, label=label))


def map_range(scores: Float[np.ndarray, "..."], signed: bool = False, *, robust: bool = False) -> tuple[float, float]:
    """Scores at the two ends of the colours: symmetric around 0 if signed, otherwise the lowest and the highest.

    Args:
        scores: The scores; those that are not finite are ignored.
        signed: Centre the colours on 0.
        robust: Ignore scores beyond the percentiles of `ROBUST`, so that one outlier does not make all others look the
            same; for signed scores, as many of the largest absolute values.
    """
    known = scores[np.isfinite(scores)]
    if not known.size:
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    if signed:
        sizes = np.abs(known)
        limit = float(np.percentile(sizes, ROBUST[1]) if robust else sizes.max()) or float(sizes.max()) or 1.0
        return -limit, limit
    low, high = np.percentile(known, ROBUST) if robust else (known.min(), known.max())
    if low == high:  # nearly all scores are equal: only the full range shows differences
        low, high = known.min(), known.max()
    return float(low), float(high)


def cut_ends(scores: Float[np.ndarray, "..."], limits: tuple[float, float]) -> tuple[bool, bool]:
    """Whether scores lie below and above the ends of the colours, by more than rounding."""
    slack = 1e-6 * max(map(abs, limits))
    return bool((scores < limits[0] - slack).any()), bool((scores > limits[1] + slack).any())


def overlay_table(colour_map: str = COLOUR_MAP, *, signed: bool = False) -> UInt8[np.ndarray, "256 4"]:
    """The 256 colours of a colour map and the opacity of each, if opacity follows the score.

    The neutral score is transparent. For scores without signs it is the lowest, and opacity grows with the score. For
    signed scores it is 0: the colour of the middle is subtracted from all others at their lightness, so that a
    diverging map does not whiten the image, and looks as usual on paper of that colour.
    """
    colours = colour_table(colour_map)
    if not signed:
        return np.column_stack([colours, np.rint(np.linspace(0, 255, 256)).astype(np.uint8)])
    shares = colours / 255
    middle = shares[127:129].mean(axis=0)
    away = shares - middle
    room = np.where(away > 0, 1 - middle, middle).clip(0.5)  # a light middle made lighter would not be an opaque colour
    opacity = np.max(np.abs(away) / room, axis=1, keepdims=True)
    opacity[127:129] = 0
    pure = middle + away / np.where(opacity > 0, opacity, 1)
    return np.rint(255 * np.hstack([pure, opacity]).clip(0, 1)).astype(np.uint8)


def opaque_table(colour_map: str = COLOUR_MAP) -> UInt8[np.ndarray, "256 4"]:
    """The 256 colours of a colour map if opacity does not follow the score."""
    return np.column_stack([colour_table(colour_map), np.full(256, 255, dtype=np.uint8)])


def on_white(colour_map: str = COLOUR_MAP, *, signed: bool = False) -> UInt8[np.ndarray, "256 3"]:
    """The colours of `overlay_table` on white paper, as a colour bar shows them."""
    table = overlay_table(colour_map, signed=signed) / 255
    return np.rint(255 * (table[:, :3] * table[:, 3:] + 1 - table[:, 3:])).astype(np.uint8)


def map_colour_map(signed: bool = False) -> str:
    """The colour map that fits the sign of scores."""
    return SIGNED_COLOUR_MAP if signed else COLOUR_MAP


def colour_table(colour_map: str = COLOUR_MAP) -> UInt8[np.ndarray, "256 3"]:
    """The 256 colours of a colour map: red, green, blue."""
    return np.asarray(colormaps[colour_map](np.arange(256), bytes=True))[:, :3]


def grey(image: Pixels) -> Pixels:
    """An image in grey, so that colours belong to the overlay."""
    values = np.rint(np.asarray(image, dtype=float) @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(values[..., None], 3, axis=-1)
