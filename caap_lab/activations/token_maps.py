"""Results over layers and tokens as small maps: one per layer, with the prefix tokens next to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from caap_lab.activations.labelled import LabelledResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Ground:
    """The positions of a result's tokens."""

    grid: tuple[int, int]
    """Rows and columns of patches."""
    prefix: tuple[str, ...]
    """Roles of the tokens before the patches."""
    pixels: UInt8[np.ndarray, "height width 3"] | None = None
    """The image as the model sees it, if the result is of a single image."""


def shows_tokens(result: LabelledResult, at: Mapping[str, Any], ground: Ground) -> bool:
    """Whether the remaining axes of a result are its tokens, of one or several layers, with patches among them."""
    left = [name for name in result.axes if name not in at]
    if "token" not in left or not {"layer", "token"} >= set(left):
        return False
    n_tokens = len(ground.prefix) + ground.grid[0] * ground.grid[1]
    labels = result.axes["token"]
    numbers = all(isinstance(label, int) and 0 <= label < n_tokens for label in labels)
    return numbers and len(set(labels)) == len(labels) > 1


def plot_token_maps(
    result: LabelledResult,
    ax: "Axes | None",
    at: Mapping[str, Any],
    ground: Ground,
    *,
    unpatched: float,
    title: str,
) -> "Axes":
    """Axes with the means over images as one map per layer, over the image if there is one.

    Args:
        result: A result with the axis token and perhaps layer, besides those in `at`.
        ax: Axes to draw in; by default those of a new figure.
        at: Label per axis, for the other axes, or for one layer.
        ground: The positions of the tokens.
        unpatched: The value that means no effect, in the middle of the colours.
        title: Title above the maps.
    """
    from caap_lab.plots.trace_maps import plot_trace_maps

    mean = result.mean[result._at(at)].reshape(-1, len(result.axes["token"]))
    n_prefix = len(ground.prefix)
    every = np.full((len(mean), n_prefix + ground.grid[0] * ground.grid[1]), np.nan)
    every[:, result.axes["token"]] = mean
    patches = every[:, n_prefix:]
    scaled = patches if np.isfinite(patches).any() else mean
    furthest = float(np.nanmax(np.abs(scaled - unpatched))) or 1.0
    layers = [at["layer"]] if "layer" in at else result.axes.get("layer")
    return plot_trace_maps(
        patches.reshape(-1, *ground.grid),
        every[:, :n_prefix],
        ground.pixels,
        ax,
        names=[""] * len(mean) if layers is None else [f"layer {layer}" for layer in layers],
        prefix_names=numbered(ground.prefix),
        limits=(unpatched - furthest, unpatched + furthest),
        label=f"mean {result.quantity}" if result.n_images > 1 else result.quantity,
        title=title,
    )


def numbered(roles: Sequence[str]) -> list[str]:
    """Names of prefix tokens: "cls", "reg 0", "reg 1"."""
    every = list(roles)
    return [
        f"{role} {every[:place].count(role)}" if every.count(role) > 1 else role for place, role in enumerate(every)
    ]
