"""Notes of a table, in sentences: counts, data, settings, weights, versions, and what is missing."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caap_lab.bench.paper.profiles import stand_ins
from caap_lab.bench.paper.published import names
from caap_lab.bench.paper.settings import PaperSettings
from caap_lab.bench.plan import BenchmarkPlan, Study
from caap_lab.bench.tables.cells import Cells
from caap_lab.bench.target_rule import has_probability, rule_words
from caap_lab.labels import counted
from caap_lab.metrics.localisation import LOCALISATION
from caap_lab.metrics.metric import units
from caap_lab.models.targets import Logit
from caap_lab.variant import parse_variant

if TYPE_CHECKING:
    import pandas as pd

    from caap_lab.bench.result import BenchmarkResult

_PIXELS = {
    frozenset({"target"}): "the target",
    frozenset({"all objects"}): "all objects",
    frozenset({"target", "all objects"}): "the target where its class is annotated, else of all objects",
}
"""The object whose pixels maps are compared with, by the labels in rows."""
_FORMAT = "float32"
"""Default number format of models."""


@dataclass(frozen=True)
class Notes:
    """Sentences below a table."""

    reading: str
    """The quantity of the numbers, and the number of images."""
    data: tuple[str, ...]
    """The images, and the target."""
    about: tuple[str, ...]
    """What else was computed, and what was not."""
    models: str
    """The meaning of models' names, without their weights' fingerprints; empty if they are the names for loading."""
    sources: tuple[str, ...]
    """Weights, methods, machines and versions: for readers who compute it again."""


def notes_of(result: "BenchmarkResult", members: Sequence[int], cells: Cells) -> Notes:
    """Sentences below a table.

    Args:
        result: Result of the run.
        members: Indices of the table's studies in the plan.
        cells: Cells of the table.
    """
    plan = result.plan
    rows = result.to_dataframe()
    rows = rows[rows["study"].isin(members)]
    good = rows[rows["error"].isna()]
    studies = [plan.studies[i] for i in members]
    about = [stand_ins(table) for table in dict.fromkeys(study.table for study in studies) if plan.profile == "demo"]
    about += _formats(studies)
    about += _metrics(plan, studies, good)
    about += [*_unfinished(studies, members, rows), *_left_out(plan, studies)]
    about += [note for note in plan.notes if not tables_left_out(note) - {study.table for study in studies}]
    data = tuple(line for study in studies for line in _data(plan, study))
    models = _models(studies, good)
    named = "; ".join(name for name, _ in models if " is " in name)
    sources = (f"Models: {'; '.join(f'{name} (weights {found})' for name, found in models)}.", *_methods(studies))
    return Notes(
        _reading(plan, studies, cells),
        data,
        tuple(about),
        f"Models: {named}." if named else "",
        (*sources, _machines(good)),
    )


def tables_left_out(note: str) -> set[int]:
    """Numbers of the tables that a plan's note describes as omitted, completely or in part; most notes name none."""
    found = re.match(r"Tables? ([\d, and]+) (?:is|are) left out", note)
    return set(map(int, re.findall(r"\d+", found[1]))) if found else set()


def usual_images(studies: Sequence[Study]) -> dict[str, int]:
    """Number of images behind the paper's tables, by the name of the data set."""
    return {study.data.label: PaperSettings().count(study.table, study.data.label) for study in studies}


def _reading(plan: BenchmarkPlan, studies: Sequence[Study], cells: Cells) -> str:
    columns = dict.fromkeys(column for study in studies for column in plan.columns(study))
    images = counted(cells.common, "image")
    if cells.counts_differ:
        images += ", or n where it is given"
    paper = set(cells.usual.values())
    if paper and paper != {cells.common}:
        images += f" (the paper's: {', '.join(map(str, sorted(paper)))})"
    return f"{units(columns)}, mean over images ± standard error (ddof 0); {images}; best in bold."


def _data(plan: BenchmarkPlan, study: Study) -> list[str]:
    """The images, and the target."""
    who = rule_words(study.target)
    texts = [model.label for model in study.models if model.text in plan.identity.by_contrast]
    if texts and isinstance(study.target, str):
        who += f" (of {', '.join(texts)}, whose classes are texts, against the mean of all classes)"
    name = study.data.source
    if study.data.label != name:
        name = f"{study.data.label} is {name}"
    what = "explained class" if isinstance(study.target, (str, Logit)) else "explained"
    lines = [f"{name}, images: {study.data.chosen}; {what}: {who}."]
    if not has_probability(study.target):
        lines.append("It has no probability: curves and SaCo are of its value, and percent are hundredths of that.")
    return lines


