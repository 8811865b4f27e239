"""A map in a figure, drawn as the board shows it."""

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes

from caap_lab.plots.maps import map_range, outline_patches, plot_map
from caap_lab.widgets.board import BY_SIGN, Board, Ends


def plot_as_shown(
    ax: Axes,
    scores: Float[np.ndarray, "row col"],
    pixels: UInt8[np.ndarray, "height width 3"],
    board: Board,
    *,
    signed: bool = False,
    limits: Ends | None = None,
    label: str,
    title: str = "",
) -> None:
    """Draw a map over its photo with the board's display settings, and outline its highest patches.

    Args:
        ax: Axes to draw in.
        scores: One score per patch.
        pixels: The photo.
        board: The board, for its display settings.
        signed: Colours are centred on 0, and the board may show scores of one sign.
        limits: Ends of the colours; by default those of the map, robust or full as on the board.
        label: The quantity of a score.
        title: Title of the map.
    """
    highest = np.argsort(-scores, axis=None, kind="stable")[: board.top].tolist()  # ties in reading order
    ends = limits or map_range(scores, signed, robust=board.robust)
    if signed and board.signs != "all":
        scores = np.where(scores * (1 if board.signs == "positive" else -1) > 0, scores, np.nan)
    plot_map(
        scores,
        pixels,
        ax,
        signed=signed,
        opacity=board.opacity,
        smooth=board.smooth,
        fade=board.fade,
        colour_map=None if board.colours == BY_SIGN else board.colours,
        limits=ends,
        label=label,
        title=title,
    )
    for place in highest:
        outline_patches(ax, scores.shape, pixels.shape[:2], divmod(place, scores.shape[1]), "white")
