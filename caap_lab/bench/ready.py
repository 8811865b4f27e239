"""Checks before a run's first trial: all that it needs is opened and tried, so that errors do not occur days later."""

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from caap_lab.bench.identity import Unreadable
from caap_lab.bench.plan import BenchmarkPlan, Trial
from caap_lab.bench.ready_model import Problem, Use, images_text, model_problems
from caap_lab.bench.target_rule import rule_text
from caap_lab.bench.trial import forget_models
from caap_lab.data.image_set import ImageSet
from caap_lab.digests.hashing import hex_digest
from caap_lab.errors import InputError
from caap_lab.files import folder_problem
from caap_lab.labels import counted
from caap_lab.models.base import HookedModel
from caap_lab.variant import Variant

_ROW_BYTES = 1000
"""Minimum bytes of a trial's row in a compacted part: its map and its names."""
_seen_ready: set[str] = set()
"""Hashes of models and their uses that were tried without problems; this process does not try them again."""


@dataclass(frozen=True)
class Running:
    """Settings of a run that do not affect its numbers."""

    models: Mapping[str, HookedModel]
    """Models given as objects, by the text of their spec."""
    images: Mapping[str, ImageSet]
    """Open data sets, by source."""
    device: str
    """Device of the models."""
    batch_size: int
    """Changed images run at once for the curves."""
    here: bool
    """True if this process computes; otherwise models are tried on the CPU, because workers may have other devices."""
    progress: bool
    """Show a progress bar."""


def check_ready(
    plan: BenchmarkPlan, waiting: Sequence[Trial], folder: Path, unreadable: Unreadable, running: Running
) -> None:
    """Raise InputError, with all reasons, if the run is known to fail; print problems of single images.

    Args:
        plan: The plan of the run, with the identity of its names.
        waiting: Its trials that have to be computed; only what they need is checked.
        folder: The folder of the run.
        unreadable: What could not be read for the identity.
        running: Settings of the run.

    Raises:
        InputError: the message explains what is wrong, and what to do.
    """
    if not waiting:
        return
    problems = [*folder_problems(folder, len(waiting)), *plan_problems(plan, waiting, unreadable, running)]
    stopping = [problem for problem in problems if problem.stops]
    if stopping:
        raise InputError(refusal(stopping, plan.profile == "paper"))
    for problem in problems:
        tqdm.write(f"{problem.part}: {problem.text}\n  Their trials will fail, and the rest goes on.", sys.stderr)


def plan_problems(
    plan: BenchmarkPlan, waiting: Sequence[Trial], unreadable: Unreadable, running: Running
) -> list[Problem]:
    """Problems of trials: images that cannot be read, and models that cannot do what the run needs.

    The arguments are those of `check_ready`.
    """
    problems = _image_problems(plan, waiting, unreadable)
    return [*problems, *_model_problems(plan, waiting, unreadable, running)]


def refusal(problems: Sequence[Problem], paper: bool = False) -> str:
    """The problems of a run as one text, one part per problem, with what to do."""
    lines = [f"{problem.part}: {problem.text}" for problem in problems]
    way_out = ["--without NAME leaves a model, method or data set of the profile out."] if paper else []
    if len(lines) == 1 and not way_out:
        return lines[0]
    return "\n".join(
        [
            f"Nothing was computed, as {_things(len(lines))} in the way:",
            *("  " + x.replace("\n", "\n  ") for x in lines),
            *way_out,
        ]
    )


def _things(count: int) -> str:
    return "one thing stands" if count == 1 else f"{count} things stand"


# --- the folder ---


def folder_problems(folder: Path, trials: int) -> list[Problem]:
    """Problems of writing the run's folder: it is not writable, or there is too little free space.

    Args:
        folder: The folder of the run; it need not exist.
        trials: Number of trials to compute.
    """
    problem = folder_problem(folder)
    if problem:
        return [Problem(str(folder), problem)]
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    needed, free = trials * _ROW_BYTES, shutil.disk_usage(place).free
    if needed > free:
        return [
            Problem(
                str(folder),
                f"{trials:,} trials need about {needed / 1e9:.2g} GB there, and {free / 1e9:.2g} GB are free. Make "
                "room, or choose another place with out=... (--out).",
            )
        ]
    return []


# --- images ---


