"""Tables of `experiments.settings` as Markdown."""

import argparse
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from benchmarks.machine import describe
from caap_lab.statistics import paired_statistics
from experiments.photos import HELD_OUT
from experiments.settings_conclusions import (
    COMPARED,
    change_table,
    check_sentence,
    check_table,
    conclusion_sentence,
    difference_table,
    noise_sentence,
    points,
)
from experiments.settings_sweeps import (
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
    n_calibration, n_metrics, n_maps, n_checks = args.images
    lines = [
        "In percent, mean ± standard error over photos (ddof 0). Explained class: the model's own prediction. Curves: "
        f"protocol {protocol_of(args, 1).name}. Photos: {n_calibration} for calibration; {n_metrics} others, with "
        f"masks, for metrics; {n_maps} for maps alone, the same {min(n_metrics, n_maps)} first; the first {n_checks} "
        "for interactions. Calibration: the first of the set's draw with seed 0; photos with masks: the first of the "
        f"last {HELD_OUT} of its draw. {describe()}.",
        "",
        "### What was found",
        "",
        *(f"- {sentence}" for sentence in sentences(models)),
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
    lines += [
        "",
        "### Spread",
        "",
        "Highest less lowest mean ± standard error of this difference, photo by photo; p is how often settings that "
        "are exchanged at random within each photo spread as far.",
    ]
    for one in models:
        lines += ["", f"**{one.label}**", "", *spread_table(one)]
    lines += [
        "",
        "### Other methods",
        "",
        "The five methods closest to CAAP on the same photos, in points. Star: p < 0.05 (sign flips over photos, "
        "Holm's correction over the five methods of a setting). Numbers under blanks and ranges: in how many settings "
        "the difference has another sign than with the default setting / the conclusion is another (star or sign) / it "
        "is the opposite one, both with a star.",
        "",
        *change_table(models),
        "",
        "Setting by setting:",
    ]
    for one in models:
        for metric in COMPARED:
            lines += ["", f"**{one.label}**", "", *difference_table(one, metric)]
    return [
        *lines,
        "",
        "### Interactions",
        "",
        "`cl.interaction_check`: effect on the logit of up to ten of a map's highest patches, whose neighbourhoods "
        "share nothing, put into the blank together; and the sum of their single effects.",
        "",
        *check_table(models),
    ]


def sentences(models: Sequence[Measured]) -> list[str]:
    """The findings of the tables, with their numbers."""
    columns = cutoff_columns(models)
    average = np.mean(columns, axis=0)
    best, last = int(average.mean(axis=0).argmax()), len(CUTOFFS) - 1
    default = CUTOFFS.index(8)
    found = [
        f"Cutoff: by the paper's rule, the highest InsDel of the average of the models, {CUTOFFS[best]}/12 of the "
        f"blocks come first. Photo by photo, the default (8/12) differs from it by "
        f"{points(average[:, default] - average[:, best])} points and all blocks (12/12) by "
        f"{points(average[:, last] - average[:, best])}."
    ]
    for one in models:
        plain = {name: row for name, row in one.blanks.items() if is_plain(name)}
        parts = []
        for what, table in ((f"{len(plain)} plain blanks", plain), (f"{len(one.ranges)} ranges", one.ranges)):
            values = {m: np.stack([row[m] for row in table.values()], axis=1) for m in COMPARED}
            spreads = [f"{METRICS[m]} by {percent(spread(of))} ({chance(of)})" for m, of in values.items()]
            parts.append(f"over {what} {' and '.join(spreads)}")
        none, box = one.neighbourhoods["none"], one.neighbourhoods["box1"]
        gains = [f"{METRICS[m]} by {points(box[m] - none[m])}" for m in COMPARED]
        found.append(
            f"{one.label}: the means spread {'; '.join(parts)} points. 3 x 3 patches instead of one change "
            f"{' and '.join(gains)} points."
        )
    return [*found, noise_sentence(models), conclusion_sentence(models), check_sentence(models)]


def spread(values: Float[np.ndarray, "image setting"]) -> Values:
    """The setting with the highest mean less that with the lowest, photo by photo."""
    order = np.nanmean(values, axis=0).argsort()
    return values[:, order[-1]] - values[:, order[0]]


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
                f"{percent(spread(values))} ({chance(values)})",
                f"{list(table)[high]}; {list(table)[low]}",
            ]
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
