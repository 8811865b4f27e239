"""Insertion and deletion curves."""

from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from caap_lab.plots.style import COLOURS, new_axes, quiet_grid

if TYPE_CHECKING:
    from caap_lab.metrics.perturbation import PerturbationCurves

_SCORES = {"prob": "probability", "logit": "logit", "top1": "is the model's answer"}


def plot_curves(curves: "PerturbationCurves", ax: Axes | None = None) -> Axes:
    """The target's score over the share of pixels inserted or deleted, with the areas in the legend."""
    ax = new_axes(ax)
    share = 100 * curves.shares
    ax.plot(share, curves.insertion_curve, color=COLOURS[0], label=f"insertion, area {curves.insertion:.3f}")
    ax.plot(share, curves.deletion_curve, "--", color=COLOURS[1], label=f"deletion, area {curves.deletion:.3f}")
    ax.set_xlabel("pixels changed, highest score first (%)")
    ax.set_ylabel(f"'{curves.target_name}': {_SCORES[curves.protocol.score]}")
    ax.set_title(f"{curves.method} of {curves.model_name}, InsDel {curves.insdel:.3f}", fontsize=9)
    ax.set_xlim(0, 100)
    quiet_grid(ax)
    ax.legend(fontsize=8, frameon=False)
    return ax
