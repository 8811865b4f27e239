"""One small map per layer over the image, with the prefix tokens next to it."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from caap_lab.escaping import for_plot
from caap_lab.plots.maps import Pixels, grey
from caap_lab.plots.style import SIGNED_COLOUR_MAP, label_bar, new_axes, title_axes

PER_LINE = 6
"""Number of pictures in a row."""
_PIXELS = 112
"""Height of a picture in the sheet."""
_GAP, _HEAD, _BESIDE = 10, 18, 4
"""Pixels between pictures, above them, and between a picture and the squares to its left."""


class SheetPlace:
    """The positions of the pictures in a sheet, in its pixels."""

    def __init__(self, layers: int, grid: tuple[int, int], n_prefix: int) -> None:
        """Arrange pictures of patches.

        Args:
            layers: Number of pictures.
            grid: Rows and columns of patches.
            n_prefix: Number of prefix tokens.
        """
        self.patch = max(4, _PIXELS // grid[0])
        self.grid, self.n_prefix = grid, n_prefix
        self.height, self.width = grid[0] * self.patch, grid[1] * self.patch
        self.square = 0 if n_prefix == 0 else min(max(self.patch, _PIXELS // 8), self.height // n_prefix)
        """Side of a prefix token's square."""
        self.strip = self.square + _BESIDE if n_prefix else 0
        columns, lines = min(layers, PER_LINE), -(-layers // PER_LINE)
        self.shape = (lines * (self.height + _HEAD), columns * (self.strip + self.width + _GAP) - _GAP)

    def corner(self, layer: int) -> tuple[int, int]:
        """Top and left of a layer's picture, without the squares to its left."""
        line, column = divmod(layer, PER_LINE)
        return line * (self.height + _HEAD) + _HEAD, column * (self.strip + self.width + _GAP) + self.strip


def plot_trace_maps(
    maps: Float[np.ndarray, "layer row col"],
    prefix: Float[np.ndarray, "layer token"],
    image: Pixels | None = None,
    ax: Axes | None = None,
    *,
    names: Sequence[str],
    prefix_names: Sequence[str],
    limits: tuple[float, float],
    label: str,
    title: str = "",
) -> Axes:
    """One map per layer on one scale, over the image in grey; prefix tokens are squares to its left.

    The middle of the limits is no effect: the nearer a value is to it, the more of the image is visible. Values beyond
    the limits have the colour of the end, and the colour bar has an arrow there.

    Args:
        maps: Value of each patch; NaN shows only the image.
        prefix: Value of each prefix token.
        image: The image under the maps; None for the values only.
        ax: Axes to draw in; by default those of a new figure.
        names: Titles of the pictures.
        prefix_names: Names of the prefix tokens, from top to bottom.
        limits: Values at the two ends of the colours.
        label: The quantity of the values, with its unit.
        title: Title above all pictures.
    """
    layers, *grid = maps.shape
    place = SheetPlace(layers, (grid[0], grid[1]), prefix.shape[1])
    height, width = place.shape
    low, high = limits
    norm, colours = Normalize(low, high), colormaps[SIGNED_COLOUR_MAP]
    ax = new_axes(ax, 1.35 * width / (_PIXELS + place.strip) + 1.1, 1.35 * height / _PIXELS + 0.5)
    sheet = np.zeros((height, width, 4), dtype=np.uint8)  # transparent between the pictures
    under = None if image is None else _resized(grey(image), place.height, place.width)
    outlines = []
    for layer in range(layers):
        top, left = place.corner(layer)
        large = np.kron(maps[layer], np.ones((place.patch, place.patch)))
        strength = np.clip(np.abs(2 * (large - low) / (high - low) - 1), 0, 1) ** 0.5
        picture = _over(colours(norm(large)), large, under, 0.1 + 0.8 * strength)
        sheet[top : top + place.height, left : left + place.width] = picture
        outlines.append((left, top, place.width, place.height))
        for token, value in enumerate(prefix[layer]):
            first = top + token * place.square
            side = place.square - 1
            rows, cols = slice(first, first + side), slice(left - place.strip, left - place.strip + side)
            sheet[rows, cols] = np.rint(255 * np.asarray(colours(norm(value)))) if np.isfinite(value) else 0
            outlines.append((left - place.strip, first, side, side))
            if layer == 0:
                name = for_plot(prefix_names[token])
                ax.text(-4, first + place.square / 2, name, ha="right", va="center", fontsize=6)
        ax.text(left + place.width / 2, top - 4, for_plot(names[layer]), ha="center", va="bottom", fontsize=7)
    ax.imshow(sheet, interpolation="nearest")
    for x, y, wide, tall in outlines:
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), wide, tall, fill=False, edgecolor="0.6", linewidth=0.4))
    ax.set_xlim(-0.5, width + 0.5)
    ax.set_axis_off()
    every = np.concatenate([maps.ravel(), prefix.ravel()])
    beyond = bool(np.nanmin(every) < low), bool(np.nanmax(every) > high)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    scale = ScalarMappable(norm=norm, cmap=colours)
    bar = cast(Figure, ax.figure).colorbar(scale, ax=ax, location="right", fraction=0.03, pad=0.02, extend=extend)
    label_bar(bar, label, 8)
    bar.ax.tick_params(labelsize=7)
    title_axes(ax, title)
    return ax


def _over(
    colours: Float[np.ndarray, "height width 4"],
    values: Float[np.ndarray, "height width"],
    under: UInt8[np.ndarray, "height width 3"] | None,
    opacity: Float[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 4"]:
    """Colours of values over an image, as pixels; only the image if there is no value."""
    known = np.isfinite(values)[..., None]
    if under is None:
        return np.rint(255 * np.where(known, colours, 0)).astype(np.uint8)
    share = np.where(known, opacity[..., None], 0)
    mixed = share * 255 * colours[..., :3] + (1 - share) * under
    return np.concatenate([np.rint(mixed), np.full((*values.shape, 1), 255)], axis=-1).astype(np.uint8)


def _resized(image: Pixels, height: int, width: int) -> UInt8[np.ndarray, "rows cols 3"]:
    rows, cols = (np.arange(size) * old // size for size, old in zip((height, width), image.shape[:2], strict=True))
    return image[rows][:, cols]
