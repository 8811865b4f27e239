"""The table and the figure of `directions`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import caap_lab as cl
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import new_figure, save_figure

Results = Mapping[tuple[str, str, bool], cl.BenchmarkResult]
"""Results by the protocol's name, the target, and whether they are of the free context."""
NAMES = {
    "caap": "CAAP",
    "caap:direction=remove": "CAAP, remove",
    "caap:context=free": "CAAP, free",
    "caap:direction=remove,context=free": "CAAP, remove, free",
    "libra_ixg_plus": "Libra IxG+",
    "libra_ixg_plus:start_layer=8": "Libra IxG+ from block 8",
    "transformer_attribution": "T-Attr",
}
_TARGETS = {"prediction": "prediction", "logit": "the prediction's own logit"}
_CONTRAST = "the prediction against all classes"
"""What a prediction is explained by where its own logit is shown beside it: a model whose classes are texts."""
SHOWN = ("insdel", "saco", "aupr1", "pointing")
FREE_REMOVAL = "caap:direction=remove,context=free"


def name_of(label: str) -> str:
    """Name of a method in the table."""
    if not label.startswith("rank_sum:"):
        return NAMES.get(label, label)
    first, second = label.removeprefix("rank_sum:first=").split(",second=")
    return f"{name_of(first)} + {name_of(second)}"


def _titles(results: Results) -> dict[str, str]:
    """Targets in words."""
    return {**_TARGETS, "prediction": _CONTRAST} if any(target == "logit" for _, target, _ in results) else _TARGETS


def differences(results: Results) -> pd.DataFrame:
    """Paired differences to CAAP and means, one row per model, target, protocol's metric and method."""
    parts = []
    for (protocol, target, free), result in results.items():
        if free:
            continue
        found = result.compare(to="caap").rename(columns={"se": "difference_se"})
        means = result.summary()[["model", "metric", "method", "mean", "se"]]
        found = means.merge(found.drop(columns=["to"], errors="ignore"), on=["model", "metric", "method"], how="left")
        found = found[found["metric"].isin(SHOWN)]
        titles = {name: column.label for name, column in result.columns.items()}
        titles["insdel"] += f", {protocol}"
        parts.append(found.assign(target=target, column=found["metric"].map(titles), protocol=protocol))
    return pd.concat(parts, ignore_index=True)


def table(results: Results, about: str) -> str:
    """Markdown: the values of CAAP, and the differences of all other methods to them."""
    frame = differences(results)
    lines = [
        "Held-out photos with masks (the last 64 of a draw with seed 0, or the first of these); in percent, SaCo from "
        "-1 to 1. CAAP: mean ± standard error. Others: paired difference to CAAP ± its standard error (ddof 0), in "
        f"bold where the sign-flip test, corrected after Holm over the methods of a column, has p < 0.05. {about}.",
        "",
        *_conventions(results),
    ]
    for (model, target), part in frame.groupby(["model", "target"], sort=False):
        lines += _rows(f"{model}, {_titles(results)[target]}", part)
    return "\n".join([*lines, *_free_rows(results), *_agreement(results)]) + "\n"


