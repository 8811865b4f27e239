"""Part of `experiments.settings`: do conclusions about CAAP and close methods depend on CAAP's blank or range?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from caap_lab.metrics.catalogue import metric_column
from caap_lab.statistics import holm, paired_statistics, sign_flip_p
from experiments.settings_sweeps import METRICS, OTHER_SEED, RIVALS, Measured, is_plain, name_of

COMPARED = ("insdel", "aupr1")
LEVEL = 0.05
DEFAULT = "white"
EXTREME = "blocks 0 to 3"


class Conclusions(NamedTuple):
    """Differences of CAAP at every setting to every method, for one model and metric; higher is better."""

    settings: list[str]
    differences: Float[np.ndarray, "image setting method"]
    p: Float[np.ndarray, "setting method"]
    """Corrected over the methods of a setting."""

    @property
    def signs(self) -> Int[np.ndarray, "setting method"]:
        """Signs of the mean differences."""
        return np.sign(self.differences.mean(axis=0)).astype(int)

    @property
    def verdicts(self) -> Int[np.ndarray, "setting method"]:
        """1 if CAAP is distinguishably better, -1 if worse, otherwise 0."""
        return np.where(self.p < LEVEL, self.signs, 0)


def conclusions(one: Measured, metric: str) -> Conclusions:
    """All settings of blank and range, the default one first."""
    sign = -1 if metric_column(metric).better == "lower" else 1
    caap = {DEFAULT: one.blanks[DEFAULT], **one.blanks, **one.ranges}
    default = name_of(one.default_range)  # the same maps as with the default blank
    tables = {name: table for name, table in caap.items() if name != default}
    rivals = np.stack([one.rivals[method][metric] for method in RIVALS], axis=-1)
    own = np.stack([table[metric] for table in tables.values()], axis=-1)
    differences = sign * (own[:, :, None] - rivals[:, None, :])
    return Conclusions(list(tables), differences, np.stack([holm(row) for row in sign_flip_p(differences)]))


def difference_table(one: Measured, metric: str) -> list[str]:
    """One row per setting, one column per method; a star where p < 0.05."""
    found = conclusions(one, metric)
    lines = [
        f"| {METRICS[metric]}, CAAP with | {' | '.join(f'less {name_of(method)}' for method in RIVALS)} |",
        "|---" * (len(RIVALS) + 1) + "|",
    ]
    for i, setting in enumerate(found.settings):
        cells = [points(found.differences[:, i, j]) + star(found.p[i, j]) for j in range(len(RIVALS))]
        lines.append(f"| {setting}{' (default)' if i == 0 else ''} | {' | '.join(cells)} |")
    return lines


def change_table(models: Sequence[Measured]) -> list[str]:
    """How many settings change the sign, change the conclusion, and reverse it."""
    lines = ["| model | metric | method | default setting | plain blanks | other blanks | ranges |", "|---" * 7 + "|"]
    for one in models:
        for metric in COMPARED:
            found = conclusions(one, metric)
            groups = groups_of(one, found.settings)
            for j, method in enumerate(RIVALS):
                cells = [" / ".join(map(str, changes(found, kept, j))) + f" of {kept.sum()}" for kept in groups]
                default = points(found.differences[:, 0, j]) + star(found.p[0, j])
                lines.append(
                    f"| {one.label} | {METRICS[metric]} | {name_of(method)} | {default} | {' | '.join(cells)} |"
                )
    return lines


def groups_of(one: Measured, settings: list[str]) -> list[Bool[np.ndarray, " setting"]]:
    """Which settings other than the default are plain blanks, other blanks, and ranges."""
    blank = np.array([name in one.blanks for name in settings])
    plain = np.array([name in one.blanks and is_plain(name) for name in settings])
    others = np.arange(len(settings)) > 0
    return [blank & plain & others, blank & ~plain, ~blank]


def changes(found: Conclusions, kept: Bool[np.ndarray, " setting"], method: int | slice) -> tuple[int, int, int]:
    """Number of settings with another sign, with another conclusion, and with the opposite conclusion."""
    signs, verdicts = found.signs[:, method], found.verdicts[:, method]
    return (
        int((signs[kept] != signs[0]).sum()),
        int((verdicts[kept] != verdicts[0]).sum()),
        int((verdicts[kept] * verdicts[0] == -1).sum()),
    )


def conclusion_sentence(models: Sequence[Measured]) -> str:
    """All changes together, and those without settings that change the maps as well."""
    every, usual = [], []
    for one in models:
        for metric in COMPARED:
            found = conclusions(one, metric)
            plain, other, ranges = groups_of(one, found.settings)
            most = np.array([name == EXTREME for name in found.settings])
            every.append((*changes(found, plain | other | ranges, slice(None)), (plain | other | ranges).sum()))
            usual.append((*changes(found, (plain | ranges) & ~most, slice(None)), ((plain | ranges) & ~most).sum()))
    texts = []
    for counts in (every, usual):
        sign, verdict, opposite, settings = np.sum(counts, axis=0)
        texts.append(
            f"of {settings * len(RIVALS)} comparisons {sign} have another sign than with the default setting, "
            f"{verdict} another conclusion (p < 0.05 with Holm's correction, or not), and {opposite} the opposite one"
        )
    return (
        f"Conclusions about the {len(RIVALS)} closest methods ({', '.join(map(name_of, RIVALS))}) in InsDel and AUPR1: "
        f"{texts[0]}. Without zero activations, photos as blanks, and {EXTREME}: {texts[1]}."
    )


def noise_sentence(models: Sequence[Measured]) -> str:
    """A sentence on the effect of another seed of the noise."""
    parts = [
        f"{METRICS[metric]} by {points(one.blanks[OTHER_SEED][metric] - one.blanks['noise'][metric])} ({one.label})"
        for one in models
        for metric in COMPARED
    ]
    return f"Another seed of the noise blank changes {', '.join(parts)} points."


def check_table(models: Sequence[Measured]) -> list[str]:
    """Effects of the highest patches together, and the sum of their single effects."""
    lines = [
        f"| setting | {' | '.join(f'{one.label}: together | sum of single effects' for one in models)} |",
        "|---" * (2 * len(models) + 1) + "|",
    ]
    for setting in models[0].checks:
        cells = [plain_numbers(column) for one in models for column in one.checks[setting].T]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    return lines


def check_sentence(models: Sequence[Measured]) -> str:
    """A sentence on the differences between sums and joint effects."""
    parts = []
    for one in models:
        ratio = {setting: float(values[:, 1].mean() / values[:, 0].mean()) for setting, values in one.checks.items()}
        low, high = min(ratio, key=ratio.__getitem__), max(ratio, key=ratio.__getitem__)
        parts.append(
            f"{ratio[DEFAULT]:.1f} times as large on {one.label} (over all settings from {ratio[low]:.1f} with {low} "
            f"to {ratio[high]:.1f} with {high})"
        )
    return (
        "Interactions: the single effects of the highest patches, which share nothing, add up to more or less than "
        f"what these patches do together. With the default setting their sum is {'; and '.join(parts)}."
    )


def star(p: float) -> str:
    """Mark of p < 0.05."""
    return " *" if p < LEVEL else ""


def points(values: Float[np.ndarray, " image"]) -> str:
    """Mean difference with its sign and standard error, in points."""
    statistics = paired_statistics(values)
    return f"{statistics['mean']:+.1f} ± {statistics['se']:.1f}"


def plain_numbers(values: Float[np.ndarray, " image"]) -> str:
    """Mean and standard error, not in percent."""
    statistics = paired_statistics(values, factor=1)
    return f"{statistics['mean']:.2f} ± {statistics['se']:.2f}"
