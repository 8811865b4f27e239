"""Tables and rank plots of `real_weights`: means, paired differences to one method, and the best methods."""

import re
from pathlib import Path
from textwrap import fill

import pandas as pd

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.plots.style import new_figure, save_figure

LABELS = {
    **{"insertion": "Ins", "deletion": "Del", "insdel": "InsDel"},
    **{"aupr1": "AUPR1", "aupr0": "AUPR0", "pointing": "PG"},
}
"""Metrics in the tables, in order; the CSV has all metrics."""
COMPARED = ("insdel", "aupr1")
"""Metrics that are compared and ranked."""


def write(result: cl.BenchmarkResult, group: str, reference: str, out: Path | None, figures: Path | None) -> None:
    """Print the tables; write them, all numbers as CSV, and the plots of ranks."""
    lines = numbers(result, reference)
    if lines.empty:
        return
    text = markdown(result, lines, reference)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
        lines.round(4).to_csv(out.with_suffix(".csv"), index=False)
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        for model in lines["model"].unique():
            plot(result, lines[lines["model"] == model], figures / f"ranks_{group}_{file_name(model)}")


def numbers(result: cl.BenchmarkResult, reference: str) -> pd.DataFrame:
    """One row per data set, model, metric and method: mean, difference to the reference, its test, and mean rank."""
    keys = ["data", "model", "metric", "method"]
    means = result.summary()[[*keys, "n", "mean", "se"]].drop_duplicates(keys)
    compared = result.compare(reference)[[*keys, "n", "difference", "se", "p", "p_holm", "verdict"]]
    compared = compared.rename(columns={"n": "difference_n", "se": "difference_se"})
    ranks = result.ranks()[[*keys, "n", "mean_rank", "se"]].rename(columns={"n": "rank_n", "se": "rank_se"})
    frame = pd.DataFrame(means).merge(compared, how="left", on=keys).merge(ranks, how="left", on=keys)
    return frame[frame["n"] > 0].reset_index(drop=True)


def markdown(result: cl.BenchmarkResult, lines: pd.DataFrame, reference: str) -> str:
    """All tables, one per model and data set, each followed by its findings in words."""
    protocol = ", ".join(f"{k} {v}" for k, v in result.plan.protocol.to_dict().items() if k != "name")
    weights = "; ".join(
        dict.fromkeys(_weights(model.label, model.name) for s in result.plan.studies for model in s.models)
    )
    against = " against the mean of all classes" if result.plan.identity.by_contrast else ""
    text: list[str] = [
        "In percent, mean ± standard error over images (ddof 0), methods in the order of their InsDel. "
        f"`- {reference}` is the paired difference to {reference} over the images that both have; `*` where it differs "
        "from 0 at 0.05 (sign-flip test, after Holm's correction over the methods of the table). Photos: the first n "
        "of the 64 that are held out, the last 64 of a draw of all with seed 0. Explained: the model's own "
        f"prediction{against}. Curves: protocol {result.plan.protocol.name} ({protocol}). Weights: {weights}. "
        f"{describe()}.\n"
    ]
    for (model, data), part in lines.groupby(["model", "data"], sort=False):
        text += [f"\n**{model}, {data}**\n", _table(part, reference), "", *_says(part, reference)]
    return "\n".join(text) + "\n"


def _weights(label: str, name: str) -> str:
    return label if label == name else f"{label} ({name})"


def _table(part: pd.DataFrame, reference: str) -> str:
    metrics = [metric for metric in LABELS if metric in set(part["metric"])]
    heads = []
    for metric in metrics:
        heads += [LABELS[metric], f"- {reference}"] if metric in COMPARED else [LABELS[metric]]
    by = {metric: part[part["metric"] == metric].set_index("method") for metric in metrics}
    order = by["insdel"]["mean"].sort_values(ascending=False).index
    rows = [f"| method | n | {' | '.join(heads)} |", f"|---|---|{'---|' * len(heads)}"]
    for method in order:
        cells = []
        for metric in metrics:
            line = by[metric].loc[method]
            cells.append(f"{line['mean']:.1f} ± {line['se']:.1f}")
            if metric in COMPARED:
                star = " *" if line["verdict"] in ("better", "worse") else ""
                known = pd.notna(line["difference"])
                cells.append(f"{line['difference']:+.1f} ± {line['difference_se']:.1f}{star}" if known else "")
        rows.append(f"| {method} | {int(by['insdel'].loc[method, 'n'])} | {' | '.join(cells)} |")
    return "\n".join(rows)


LABELS = {
    "insertion": "Ins",
    "deletion": "Del",
    "insdel": "InsDel",
    "aupr1": "AUPR1",
    "aupr0": "AUPR0",
    "pointing": "PG",
}


def _says(part: pd.DataFrame, reference: str) -> list[str]:
    """Findings of a table, metric by metric."""
    sentences = []
    for metric in (metric for metric in COMPARED if metric in set(part["metric"])):
        rows = part[part["metric"] == metric].sort_values("mean", ascending=False)
        groups = {verdict: rows[rows["verdict"] == verdict]["method"].tolist() for verdict in ("better", "worse")}
        rest = rows[rows["verdict"] == "not distinguishable"]["method"].tolist()
        sentences.append(
            f"- {LABELS[metric]}: {rows['method'].iloc[0]} has the highest mean. Better than {reference}: "
            f"{_list(groups['better'])}; not distinguishable from it: {_list(rest)}; worse: {_list(groups['worse'])}."
        )
    return sentences


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"


def plot(result: cl.BenchmarkResult, lines: pd.DataFrame, path: Path) -> None:
    """One panel of ranks per data set and metric of a model."""
    panels = [(data, metric) for data in lines["data"].unique() for metric in COMPARED
              if lines[(lines["data"] == data) & (lines["metric"] == metric)]["rank_n"].max() > 0]  # fmt: skip
    if not panels:
        return
    model = lines["model"].iloc[0]
    figure = new_figure(3.35 * len(panels), 0.85 + 0.135 * lines["method"].nunique())
    for ax, (data, metric) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        result.plot_ranks(metric, data=data, model=model, ax=ax)
        ax.set_title(f"{fill(f'{model}, {data}', 40)}\n{ax.get_title()}", fontsize=7.5)
    print(*save_figure(figure, path))


def file_name(label: str) -> str:
    """ "vit_tiny" for "ViT-tiny", without the part after a comma."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower().split(",")[0]).strip("_")
