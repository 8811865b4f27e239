"""The patching widget's state as a figure."""

from textwrap import shorten

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.figure import Figure

from caap_lab.models.probability import probabilities
from caap_lab.plots.class_bars import plot_class_bars
from caap_lab.plots.maps import colour_patches, plot_image
from caap_lab.plots.style import new_figure
from caap_lab.widgets.patch_result import RUNS, PatchResult, score_name

NAME = 28
"""Characters of a class name."""
Pixels = UInt8[np.ndarray, "height width 3"]


def patch_figure(
    photos: dict[str, Pixels], colours: UInt8[np.ndarray, "row col 4"], result: PatchResult | None, what: str
) -> Figure:
    """Source and target with the chosen patches, and the likeliest classes of the three runs.

    Args:
        photos: The source and the target photo, by title.
        colours: Colours of the chosen patches; all others are transparent.
        result: The patch's effect; None if it is not known yet, or if no patch is chosen.
        what: The patch in words.
    """
    height, width = next(iter(photos.values())).shape[:2]
    figure = new_figure(11, max(3.0, 3.4 * height / width))
    *left, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.3])
    for ax, (title, pixels) in zip(left, photos.items(), strict=True):
        plot_image(pixels, ax, title=title)
        colour_patches(ax, colours, (height, width))
    if result is None:
        right.set_axis_off()
        return figure
    shown = result.shown_classes()
    names = [shorten(f"{index}: {result.names.name(index)}", NAME, placeholder=" ...") for index in shown]
    shares = {run: probabilities(getattr(result, run))[shown].double().numpy() for run in RUNS}
    frame = pd.DataFrame(shares, index=names).rename(columns={"source": "source photo"})
    scores = result.scores
    line = f"{score_name(result.target)}: {scores['before']:.2f} to {scores['after']:.2f} ({result.effect:+.2f})"
    plot_class_bars(frame, right, title=f"{what}\n{line}")
    return figure
