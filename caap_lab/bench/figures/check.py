"""Checks of figures before anything is computed: a sweep may only begin after days of trials."""

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from tqdm.auto import tqdm

from caap_lab.bench.check import check_running
from caap_lab.bench.figures.data import CAAP, FigureData
from caap_lab.bench.figures.needs import Need
from caap_lab.bench.figures.options import check_photos
from caap_lab.bench.identity import Unreadable, identified
from caap_lab.bench.plan import BenchmarkPlan, Study, Trial
from caap_lab.bench.ready import Running, check_ready
from caap_lab.bench.target_rule import WORDS, TargetRule
from caap_lab.models.targets import Logit


def check_figures(data: FigureData, needs: Sequence[Need]) -> None:
    """Raise InputError for anything that figures need and cannot use: photos, data sets, models, classes, the folder.

    Args:
        data: The data of the figures.
        needs: What they read. Results that are already in the folder need no model.

    Raises:
        InputError: the message lists everything that is missing or cannot be used.
    """
    how = {"batch_size": 64, "workers": None, "scheduler": None, "device": "cpu", **data.running}
    check_running(how["batch_size"], how["workers"], how["scheduler"], how["device"], objects=False)
    needs = [need for need in needs if need.table in data.tables]
    if data.options.photos:
        shown = [data.all_images(data.study(need.table)) for need in needs if need.what == "maps"]
        check_photos(shown, data.options.photos)
    pairs = [(need, part) for need in needs for part in _parts(data, need)]
    if not pairs:
        return
    images = {study.data.source: data.all_images(study) for _, study in pairs}
    progress, unreadable = how.get("progress", True), Unreadable()
    studies = tuple(study for _, study in pairs)
    plan = identified(replace(data.plan, studies=studies), {}, images, progress, unreadable)
    finished = data.finished()
    kept = {
        (need, model.text)
        for need, study in pairs
        for model in study.models
        if need.kept and not (unreadable.models or unreadable.images)
        if data.frame_path(need.kept(data, model)).exists()
    }
    waiting = {
        (trial.model.text, trial.key): trial  # models whose files are missing have equal keys
        for need, study in pairs
        for trial in _trials(plan, study)
        if not (trial.key in finished if need.what == "trials" else _is_kept(data, need, study, trial, kept))
    }
    if progress:
        _tell(data, [trial.key for need, study in pairs if need.what == "trials" for trial in _trials(plan, study)])
    here = how["workers"] is None and how["scheduler"] is None
    alone = any(need.what != "trials" for need in needs)  # only trials go to workers
    running = Running({}, images, how["device"], how["batch_size"], here or alone, progress)
    check_ready(plan, list(waiting.values()), data.run_folder, unreadable, running)


def _parts(data: FigureData, need: Need) -> list[Study]:
    """What a figure needs from a table: one study per data set if it computes trials of them all."""
    studies = [study for study in data.plan.studies if study.table == need.table]
    parts = []
    for study in studies if need.what == "trials" else studies[:1]:
        used = need.chosen([model.label for model in study.models])
        names = data.photos(study, need.images) if need.what == "maps" else study.data.names[: need.images]
        if need.what == "sweep":
            names = names[: data.sweep_images]
        part = replace(
            study,
            data=replace(study.data, names=tuple(names)),
            models=tuple(model for model in study.models if model.label in used),
        )
        if need.what == "maps":
            part = replace(part, metrics=(), target=_rule(data.target(need.target or None), study))
        if need.takes_caap_alone or need.what == "attention":
            part = replace(part, methods=(CAAP,))  # attention has no method, and supports the same models as CAAP
        parts.append(part)
    return parts


def _rule(target: int | str | None, study: Study) -> TargetRule:
    """The target of maps, as a study stores it; classes by their own logit, which the check treats the same."""
    if target is None:
        return study.target
    return target if isinstance(target, str) and target in WORDS else Logit(target)


def _tell(data: FigureData, keys: Iterable[str]) -> None:
    """Print how many trials are missing, before their run begins."""
    planned = set(keys)
    missing = len(planned - data.finished())
    if missing:
        tqdm.write(f"Of {len(planned):,} trials, {missing:,} are not in {data.folder} and are computed.", sys.stderr)


def _trials(plan: BenchmarkPlan, study: Study) -> Iterator[Trial]:
    for image in study.data.names:
        for model in study.models:
            for method in study.methods:
                yield plan.trial(study, model, method, image)


def _is_kept(data: FigureData, need: Need, study: Study, trial: Trial, kept: Collection[tuple[Need, str]]) -> bool:
    """True for results that are in the folder: a map of single images, or the numbers of a model."""
    if need.what != "maps":
        return (need, trial.model.text) in kept
    target = data.target(need.target or None)
    digests = [trial.model_digest, trial.method_digest, trial.image_digest]
    return data.map_path(study, trial.model, trial.method, trial.image, target, digests).exists()
