"""How well other contexts and approximations rank patches, against the exact clamped map, over the cutoff.

    python figures/approximations.py

Reads the tables that `python -m experiments.approximations` wrote to docs/tables; writes PNG and PDF.
"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from caap_lab.plots.style import save_figure

TABLES = Path("docs/tables")
OUT = Path("runs/figures/approximations")
# Okabe and Ito's colours, with markers and dashes so that the figure is readable in grey.
STYLES = {
    "free": ("#000000", "o", "-"),
    "cached": ("#0072B2", "s", "-"),
    "cached_all": ("#56B4E9", "D", "--"),
    "shared": ("#D55E00", "^", "-"),
    "cached, shared": ("#E69F00", "v", "--"),
    "frozen": ("#009E73", "x", "-"),
    "dropped": ("#CC79A7", "+", "-"),
}


def draw(ax: Axes, frame: pd.DataFrame) -> None:
    """Mean over photos with its standard error, one line a variant."""
    for variant, (colour, marker, dash) in STYLES.items():
        groups = frame[frame["variant"] == variant].groupby("cutoff")["spearman"]
        if not len(groups):
            continue
        error = groups.std(ddof=0) / groups.count() ** 0.5
        ax.errorbar(
            groups.mean().index,
            groups.mean(),
            error,
            color=colour,
            marker=marker,
            linestyle=dash,
            ms=4,
            lw=1.2,
            label=variant,
        )
    ax.set_xlabel("cutoff (blocks whose inputs are patched)")
    ax.set_ylim(-0.2, 1.03)
    ax.grid(alpha=0.25)


def main() -> None:
    """Draw one panel a model."""
    tables = sorted(TABLES.glob("approximations_*.csv"))
    figure = Figure(figsize=(4.6 * len(tables), 3.8), layout="constrained")
    axes = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for ax, path in zip(axes, tables, strict=True):
        frame = pd.read_csv(path)
        draw(ax, frame)
        free = frame[frame["variant"] == "free"]["image"].nunique()
        model = path.stem.removeprefix("approximations_")
        ax.set_title(f"{model}, {frame['image'].nunique()} photos (free: {free})", fontsize=9)
    axes[0].set_ylabel("Spearman correlation with exact clamped")
    axes[-1].legend(fontsize=8, loc="lower right")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    print(*save_figure(figure, OUT))


if __name__ == "__main__":
    main()
