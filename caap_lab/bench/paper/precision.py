"""The effect of a number format on results: maps, predictions and metrics compared with float32, on the user's data."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from caap_lab.bench.benchmark import run_plan
from caap_lab.bench.paper.parts import GROUPS, IMAGES
from caap_lab.bench.paper.profiles import paper_plan
from caap_lab.bench.paper.settings import PaperSettings
from caap_lab.bench.result import BenchmarkResult
from caap_lab.errors import InputError
from caap_lab.statistics import paired_statistics

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "float32"


def precision_effect(settings: PaperSettings, images: int, out: str | Path, **running: Any) -> "pd.DataFrame":
    """Compute some trials of the paper profile in its number format and in float32, and compare them.

    Args:
        settings: The profile, with a `precision` that is not float32.
        images: Number of images of each data set.
        out: The run's folder: the trials are stored there, and a run reuses them.
        **running: Arguments of `cl.benchmark`: device, batch_size, workers and so on.

    Returns:
        See `compared`.

    Raises:
        InputError: the format is float32, or an argument is invalid; raised before anything is computed.
    """
    if settings.precision == REFERENCE:
        raise InputError("float32 cannot be compared with itself: choose another --precision, such as bfloat16.")
    few = replace(settings, images=dict.fromkeys((*GROUPS, *IMAGES), images))
    plans = {name: paper_plan(replace(few, precision=name)) for name in (settings.precision, REFERENCE)}
    results = {name: run_plan(plan, out, save_plan=False, **running) for name, plan in plans.items()}
    return compared(results[settings.precision], results[REFERENCE])


def compared(result: BenchmarkResult, reference: BenchmarkResult) -> "pd.DataFrame":
    """Results in one number format compared with those of the same models, methods and images in another.

    Args:
        result: Results in the format that is evaluated.
        reference: Results in the reference format, usually float32.

    Returns:
        One row per data set, model, method and metric: n (images that both have), same_prediction (fraction of them
        that have the same target), spearman and spearman_lowest (rank correlation of the two maps, mean and lowest
        over the images with the same target), mean and mean_reference in the metric's unit, difference and
        difference_se (paired, over the same images).
    """
    import pandas as pd

    keys = ["data", "model", "method"]
    frames = [one.to_dataframe().drop_duplicates([*keys, "image"]) for one in (result, reference)]
    left, right = (frame[frame["error"].isna()] for frame in frames)
    both = pd.DataFrame(left).merge(pd.DataFrame(right), on=[*keys, "image"], suffixes=("", "_reference"))
    lines = []
    for who, part in both.groupby(keys, sort=False):
        same = part[part["target"] == part["target_reference"]]
        rho = [_spearman(*pair) for pair in zip(same["scores"], same["scores_reference"], strict=True)]
        about = dict(zip(keys, who, strict=True)) | {"n": len(part), "same_prediction": len(same) / len(part)}
        about |= {"spearman": np.mean(rho), "spearman_lowest": np.min(rho)} if rho else {}
        for name, column in result.columns.items():
            if name not in part or part[name].isna().all():
                continue
            values = part[name].to_numpy(float), part[f"{name}_reference"].to_numpy(float)
            numbers: Mapping[str, float] = paired_statistics(*values, column.factor)
            lines.append(
                {
                    **about,
                    "metric": column.label,
                    "mean": numbers["mean"],
                    "mean_reference": numbers["mean"] - numbers["difference"],
                    "difference": numbers["difference"],
                    "difference_se": numbers["difference_se"],
                }
            )
    names = [*keys, "n", "same_prediction", "spearman", "spearman_lowest", "metric", "mean", "mean_reference"]
    return pd.DataFrame(lines, columns=[*names, "difference", "difference_se"])


def comparison_lines(frame: "pd.DataFrame") -> list[list[str]]:
    """The cells of a table: one row per data set, model and method, one column for the change of each metric."""
    metrics = list(dict.fromkeys(frame["metric"]))
    rows = [["data", "model", "method", "n", "same prediction", "Spearman (lowest)", *metrics]]
    for who, part in frame.groupby(["data", "model", "method"], sort=False):
        first = part.iloc[0]
        change = {
            line.metric: f"{round(line.difference, 2) + 0.0:+.2f}"  # no -0.00
            + f" ± {line.difference_se:.2f}" * (not math.isnan(line.difference_se))
            for line in part.itertuples()
        }
        rows.append(
            [
                *map(str, who),
                str(first["n"]),
                f"{first['same_prediction']:.0%}",
                f"{first['spearman']:.4f} ({first['spearman_lowest']:.4f})",
                *(change.get(metric, "") for metric in metrics),
            ]
        )
    return rows


def _spearman(scores: np.ndarray, others: np.ndarray) -> float:
    """Rank correlation of two maps; 1 for identical constant maps."""
    if np.array_equal(scores, others):
        return 1.0
    if np.ptp(scores) == 0 or np.ptp(others) == 0:
        return 0.0
    return float(spearmanr(scores, others).statistic)
