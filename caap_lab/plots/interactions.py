"""Interactions of pairs of patches: as a matrix, and as maps over the image."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from caap_lab.escaping import for_plot
from caap_lab.plots.heat import plot_heat
from caap_lab.plots.maps import outline_patches, plot_map
from caap_lab.plots.style import COLOURS, TITLE, new_figure

_MOST_LABELS = 16
"""Maximum number of patches whose cells are written at the matrix; more would not be readable."""


def plot_partners(
    scores: Float[np.ndarray, "row col"],
    image: UInt8[np.ndarray, "height width 3"],
    patch: tuple[int, int],
    ax: Axes | None = None,
    *,
    label: str,
    title: str | None = None,
    limit: float | None = None,
) -> Axes:
    """The interactions of a patch with all others over the image, with a frame around the patch itself.

    Args:
        scores: Interactions; NaN cells are empty.
        image: The image.
        patch: Row and column of the patch.
        ax: Axes to draw in; by default those of a new figure.
        label: The quantity.
        title: Title of the axes; None for one that names the patch.
        limit: Absolute value at the ends of the colours; by default the largest.
    """
    ax = plot_signed(
        scores, image, ax, label=label, limit=limit, title=f"partners of {patch}" if title is None else title
    )
    outline_patches(ax, (scores.shape[0], scores.shape[1]), (image.shape[0], image.shape[1]), patch, COLOURS[6])
    return ax


def plot_signed(
    scores: Float[np.ndarray, "row col"],
    image: UInt8[np.ndarray, "height width 3"],
    ax: Axes | None = None,
    *,
    label: str,
    title: str = "",
    limit: float | None = None,
) -> Axes:
    """Signed numbers, some of which may be NaN, over an image."""
    largest = float(np.nanmax(np.abs(scores), initial=0)) if limit is None else limit
    limits = (-(largest or 1.0), largest or 1.0)
    masked = np.ma.masked_invalid(scores)
    return plot_map(masked, image, ax, signed=True, opacity=0.8, limits=limits, label=label, bar="bottom", title=title)


def plot_interactions(
    matrix: Float[np.ndarray, "patch patch"],
    patches: Sequence[tuple[int, int]],
    partners: Float[np.ndarray, "row col"],
    of_pairs: Float[np.ndarray, "row col"],
    image: UInt8[np.ndarray, "height width 3"],
    patch: tuple[int, int],
    *,
    label: str,
    title: str = "",
) -> Figure:
    """The matrix of interactions next to two maps.

    Args:
        matrix: Interactions of all pairs.
        patches: Row and column of each patch of the matrix.
        partners: Interactions of one patch, see `plot_partners`.
        of_pairs: Half the sum of each patch's interactions.
        image: The image below the maps.
        patch: The patch whose partners are shown.
        label: The quantity of an interaction, with its unit.
        title: Title of the matrix.
    """
    figure = new_figure(11.0, 4.0)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    names = [f"{row}, {col}" for row, col in patches]
    few = len(patches) <= _MOST_LABELS
    cells = pd.DataFrame(matrix, index=pd.Index(names, name="patch (row, col)"), columns=names)
    plot_heat(cells, left, label=label, signed=True, xlabel="partner (row, col)")
    left.set_aspect("equal")
    if few:
        left.tick_params(axis="x", labelrotation=90)
    else:
        left.set_xlabel(f"partner ({len(patches)} patches, in the order they were chosen)")
        left.set_ylabel("patch")
        left.set_xticks([])
        left.set_yticks([])
    plot_partners(partners, image, patch, middle, label="interaction with the framed patch")
    plot_signed(of_pairs, image, right, label="half the sum of its interactions", title="interactions of each patch")
    left.set_title(for_plot(title), fontsize=TITLE)
    return figure
