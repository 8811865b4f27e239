"""Attribution maps over their image."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from caap_lab.errors import InputError
from caap_lab.escaping import for_plot
from caap_lab.files import atomic_path
from caap_lab.plots.style import new_figure

if TYPE_CHECKING:
    from caap_lab.attribution.map import AttributionMap

COLOUR_MAP = "viridis"
"""Perceptually even, readable by colour-blind people and in grey."""
SIGNED_COLOUR_MAP = "RdBu_r"
"""Red speaks for the target, blue against it, white is 0; readable by colour-blind people."""


def plot_map(
    map: "AttributionMap", *, opacity: float = 0.6, smooth: bool = False, colour_map: str | None = None
) -> Figure:
    """The image beside the map laid over it, with the scale of the scores.

    Args:
        map: The map.
        opacity: Of the map over the image, 0 to 1.
        smooth: Interpolate between patches instead of showing each patch's own score.
        colour_map: A matplotlib colour map; by default one that fits the sign of the scores. Signed scores are centred
            on 0 in any.
    """
    height, width = map.image.shape[:2]
    figure = new_figure(7.2, 3.6 * height / width)
    photo, over = figure.subplots(1, 2)
    photo.imshow(map.image.numpy(), interpolation="nearest")
    photo.set_title(for_plot(map.model_name), fontsize=9)
    photo.set_axis_off()
    mappable = draw_overlay(over, map, opacity=opacity, smooth=smooth, colour_map=colour_map)
    over.set_title(for_plot(f"{map.method} for '{map.target_name}'"), fontsize=9)
    settings = ", ".join(f"{key} {value}" for key, value in map.settings.items())
    figure.supxlabel(for_plot(settings), fontsize=6, color="0.35")
    bar = figure.colorbar(mappable, ax=over, fraction=0.05, pad=0.02)
    inserted = ", patch inserted" if map.score in ("logit", "prob", "logprob", "sigmoid", "logsigmoid") else ""
    bar.set_label(for_plot(f"{map.score} of {map.target_name}{inserted}"), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def draw_overlay(
    ax: Axes,
    map: "AttributionMap",
    *,
    opacity: float = 0.6,
    smooth: bool = False,
    colour_map: str | None = None,
) -> ScalarMappable:
    """Draw a map over its image, in grey so that the colours belong to the scores; returns what a colour bar needs."""
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity must lie from 0 to 1, not {opacity}.")
    grey = np.rint(np.asarray(map.image.numpy(), dtype=float) @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    # As colours: grey values would go through a colour map at the figure's resolution, which takes twice as long.
    ax.imshow(np.repeat(grey[..., None], 3, axis=-1), interpolation="nearest")
    height, width = grey.shape
    scores = map.scores.double().numpy()
    signed = map.sign == "signed"
    limit = (float(np.abs(scores).max()) or 1.0) if signed else None
    shown = ax.imshow(
        scores,
        cmap=colour_map or (SIGNED_COLOUR_MAP if signed else COLOUR_MAP),
        vmin=None if limit is None else -limit,
        vmax=limit,
        alpha=opacity,
        interpolation="bilinear" if smooth else "nearest",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    ax.set_axis_off()
    return ScalarMappable(norm=shown.norm, cmap=shown.cmap)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Save a figure as PNG and PDF beside each other; `path` is taken without its ending."""
    paths = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    engine = figure.get_layout_engine()
    if engine is not None:  # lay it out once: each file would do so again, which takes longer than drawing it
        engine.execute(figure)
        figure.set_layout_engine("none")
    try:
        for target in paths:
            with atomic_path(target) as part:
                figure.savefig(part, dpi=150, format=target.suffix[1:])
    finally:
        if engine is not None:
            figure.set_layout_engine(engine)
    return paths
