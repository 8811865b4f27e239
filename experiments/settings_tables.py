"""Tables of `experiments.settings` as Markdown."""

import argparse
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from benchmarks.machine import describe
from caap_lab.metrics.catalogue import metric_column
from caap_lab.statistics import paired_statistics
from experiments.settings_sweeps import (
    BASELINES,
    CUTOFFS,
    MAIN,
    METRICS,
    Measured,
    Table,
    Values,
    cutoff_columns,
    is_plain,
    name_of,
    protocol_of,
)


def report(models: Sequence[Measured], args: argparse.Namespace) -> list[str]:
    """All tables as Markdown."""
    n_calibration, n_metrics, n_maps = args.images
    lines = [
        "In percent, mean ± standard error over photos (ddof 0). Explained class: the model's own prediction. Curves: "
        f"protocol {protocol_of(args, 1).name}. Photos: {n_calibration} for calibration; {n_metrics} others, with "
        f"masks, for metrics; {n_maps} for maps alone, the same {min(n_metrics, n_maps)} first. {describe()}.",
        "",
        "### Cutoff",
        "",
        *cutoff_table(models),
    ]
    for title, head, what in (
        ("Blank", "blank", "blanks"),
        ("Neighbourhood", "neighbourhood", "neighbourhoods"),
        ("Range of patched blocks", "range", "ranges"),
    ):
        lines += ["", f"### {title}"]
        for one in models:
            lines += ["", f"**{one.label}**", "", *metric_table(head, getattr(one, what))]
    lines += ["", "### Rank correlation of maps", "", *rank_table(models)]
    for title, about, table in (
        (
            "Spread",
            "Highest less lowest mean ± standard error of this difference, photo by photo; p is how often settings "
            "that are exchanged at random within each photo spread as far.",
            spread_table,
        ),
        (
            "Other methods",
            "CAAP at its defaults less another method on the same photos, and with how many of CAAP's settings its "
            "mean is the better one.",
            rival_table,
        ),
    ):
        lines += ["", f"### {title}", "", about]
        for one in models:
            lines += ["", f"**{one.label}**", "", *table(one)]
    return lines


def cutoff_table(models: Sequence[Measured]) -> list[str]:
    """InsDel over cutoffs; the best average, and how far each other one is from it, photo by photo."""
    columns = cutoff_columns(models)
    average = np.mean(columns, axis=0)
    best = int(average.mean(axis=0).argmax())
    lines = [
        f"| cutoff, share of blocks | {' | '.join(one.label for one in models)} | average | average less the best |",
        "|---" * (len(models) + 3) + "|",
    ]
    for i, share in enumerate(CUTOFFS):
        cells = [percent(values[:, i]) for values in [*columns, average]]
        last = "best" if i == best else percent(average[:, i] - average[:, best])
        lines.append(f"| {share}/12 | {' | '.join(cells)} | {last} |")
    return [*lines, "", f"Chosen by the paper's rule: {CUTOFFS[best]}/12 of the blocks."]


def metric_table(head: str, table: Table) -> list[str]:
    """One row per setting."""
    lines = [f"| {head} | {' | '.join(METRICS[metric] for metric in MAIN)} |", "|---" * (len(MAIN) + 1) + "|"]
    return lines + [f"| {name} | {' | '.join(percent(row[m]) for m in MAIN)} |" for name, row in table.items()]


def rank_table(models: Sequence[Measured]) -> list[str]:
    """Spearman over pairs of settings."""
    lines = [
        "Spearman correlation between the maps of two settings, mean over photos; then over all pairs of settings. "
        "Plain blanks are all but zero activations and the photos.",
        "",
        "| model | settings | lowest | median | highest | lowest pair |",
        "|---|---|---|---|---|---|",
    ]
    for one in models:
        plain = [i for i, name in enumerate(one.blank_labels) if is_plain(name)]
        several: list[tuple[str, list[str], np.ndarray]] = [
            ("blanks", one.blank_labels, one.blank_ranks),
            ("plain blanks", [one.blank_labels[i] for i in plain], one.blank_ranks[np.ix_(plain, plain)]),
            ("ranges", [name_of(label) for label in one.range_labels], one.range_ranks),
        ]
        for what, labels, ranks in several:
            rows, cols = np.triu_indices(len(labels), 1)
            values = ranks[rows, cols]
            low = int(values.argmin())
            pair = f"{name_of(labels[rows[low]])}, {name_of(labels[cols[low]])}"
            numbers = " | ".join(f"{v:.2f}" for v in (values.min(), np.median(values), values.max()))
            lines.append(f"| {one.label} | {len(labels)} {what} | {numbers} | {pair} |")
    return lines


def spread_table(one: Measured) -> list[str]:
    """Highest minus lowest mean over blanks and over ranges."""
    plain = {name: row for name, row in one.blanks.items() if is_plain(name)}
    several = {"blanks": one.blanks, "plain blanks": plain, "ranges": one.ranges}
    lines = [f"| metric | {' | '.join(f'over {what} | highest; lowest' for what in several)} |"]
    lines += ["|---" * (2 * len(several) + 1) + "|"]
    for metric, name in METRICS.items():
        cells = []
        for table in several.values():
            values = np.stack([row[metric] for row in table.values()], axis=1)
            order = np.nanmean(values, axis=0).argsort()
            high, low = order[-1], order[0]
            cells += [
                f"{percent(values[:, high] - values[:, low])} ({chance(values)})",
                f"{list(table)[high]}; {list(table)[low]}",
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def rival_table(one: Measured) -> list[str]:
    """What separates CAAP from other methods, and with how many settings of CAAP its mean is the better one."""
    lines = [
        f"| metric | {' | '.join(f'less {name_of(m)} | better with' for m in BASELINES)} |",
        "|---" * (2 * len(BASELINES) + 1) + "|",
    ]
    for metric, name in METRICS.items():
        sign = -1 if metric_column(metric).better == "lower" else 1
        cells = []
        for method in BASELINES:
            other = one.baselines[method][metric]
            wins = [
                f"{sum(sign * np.nanmean(row[metric] - other) > 0 for row in table.values())} of {len(table)} {what}"
                for what, table in (("blanks", one.blanks), ("ranges", one.ranges))
            ]
            cells += [percent(one.blanks["white"][metric] - other), ", ".join(wins)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def chance(values: Float[np.ndarray, "image setting"], shuffles: int = 2000) -> str:
    """How often settings that are exchanged at random within each photo spread as far: the highest of many always
    lies above the lowest, if by noise alone."""
    values = values[np.isfinite(values).all(axis=1)]
    random = np.random.Generator(np.random.PCG64(0))
    spread = np.ptp(values.mean(axis=0))
    others = [np.ptp(random.permuted(values, axis=1).mean(axis=0)) for _ in range(shuffles)]
    p = float(np.mean(np.array(others) >= spread - 1e-12))
    return "p < 0.01" if p < 0.01 else f"p {p:.2f}"


def percent(values: Values) -> str:
    """Mean and standard error."""
    statistics = paired_statistics(values)
    return f"{statistics['mean']:.1f} ± {statistics['se']:.1f}"
