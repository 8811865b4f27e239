"""Insertion and deletion curves."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes

from caap_lab.escaping import for_plot
from caap_lab.plots.style import COLOURS, method_styles, new_axes, quiet_grid

if TYPE_CHECKING:
    import pandas as pd

    from caap_lab.metrics.perturbation import PerturbationCurves

_SCORES = {"prob": "probability", "logit": "logit", "top1": "is the model's answer"}
Kind = Literal["insertion", "deletion"]


def plot_curves(curves: "PerturbationCurves", ax: Axes | None = None) -> Axes:
    """The target's score over the share of pixels inserted or deleted, with the areas in the legend."""
    ax = new_axes(ax)
    share = 100 * curves.shares
    ax.plot(share, curves.insertion_curve, color=COLOURS[0], label=f"insertion, area {curves.insertion:.3f}")
    ax.plot(share, curves.deletion_curve, "--", color=COLOURS[1], label=f"deletion, area {curves.deletion:.3f}")
    ax.set_xlabel("pixels changed, highest score first (%)")
    ax.set_ylabel(for_plot(f"'{curves.target_name}': {_SCORES[curves.protocol.score]}"))
    ax.set_title(for_plot(f"{curves.method} of {curves.model_name}, InsDel {curves.insdel:.3f}"), fontsize=9)
    ax.set_xlim(0, 100)
    quiet_grid(ax)
    ax.legend(fontsize=8, frameon=False)
    return ax


def mean_curves(rows: "pd.DataFrame", kind: Kind) -> "pd.DataFrame":
    """Mean curve of each method with its standard error (ddof 0): method, n (images), share (0 to 1), mean, se.

    Args:
        rows: Of one model, as `BenchmarkResult.to_dataframe` has them; those without curves are left out.
        kind: "insertion" or "deletion".
    """
    import pandas as pd

    frames = []
    for method, part in rows[rows[f"{kind}_curve"].notna()].groupby("method", sort=False):
        curves = np.stack(part[f"{kind}_curve"].to_list())
        error = curves.std(axis=0) / np.sqrt(len(curves))
        told = {"method": method, "n": len(curves), "share": np.asarray(part["shares"].iloc[0])}
        frames.append(pd.DataFrame({**told, "mean": curves.mean(axis=0), "se": error}))
    return (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["method", "n", "share", "mean", "se"])
    )


def plot_mean_curves(
    means: "pd.DataFrame", kind: Kind, ax: Axes | None = None, *, methods: list[str] | None = None
) -> Axes:
    """A line a method with a band of one standard error; CAAP's is black and above the others.

    Args:
        means: What `mean_curves` gives.
        kind: "insertion" or "deletion".
        ax: Axes to draw in; by default those of a new figure.
        methods: All that there may be, so that each keeps its colour in several figures; by default those in `means`.
    """
    ax = new_axes(ax)
    styles = method_styles(list(dict.fromkeys(means["method"])) if methods is None else methods)
    for method, part in means.groupby("method", sort=False):
        style = styles[str(method)]
        share = 100 * part["share"]
        ax.plot(
            share,
            part["mean"],
            color=style.colour,
            linestyle=style.dash,
            linewidth=2 if style.ours else 1.2,
            zorder=3 if style.ours else 2,
            label=for_plot(str(method)),
        )
        low, high = part["mean"] - part["se"], part["mean"] + part["se"]
        ax.fill_between(share, low, high, color=style.colour, alpha=0.12, linewidth=0)
    ax.set_xlabel("pixels inserted (%)" if kind == "insertion" else "pixels deleted (%)")
    ax.set_xlim(0, 100)
    quiet_grid(ax)
    return ax
