"""Several images with one quantity at their patches, on one scale."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from caap_lab.plots.maps import map_colour_map, outline_patches, plot_map
from caap_lab.plots.style import label_bar, new_figure, title_figure

COLUMNS = 5
"""Maximum number of images in a row."""


def plot_top_images(
    images: UInt8[np.ndarray, "image height width 3"],
    maps: Float[np.ndarray, "image row col"],
    titles: Sequence[str],
    *,
    title: str = "",
    label: str = "feature value",
) -> Figure:
    """Each image in grey under the colours of its map, from 0 to the highest value of all; its highest patch is framed.

    Args:
        images: The images, of one size.
        maps: One value per patch.
        titles: Above each image; its highest value is added.
        title: Title of the figure.
        label: The quantity of the values.
    """
    columns = min(COLUMNS, len(images))
    lines = ceil(len(images) / columns)
    height, width = images.shape[1:3]
    # A figure with one image must still be wide enough for its title.
    figure = new_figure(max(4.0, 1.7 * columns + 0.7), (1.7 * height / width + 0.3) * lines + 0.4)
    panels = figure.subplots(lines, columns, squeeze=False)
    highest = float(maps.max()) or 1.0
    for ax, image, scores, text in zip(panels.flat, images, maps, titles, strict=False):
        plot_map(scores, image, ax, limits=(0.0, highest), title=f"{text}, {scores.max():.3g}")
        row, col = np.unravel_index(int(scores.argmax()), scores.shape)
        outline_patches(ax, scores.shape, (height, width), (int(row), int(col)))
    for ax in panels.flat[len(images) :]:
        ax.set_axis_off()
    scale = ScalarMappable(Normalize(0.0, highest), cmap=map_colour_map())
    bar = figure.colorbar(scale, ax=panels, fraction=0.03, pad=0.02)
    label_bar(bar, label, 8)
    bar.ax.tick_params(labelsize=7)
    title_figure(figure, title)
    return figure