def _metrics(plan: BenchmarkPlan, studies: Sequence[Study], good: "pd.DataFrame") -> list[str]:
    lines = []
    if any(plan.reads_protocol(study) for study in studies):
        choices = ", ".join(f"{key} {value}" for key, value in plan.protocol.to_dict().items() if key != "name")
        lines.append(f"Curves: protocol {plan.protocol.name} ({choices}).")
    metrics = {text: parse_variant(text) for study in studies for text in study.metrics}
    for metric in (metric for metric in metrics.values() if metric.name == LOCALISATION.name):
        pixels = _PIXELS.get(frozenset(good["mask"].dropna()), "the object")
        maps = metric.options.get("upsampling", "bilinear")
        lines.append(f"Localisation: {maps} maps against the pixels of {pixels}; PG takes the first maximum.")
    special = [text for text, metric in metrics.items() if metric.options or text in plan.identity.metrics]
    if special:
        lines.append(f"Metrics with options or code of their own: {'; '.join(special)}.")
    return lines


def _unfinished(studies: Sequence[Study], members: Sequence[int], rows: "pd.DataFrame") -> list[str]:
    """Number of trials that failed or are missing, by model and method."""
    expected = sum(len(s.models) * len(s.methods) * len(s.data.names) for s in studies)
    failed, missing = int(rows["error"].notna().sum()), expected - len(rows)
    if not failed and not missing:
        return []
    good = rows[rows["error"].isna()]
    counts = good.groupby(["study", "model", "method"]).size().to_dict()
    parts = []
    for place, study in zip(members, studies, strict=True):
        planned = len(study.data.names)
        for model in study.models:
            done = {method.label: counts.get((place, model.label, method.label), 0) for method in study.methods}
            text = _fewer(done, planned)
            if text:
                several = len({s.data.label for s in studies}) > 1
                parts.append(f"{f'{study.data.label}, {model.label}' if several else model.label}: {text}")
    return [
        f"Not in the numbers: {failed} failed and {missing} missing trials.",
        f"Not finished: {'; '.join(parts)}.",
    ]


def _fewer(done: Mapping[str, int], planned: int) -> str:
    """Progress of a model: "9 of 500 images, but 7 with TAM"; with some methods done: "7 of 500 images with TAM"."""
    methods: dict[int, list[str]] = {}
    for method, count in done.items():
        methods.setdefault(count, []).append(method)
    behind = sorted(count for count in methods if count < planned)
    if not behind:
        return ""
    of = f"of {counted(planned, 'image')}"
    if planned in methods:
        return ", ".join(f"{count} {of} with {', '.join(methods[count])}" for count in behind)
    most = max(behind, key=lambda count: len(methods[count]))
    others = [f"but {count} with {', '.join(methods[count])}" for count in behind if count != most]
    return ", ".join([f"{most} {of}", *others])


def _left_out(plan: BenchmarkPlan, studies: Sequence[Study]) -> list[str]:
    """Parts of the paper's table that are missing in the plan."""
    if plan.profile != "paper":
        return []
    table = studies[0].table
    own = {
        "data set": {study.data.label for study in studies},
        "model": {model.label for study in studies for model in study.models},
        "method": {method.label for study in studies for method in study.methods},
    }
    papers = {what: names(table, what.replace(" ", "")) for what in own}
    gone = {what: [name for name in papers[what] if name not in own[what]] for what in own}
    texts = [f"the {what}{'s' * (len(found) > 1)} {', '.join(found)}" for what, found in gone.items() if found]
    if not texts:
        return []
    best = " Bold marks the best of the methods that are here." if gone["method"] else ""
    return [f"Of the paper's table {table}, this run leaves out {' and '.join(texts)}.{best}"]


def _models(studies: Sequence[Study], good: "pd.DataFrame") -> list[tuple[str, str]]:
    """The meaning of each model's name, and the fingerprints of its weights."""
    weights = good.groupby(["data", "model"], sort=False)["fingerprint"].unique()
    texts: dict[str, dict[str, tuple[str, str]]] = {}
    for study in studies:
        for model in study.models:
            label, data = model.label, study.data.label
            name = model.text if model.text == label else f"{label} is {model.text}"
            texts.setdefault(label, {})[data] = name, ", ".join(weights.get((data, label), ["not run"]))
    models = []
    for by_data in texts.values():
        same = len(set(by_data.values())) == 1  # otherwise each data set has its own model under one name
        models += list(by_data.values())[:1] if same else [(f"on {d}, {name}", w) for d, (name, w) in by_data.items()]
    return models


def _methods(studies: Sequence[Study]) -> list[str]:
    """The meaning of methods' names."""
    renamed = {m.label: m.text for study in studies for m in study.methods if m.label != m.text}
    return [f"Methods: {'; '.join(f'{label} is {text}' for label, text in renamed.items())}."] if renamed else []


def _formats(studies: Sequence[Study]) -> list[str]:
    """The number formats of models, if some did not run in float32."""
    models = {model.label: str(model.options.get("dtype", _FORMAT)) for study in studies for model in study.models}
    if set(models.values()) == {_FORMAT}:
        return []
    if len(set(models.values())) == 1:
        return [f"Number format of all models: {next(iter(models.values()))}."]
    return [f"Number format of models: {', '.join(f'{label} {dtype}' for label, dtype in models.items())}."]


def _machines(good: "pd.DataFrame") -> str:
    versions = [", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in good["versions"].unique()]
    return f"Ran on: {'; '.join(good['machine'].unique())}. Versions: {'; '.join(versions)}."
