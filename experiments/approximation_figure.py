"""How well other contexts and approximations rank patches, against the exact clamped map, over the cutoff.

    python -m experiments.approximation_figure

Reads the tables that `python -m experiments.approximations` wrote to docs/tables; writes PNG and PDF.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from caap_lab.plots.facets import plot_facets
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.style import level_styles, save_figure

TABLES = Path("docs/tables")
OUT = Path("runs/figures/approximations")
VARIANTS = ("free", "cached", "cached_all", "shared", "cached, shared", "interpolated", "frozen", "dropped")


def means(path: Path) -> pd.DataFrame:
    """Mean over photos with its standard error (ddof 0) by variant and cutoff, of one model's table."""
    table = pd.read_csv(path)
    groups = table.groupby(["variant", "cutoff"])["spearman"]
    frame = groups.mean().rename("mean").reset_index()
    frame["se"] = (groups.std(ddof=0) / groups.count() ** 0.5).to_numpy()
    free = table.loc[table["variant"] == "free", "image"].nunique()
    model = path.stem.removeprefix("approximations_")
    return frame.assign(model=f"{model}, {table['image'].nunique()} photos (free: {free})")


def main() -> None:
    """Draw one panel per model."""
    frame = pd.concat([means(path) for path in sorted(TABLES.glob("approximations_*.csv"))], ignore_index=True)
    lines = partial(
        plot_lines,
        x="cutoff",
        hue="variant",
        styles=level_styles(VARIANTS),
        markers=True,
        xlabel="cutoff (blocks whose inputs are patched)",
        ylabel="Spearman correlation with exact clamped",
    )
    figure = plot_facets(frame, lines, column="model", panel=(4.6, 3.8), sharey=True)
    figure.axes[0].set_ylim(-0.2, 1.03)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    print(*save_figure(figure, OUT))


if __name__ == "__main__":
    main()
