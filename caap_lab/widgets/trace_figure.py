"""The trace widget's state as a figure."""

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from caap_lab.plots.heat import plot_heat
from caap_lab.plots.maps import outline_patches, plot_image
from caap_lab.plots.style import SIGNED_COLOUR_MAP, TICK, new_figure
from caap_lab.widgets.board import Board, Ends
from caap_lab.widgets.board_figure import plot_as_shown


def trace_figure(
    photos: dict[str, UInt8[np.ndarray, "height width 3"]],
    patches: Float[np.ndarray, "row col"] | None,
    heads: Float[np.ndarray, "layer head"] | None,
    *,
    limits: Ends,
    head_limits: Ends,
    board: Board,
    label: str,
    titles: tuple[str, str],
) -> Figure:
    """Both images, the effects of one layer's patches, and those of all heads.

    Args:
        photos: The clean and the corrupted image, by title.
        patches: Effect of each patch; None if it is not known yet.
        heads: Effect of each head; None if it is not known yet.
        limits: Ends of the colours of patches.
        head_limits: Ends of the colours of heads.
        board: The board, for its display settings and the chosen patch.
        label: The quantity of the effects.
        titles: Titles of the patches and of the heads.
    """
    first = next(iter(photos.values()))
    height, width = first.shape[:2]
    figure = new_figure(13, max(3.0, 3.0 * height / width))
    clean, corrupted, middle, right = figure.subplots(1, 4, width_ratios=[1, 1, 1.25, 1.25])
    for ax, (title, pixels) in zip((clean, corrupted), photos.items(), strict=True):
        plot_image(pixels, ax, title=title)
    if patches is None:
        plot_image(first, middle, title="computing")
    else:
        plot_as_shown(middle, patches, first, board, signed=True, limits=limits, label=label, title=titles[0])
        if board.chosen:
            outline_patches(middle, (patches.shape[0], patches.shape[1]), (height, width), board.chosen)
    if heads is None:
        right.set_axis_off()
    else:
        rows, cols = (pd.RangeIndex(size, name=name) for size, name in zip(heads.shape, ("layer", "head"), strict=True))
        cells = pd.DataFrame(heads, index=rows, columns=cols)
        plot_heat(cells, right, label=label, limits=head_limits, colour_map=SIGNED_COLOUR_MAP, title=titles[1])
        right.tick_params(labelsize=TICK)
    return figure