def _rows(title: str, part: pd.DataFrame) -> list[str]:
    """One row per method, one column per metric and protocol."""
    columns = list(dict.fromkeys(part["column"]))
    lines = ["", f"**{title}**", "", f"| method | n | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for method in dict.fromkeys(part["method"]):
        rows = part[part["method"] == method].set_index("column")
        count = "caap" if method == "caap" else "n"
        numbers = sorted({int(n) for n in (rows["n"] if count == "n" else part["n"]).dropna()})
        said = "-".join(map(str, dict.fromkeys((numbers[0], numbers[-1])))) if numbers else "0"
        lines.append(f"| {name_of(method)} | {said} | {' | '.join(_cell(rows, c, method) for c in columns)} |")
    return lines


def _free_rows(results: Results) -> list[str]:
    """The free context's paired differences to CAAP."""
    lines = []
    for (protocol, target, free), result in results.items():
        if free:
            frame = differences({(protocol, target, False): results[protocol, target, False].join(result)})
            frame = frame[frame["method"].isin(result.to_dataframe()["method"])]
            for model, part in frame.groupby("model", sort=False):
                lines += _rows(f"{model}, {_titles(results)[target]}, the free context against CAAP", part)
    return lines


def _conventions(results: Results) -> list[str]:
    protocols = {name: result.plan.protocol for (name, _, _), result in results.items()}
    lines = []
    for name, protocol in protocols.items():
        choices = ", ".join(f"{key} {value}" for key, value in protocol.to_dict().items() if key != "name")
        lines.append(f"- {name}: {choices}")
    return lines


def _cell(rows: pd.DataFrame, column: str, method: str) -> str:
    if column not in rows.index:
        return ""
    row = rows.loc[column]
    digits = 3 if row["metric"] == "saco" else 1
    if method == "caap":
        return f"{row['mean']:.{digits}f} ± {row['se']:.{digits}f}"
    if not np.isfinite(row["difference"]):
        return ""
    text = f"{row['difference']:+.{digits}f} ± {row['difference_se']:.{digits}f}"
    return f"**{text}**" if row["p_holm"] < 0.05 else text


def _agreement(results: Results) -> list[str]:
    """Rank correlation of maps with those of the free removal, on the photos that have one."""
    lines = []
    for (protocol, target, free), result in results.items():
        if not free:
            continue
        frames = [result.to_dataframe(), results[protocol, target, False].to_dataframe()]
        frame = pd.concat(frames, ignore_index=True)
        frame = frame[frame["error"].isna()]
        for model, part in frame.groupby("model", sort=False):
            maps = part.pivot(index="image", columns="method", values="scores")
            known = maps[maps[FREE_REMOVAL].notna()] if FREE_REMOVAL in maps else maps.iloc[:0]
            if known.empty:
                continue
            explained = f"{model}, {_titles(results)[target]}"
            lines += ["", f"Spearman's rank correlation with the free removal, {explained}:", ""]
            lines += ["| method | n | correlation |", "|---|---|---|"]
            for method in dict.fromkeys(part["method"]):
                pairs = known[[FREE_REMOVAL, method]].dropna() if method != FREE_REMOVAL else known.iloc[:0]
                found = np.array([spearmanr(*pair).statistic for pair in pairs.itertuples(index=False)])
                if len(found):
                    mean, error = found.mean(), found.std() / len(found) ** 0.5
                    lines.append(f"| {name_of(method)} | {len(found)} | {mean:.2f} ± {error:.2f} |")
    return lines


def figure(results: Results, path: Path) -> Figure:
    """Differences to CAAP in InsDel, by convention, beside those in AUPR1; one row per model and target.

    Args:
        results: The results.
        path: Where to save it, without a suffix.
    """
    frame = differences(results)
    frame = frame[frame["method"] != "caap"].assign(name=frame["method"].map(name_of))
    groups = list(frame.groupby(["model", "target"], sort=False))
    drawn = new_figure(7.2, 0.5 + 2.4 * len(groups))
    axes = drawn.subplots(len(groups), 2, squeeze=False, sharey=True, width_ratios=(3, 2))
    for row, ((model, target), part) in zip(axes, groups, strict=True):
        for ax, metric, hue in zip(row, ("insdel", "aupr1"), ("protocol", None), strict=True):
            plot_points(
                part[part["metric"] == metric],
                "name",
                "difference",
                error="difference_se",
                hue=hue,
                ax=ax,
                horizontal=True,
                label=f"{'InsDel' if metric == 'insdel' else 'AUPR1'} less CAAP's (percent)",
                title=f"{model.split(',')[0]}, {_titles(results)[target]}" if metric == "insdel" else "",
            )
            ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(drawn, path)
    return drawn