def count_problem(dataset: str, there: int, due: Iterable[int]) -> str:
    """A sentence if a data set has fewer images than required; otherwise empty.

    Args:
        dataset: The name in the paper.
        there: Number of its images.
        due: Numbers of images that tables require.
    """
    more = sorted({count for count in due if count > there}, reverse=True)
    if not more:
        return ""
    images = counted(there, "image")
    wanted = " and ".join(filter(None, [", ".join(map(str, more[:-1])), str(more[-1])]))
    return f"{dataset} has {images}, and {wanted} are due: --images {there} if that is meant."


def _image_problems(plan: BenchmarkPlan, waiting: Iterable[Trial], unreadable: Unreadable) -> list[Problem]:
    """Photos and masks that cannot be read; a profile of the paper, whose numbers are compared, does not run then."""
    used: dict[str, dict[str, None]] = {}
    for trial in waiting:
        used.setdefault(trial.source, {})[trial.image] = None
    labels = {study.data.source: study.data.label for study in reversed(plan.studies)}
    problems = []
    for source, names in used.items():
        found = {name: text for name, text in unreadable.images.get(source, {}).items() if name in names}
        if found:
            text = images_text(found, len(names))
            if plan.profile:
                text += f'\n    Mend them, or give a list of others: --image-list "{labels[source]}=FILE".'
            problems.append(Problem(labels[source], text, stops=bool(plan.profile)))
    return problems


# --- models ---


def _model_problems(
    plan: BenchmarkPlan, waiting: Sequence[Trial], unreadable: Unreadable, running: Running
) -> list[Problem]:
    """Problems of the models of waiting trials, tried in turn; the first model is last, so that it is cached."""
    specs = _named(plan, {trial.model.text: trial.model for trial in waiting})
    problems = [Problem(specs[text].label, sentence) for text, sentence in unreadable.models.items() if text in specs]
    all_uses = _uses(plan, unreadable, running)
    uses = {
        text: [use for use in all_uses if any(spec.text == text for spec in use.study.models)]
        for text in specs
        if text not in unreadable.models
    }
    tried = {text: _what(plan, specs[text], uses[text], running) for text in uses}
    untried = [text for text in uses if text in running.models or tried[text] not in _seen_ready]
    for text in tqdm(
        [*untried[1:], *untried[:1]], desc="Checking models", unit="model", leave=False, disable=not running.progress
    ):
        spec = specs[text]
        if running.here:
            found = model_problems(spec, uses[text], running.device, running.batch_size, running.models.get(text))
        else:
            found = model_problems(_on_cpu(spec), uses[text])
        if not found:
            _seen_ready.add(tried[text])
        problems += found
    if not running.here:
        forget_models()  # to free memory for workers
    return problems


def _named(plan: BenchmarkPlan, specs: Mapping[str, Variant]) -> dict[str, Variant]:
    """Models by unique names: a data set may have a model of its own, "Oxford-IIIT-Pet/ViT-B/16"."""
    shared = Counter(spec.label for spec in specs.values())
    first = {spec.text: study.data.label for study in reversed(plan.studies) for spec in study.models}
    return {
        text: replace(spec, label=f"{first[text]}/{spec.label}") if shared[spec.label] > 1 else spec
        for text, spec in specs.items()
    }


def _on_cpu(spec: Variant) -> Variant:
    """A model as it is tried for workers, whose devices and formats may not be available on this machine."""
    return replace(
        spec, options={name: value for name, value in spec.options.items() if name not in ("device", "dtype")}
    )


def _uses(plan: BenchmarkPlan, unreadable: Unreadable, running: Running) -> list[Use]:
    """The uses of models in the plan, on the images that can be read."""
    uses = []
    for study in plan.studies:
        bad = unreadable.images.get(study.data.source, {})
        names = [name for name in study.data.names if name not in bad]
        if names:
            uses.append(Use(study, running.images[study.data.source].only(names), plan.profile == "paper"))
    return uses


def _what(plan: BenchmarkPlan, spec: Variant, uses: Sequence[Use], running: Running) -> str:
    """Hash of a model's weights and of everything that a run needs from it."""
    content = [spec.text, running.device, running.batch_size, running.here, plan.identity.models[spec.text]]
    for use in uses:
        study = use.study
        methods = [(one.text, plan.identity.methods.get(one.text)) for one in study.methods]
        images = [plan.identity.images[study.data.source][sample.name] for sample in use.images]
        content += [study.data.label, methods, study.metrics, rule_text(study.target), use.paper, images]
    return hex_digest(repr(content), size=16)
