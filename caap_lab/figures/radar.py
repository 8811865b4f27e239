"""Figure 10: InsDel of all methods over the backbones of tables 1, 4 and 6, as a radar and as dots."""

from typing import Any

import numpy as np

from caap_lab.figures.world import Drawn, World
from caap_lab.plots.style import COLOURS, DASHES, MARKERS, new_figure, quiet_grid

TABLES = (1, 4, 6)


def fig10(world: World) -> Drawn:
    """One spoke a backbone, one line a method; beside it the same numbers as dots, which are easier to compare."""
    frame = world.result(TABLES).summary()
    frame = frame[frame["metric"] == "insdel"].drop_duplicates(["model", "method"])
    table = frame.pivot(index="model", columns="method", values="mean")
    table = table.loc[list(dict.fromkeys(frame["model"])), list(dict.fromkeys(frame["method"]))]
    figure = new_figure(11, 5)
    radar: Any = figure.add_subplot(1, 2, 1, projection="polar")
    dots = figure.add_subplot(1, 2, 2)
    angles = np.linspace(0, 2 * np.pi, len(table), endpoint=False)
    places = np.arange(len(table))
    for index, method in enumerate(table):
        ours = method == "CAAP"
        colour = COLOURS[6] if ours else COLOURS[index % 6]
        dash = "-" if ours else DASHES[(index // 6 + index) % len(DASHES)]
        values = table[method].to_numpy()
        radar.plot(
            np.append(angles, angles[0]),
            np.append(values, values[0]),
            color=colour,
            linestyle=dash,
            linewidth=2.2 if ours else 1.1,
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            label=method,
        )
        errors = frame[frame["method"] == method].set_index("model").loc[table.index, "se"]
        height = places + (index - len(table.columns) / 2) * 0.07
        marker = MARKERS[index % len(MARKERS)]
        dots.errorbar(values, height, xerr=errors, fmt=marker, color=colour, markersize=5 if ours else 4, linewidth=0.7)
    radar.set_xticks(angles, table.index, fontsize=8)
    radar.tick_params(axis="x", pad=12)  # names stay clear of the rim
    radar.set_ylim(min(0.0, float(np.nanmin(table.to_numpy()))), None)
    radar.set_rlabel_position(180 / len(table))  # between two spokes
    radar.tick_params(axis="y", labelsize=7)
    radar.set_title("InsDel (%)", fontsize=10, pad=16)
    dots.set_yticks(places, table.index, fontsize=8)
    dots.invert_yaxis()
    dots.set_xlabel("InsDel (%), mean ± standard error")
    quiet_grid(dots)
    handles, labels = radar.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize=8)
    return Drawn(figure, frame.drop(columns=["study", "metric"]).reset_index(drop=True))
