"""Figures 4, 5 and 7: blanks, neighbourhoods and cutoffs, on the models and images of tables 1 and 2."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from caap_lab.bench.published import METRICS
from caap_lab.escaping import for_plot
from caap_lab.figures.world import Drawn, World
from caap_lab.models.vit import HookedViT
from caap_lab.plots.style import COLOURS, DASHES, MARKERS, new_figure, style_axes
from caap_lab.sweeps.sweeps import sweep_blanks, sweep_cutoffs, sweep_neighbourhoods
from caap_lab.variant import Variant

BLANKS = ("white", "black", "mean", "noise", "blurred_noise")
"""The paper's five."""
NEIGHBOURHOODS = ("none", "cross1", "box1", "diamond2", "box2")
"""What figure 5 compares."""


def fig04(world: World) -> Drawn:
    """Blanks: six metrics, one mark a model."""
    frame = _frame(world, "blank", lambda *a, **k: sweep_blanks(*a, blanks=BLANKS, **k))
    return Drawn(_panels(frame, "blank", _points), frame)


def fig05(world: World) -> Drawn:
    """Neighbourhoods: six metrics, one mark a model."""
    frame = _frame(world, "neighbourhood", lambda *a, **k: sweep_neighbourhoods(*a, neighbourhoods=NEIGHBOURHOODS, **k))
    return Drawn(_panels(frame, "neighbourhood", _points), frame)


def fig07(world: World) -> Drawn:
    """Cutoffs, as a share of the blocks so that models of any depth compare: six metrics, one line a model."""
    frame = _frame(world, "cutoff", sweep_cutoffs)
    return Drawn(_panels(frame, "cutoff", _lines), frame)


def _frame(world: World, axis: str, sweep: Callable[..., Any]) -> pd.DataFrame:
    """Means and standard errors of the six metrics for every model and setting."""
    frames = []
    for table in (1, 2):
        study = world.study(table)
        for spec in study.models:
            model = world.model(spec)
            assert isinstance(model, HookedViT)
            found = sweep(
                model,
                world.images(study)[: world.sweep_images],
                "label" if study.target == "label" else None,
                metrics=study.metrics,
                out=_folder(world, table, spec),
                progress=world.running.get("progress", True),
            )
            part = found.summary().assign(model=spec.label, n_layers=model.n_layers)
            frames.append(part[part["metric"].isin(METRICS.values())])
    return pd.concat(frames, ignore_index=True)[["model", "n_layers", axis, "metric", "n", "mean", "se"]]


def _folder(world: World, table: int, spec: Variant) -> Path:
    """Where sweeps of a model on a table's images are: one folder for all would be read in full by each sweep."""
    return world.run_folder / "sweeps" / re.sub(r"[^\w.-]", "_", f"table_{table:02d}_{spec.label}")


def _panels(frame: pd.DataFrame, axis: str, draw: Callable[[Axes, pd.DataFrame, str], None]) -> Any:
    figure = new_figure(10.5, 6.2)
    panels = figure.subplots(2, 3, sharex=True)
    for ax, (name, metric) in zip(panels.flat, METRICS.items(), strict=True):
        draw(ax, frame[frame["metric"] == metric], axis)
        ax.set_ylabel(f"{name} (%)")
        style_axes(ax)
    figure.align_ylabels(panels)
    counts = sorted(set(frame["n"]))
    figure.suptitle(f"CAAP over the {axis}; {' to '.join(map(str, counts))} images, mean ± standard error", fontsize=10)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def _points(ax: Axes, frame: pd.DataFrame, axis: str) -> None:
    settings, models = (list(dict.fromkeys(frame[name])) for name in (axis, "model"))
    for index, model in enumerate(models):
        part = frame[frame["model"] == model].set_index(axis).loc[settings]
        place = np.arange(len(settings)) + (index - (len(models) - 1) / 2) * 0.15
        mark, colour = MARKERS[index], COLOURS[index]
        ax.errorbar(
            place, part["mean"], part["se"], fmt=mark, color=colour, label=for_plot(model), markersize=5, capsize=2
        )
    ax.set_xticks(range(len(settings)), settings, rotation=30, ha="right", rotation_mode="anchor", fontsize=8)


def _lines(ax: Axes, frame: pd.DataFrame, axis: str) -> None:
    for index, model in enumerate(dict.fromkeys(frame["model"])):
        part = frame[frame["model"] == model]
        share = part[axis] / part["n_layers"]
        ax.plot(
            share,
            part["mean"],
            MARKERS[index],
            color=COLOURS[index],
            linestyle=DASHES[index],
            markersize=4,
            label=for_plot(model),
        )
        low, high = part["mean"] - part["se"], part["mean"] + part["se"]
        ax.fill_between(share, low, high, color=COLOURS[index], alpha=0.15, linewidth=0)
    ax.set_xlim(0, 1)
    if ax.get_subplotspec().get_geometry()[2] >= 3:  # type: ignore[union-attr]
        ax.set_xlabel("cutoff, share of the blocks")
