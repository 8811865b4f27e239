"""Figure 10: InsDel of all methods over the backbones of tables 1, 4 and 6, as a radar and as dots."""

from typing import Any

import numpy as np

from caap_lab.escaping import for_plot
from caap_lab.figures.world import Drawn, World
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import level_styles, new_figure

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
    for method, style in level_styles(list(table)).items():
        values = table[method].to_numpy()
        radar.plot(
            np.append(angles, angles[0]),
            np.append(values, values[0]),
            color=style.colour,
            linestyle=style.dash,
            linewidth=2.2 if style.highlighted else 1.1,
            marker=style.marker,
            markersize=4,
            label=for_plot(method),
        )
    radar.set_xticks(angles, [for_plot(model) for model in table.index], fontsize=8)
    radar.tick_params(axis="x", pad=8)
    for label, side in zip(radar.get_xticklabels(), np.cos(angles), strict=True):  # names stay clear of the rim
        label.set_horizontalalignment("left" if side > 0.1 else "right" if side < -0.1 else "center")
    radar.set_ylim(min(0.0, float(np.nanmin(table.to_numpy()))), None)
    radar.set_rlabel_position(180 / len(table))  # between two spokes
    radar.tick_params(axis="y", labelsize=7)
    radar.set_title("InsDel (%)", fontsize=10, pad=16)
    label = "InsDel (%), mean ± standard error"
    plot_points(frame, "model", hue="method", horizontal=True, label=label, ax=dots, legend=False)
    handles, labels = radar.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize=8)
    return Drawn(figure, frame.drop(columns=["study", "metric"]).reset_index(drop=True))
