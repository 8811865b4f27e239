"""The plan of a benchmark: studies, and the trials (model x method x image) that they consist of."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from caap_lab.bench.target_rule import TargetRule, check_rule, rule_from_json, rule_in_key, rule_to_json
from caap_lab.digests.hashing import hex_digest
from caap_lab.errors import InputError
from caap_lab.files import atomic_path, has_form
from caap_lab.metrics.catalogue import default_metrics, metric_named, parse_metric
from caap_lab.metrics.metric import Metric, MetricColumn
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.variant import Variant, parse_variant

FORMAT = 2
_READABLE = (1, 2)
"""Format 1 has no identities: its trials are known only by names. They can be read, but no run continues them."""
_FILE_OPTIONS = ("given", "checkpoint", "head")
"""Options of a model whose content is in its identity, wherever the files are."""
_NOT_IN_KEY = (*_FILE_OPTIONS, "compile")
"""Options of a model that are not in the key of its trials: also one that changes results by no more than rounding."""
WHOLE = "folder "
"""Prefix of the hash of a model that is a folder or repository: its name is a place, and the hash covers all of it."""


@dataclass(frozen=True)
class OwnMetric:
    """A registered metric as it was when a plan ran: what is needed to read the results without its code."""

    digest: str
    """Hash of its code, and of the files that its options name."""
    columns: tuple[MetricColumn, ...]
    reads_protocol: bool


@dataclass(frozen=True)
class Identity:
    """The meaning of the names in a plan when it ran, as hashes; see `caap_lab.bench.identity`."""

    models: Mapping[str, str] = field(default_factory=dict)
    """Hashes by the text of the model's spec."""
    methods: Mapping[str, str] = field(default_factory=dict)
    """Hashes by the text of the method's spec; empty for a built-in method that reads no file."""
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Hashes by source, then by the image's name."""
    metrics: Mapping[str, OwnMetric] = field(default_factory=dict)
    """Metrics by text; only those that users registered."""
    by_contrast: tuple[str, ...] = ()
    """Models whose classes are text embeddings, by the text of the spec: by default they explain a class by its
    contrast to the mean of all."""


def merged(identities: Iterable[Identity]) -> Identity:
    """The identities of several plans as one; if they disagree, the later one counts."""
    models: dict[str, str] = {}
    methods: dict[str, str] = {}
    images: dict[str, dict[str, str]] = {}
    metrics: dict[str, OwnMetric] = {}
    by_contrast: dict[str, None] = {}
    for one in identities:
        models.update(one.models)
        methods.update(one.methods)
        metrics.update(one.metrics)
        by_contrast.update(dict.fromkeys(one.by_contrast))
        for source, digests in one.images.items():
            images.setdefault(source, {}).update(digests)
    return Identity(models, methods, images, metrics, tuple(by_contrast))


@dataclass(frozen=True)
class Data:
    """Images of a study in a fixed choice: the same for all models and methods."""

    source: str
    """Text that `cl.open_images` opens."""
    names: tuple[str, ...]
    """Names of the images, in order."""
    chosen: str
    """How they were chosen."""
    label: str = ""
    """Name in tables; by default the source."""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.source)


@dataclass(frozen=True)
class Study:
    """Models x methods on one data set."""

    data: Data
    models: tuple[Variant, ...]
    methods: tuple[Variant, ...]
    metrics: tuple[str, ...] = default_metrics(has_masks=True)
    """Names with options as text: "localisation:tolerance=15"."""
    target: TargetRule = "prediction"
    """Target of maps and curves: the model's "prediction", the image's "label", or a target with these as classes."""
    table: int = 0
    """Number of the paper's table that it belongs to, or 0."""

    def __post_init__(self) -> None:
        names = [parse_variant(metric).name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise InputError(f"The metric {max(names, key=names.count)!r} is given twice; use each only once.")
        check_rule(self.target)
        for what, specs in (("model", self.models), ("method", self.methods)):
            labels = [spec.label for spec in specs]
            if not labels:
                raise InputError(f"A benchmark needs at least one {what}.")
            if len(set(labels)) < len(labels):
                raise InputError(f"Two {what}s are called {max(labels, key=labels.count)!r}.")


@dataclass(frozen=True)
class Trial:
    """One map of one image, and its metrics."""

    model: Variant
    method: Variant
    source: str
    image: str
    metrics: tuple[str, ...]
    target: TargetRule
    protocol: CurveProtocol
    model_digest: str = ""
    method_digest: str = ""
    image_digest: str = ""
    """The identity of the names; empty in plans of format 1, which know trials only by names."""
    own_metrics: Mapping[str, OwnMetric] = field(default_factory=dict)
    """Its metrics that users registered, by text."""
    by_contrast: bool = False
    """True for a model whose classes are text embeddings."""
    stored_map: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """Its map as another trial stored it, see `caap_lab.bench.stored_maps`; None if it has to be made."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Its metrics, without their options."""
        return tuple(parse_variant(text).name for text in self.metrics)

    @property
    def reads_protocol(self) -> bool:
        """True if the curve protocol affects any of its numbers."""
        pairs = zip(self.metrics, self.metric_names, strict=True)
        return any((self.own_metrics.get(text) or metric_named(name)).reads_protocol for text, name in pairs)

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the trial's numbers: see the table in docs/benchmark.md."""
        metrics = {text: parse_variant(text) for text in self.metrics}
        content = {
            **self._map_content,
            "metrics": sorted(metric.name for metric in metrics.values()),
            "protocol": self.protocol.to_dict() if self.reads_protocol else None,
        }
        own = {text: metric.digest for text, metric in self.own_metrics.items()}
        special = {m.name: [m.options, own.get(text, "")] for text, m in metrics.items() if m.options or text in own}
        if special:  # keys of built-in metrics with their default options never had it
            content["metric_options"] = special
        return _hash_of(content)

    @cached_property
    def map_key(self) -> str:
        """Hash of everything that determines its map; empty in plans of format 1, which know no identities."""
        return _hash_of(self._map_content) if self.image_digest else ""

    @property
    def _map_content(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "model": [self.model.name, self.model.options],
            "method": [self.method.name, self.method.options],
            "image": [self.source, self.image],
            "target": rule_in_key(self.target, by_contrast=self.by_contrast),
        }
        if self.image_digest:
            options = {name: value for name, value in self.model.options.items() if name not in _NOT_IN_KEY}
            name = "" if self.model_digest.startswith(WHOLE) else self.model.name
            content["model"] = [name, options, self.model_digest]
            content["method"].append(self.method_digest)
            content["image"] = [self.image, self.image_digest]
        return content


def _hash_of(content: Mapping[str, Any]) -> str:
    return hex_digest(json.dumps(content, sort_keys=True), size=12)


@dataclass(frozen=True)
class BenchmarkPlan:
    """The content of a run folder's plan."""

    studies: tuple[Study, ...]
    protocol: CurveProtocol = field(default_factory=lambda: CurveProtocol("rise"))
    profile: str = ""
    """"demo" or "paper" for the tables of the paper, otherwise empty."""
    notes: tuple[str, ...] = ()
    """Notes for tables about the run, such as what was scaled down."""
    identity: Identity = field(default_factory=Identity)
    """The identity of the names when it last ran; empty before that."""

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All trials without duplicates: by model, then by image, so that any part of them is balanced."""
        by_key: dict[str, Trial] = {}
        for trial in self._trials():
            by_key.setdefault(trial.key, trial)
        models = list(dict.fromkeys(trial.model.text for trial in by_key.values()))
        return tuple(sorted(by_key.values(), key=lambda trial: models.index(trial.model.text)))

    def _trials(self) -> Iterator[Trial]:
        for study in self.studies:
            for image in study.data.names:
                for model in study.models:
                    for method in study.methods:
                        yield self.trial(study, model, method, image)

    def trial(self, study: Study, model: Variant, method: Variant, image: str) -> Trial:
        """A trial of a study."""
        source = study.data.source
        return Trial(
            model,
            method,
            source,
            image,
            study.metrics,
            study.target,
            self.protocol,
            self.identity.models.get(model.text, ""),
            self.identity.methods.get(method.text, ""),
            self.identity.images.get(source, {}).get(image, ""),
            {text: own for text, own in self.identity.metrics.items() if text in study.metrics},
            model.text in self.identity.by_contrast,
        )

    def columns(self, study: Study) -> tuple[MetricColumn, ...]:
        """Columns of a study's metrics, in order; registered metrics as they were when the plan ran."""
        return tuple(column for metric in self._metrics(study) for column in metric.columns)

    def reads_protocol(self, study: Study) -> bool:
        """True if the curve protocol affects any of a study's numbers."""
        return any(metric.reads_protocol for metric in self._metrics(study))

    def _metrics(self, study: Study) -> list[Metric | OwnMetric]:
        own = self.identity.metrics
        return [own[text] if text in own else parse_metric(text)[0] for text in study.metrics]

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        content = {"format": FORMAT, **asdict(self)}
        for study, written in zip(self.studies, content["studies"], strict=True):
            written["target"] = rule_to_json(study.target)
        for entry in ("metrics", "by_contrast"):  # earlier versions read no such entries
            if not content["identity"][entry]:
                del content["identity"][entry]
        with atomic_path(path) as part:
            part.write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "BenchmarkPlan":
        """Read a file written by `save`.

        Raises:
            InputError: the file is missing or not a plan of this version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path.parent} is not a benchmark's folder: its plan.json cannot be read ({error})."
            ) from None
        if not isinstance(content, dict) or content.get("format") not in _READABLE:
            raise InputError(f"{path} was written by another version of caap_lab.")
        try:
            return _from_json(content)
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            what = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            raise InputError(
                f"{path} is not a plan of a benchmark ({what}). Run the benchmark again with the same arguments and "
                "the same folder: it writes a new plan and keeps the finished trials."
            ) from None


_SPEC = {"name": str, "options": dict, "label": str}
_FORM = {
    "studies": [
        {
            "data": {"source": str, "names": [str], "chosen": str, "label": str},
            "models": [_SPEC],
            "methods": [_SPEC],
            "metrics": [str],
            "target": (str, dict),
            "table": int,
        }
    ],
    "protocol": dict,
    "profile": str,
    "notes": [str],
}
"""Entries of plan.json, in all formats."""


def _from_json(content: dict[str, Any]) -> BenchmarkPlan:
    if not has_form(content, _FORM):
        raise InputError("something in it is missing or of the wrong kind")
    studies = tuple(
        Study(
            Data(**{**study["data"], "names": tuple(study["data"]["names"])}),
            _specs(study["models"]),
            _specs(study["methods"]),
            tuple(study["metrics"]),
            rule_from_json(study["target"]),
            study["table"],
        )
        for study in content["studies"]
    )
    step = content["protocol"]["step"]
    protocol = CurveProtocol(**{**content["protocol"], "step": tuple(step) if isinstance(step, list) else step})
    profile, notes = content["profile"], content["notes"]
    if not isinstance(profile, str) or not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("profile and notes are no text")
    if profile == "demo":
        studies = tuple(map(_by_own_names, studies))
    plan = BenchmarkPlan(studies, protocol, profile, tuple(notes), _identity(content.get("identity", {})))
    for text in {text for study in studies for text in study.metrics} - set(plan.identity.metrics):
        parse_metric(text)
    plan.trials  # noqa: B018  # keys that cannot be made are a fault of the file
    return plan


def _by_own_names(study: Study) -> Study:
    """A study of the demo profile with its own names: earlier versions wrote those of the paper."""
    models = tuple(replace(model, label=model.text) for model in study.models)
    return replace(study, data=replace(study.data, label=study.data.source), models=models)


_OWN_METRICS = {
    str: {
        "digest": str,
        "columns": [{"name": str, "label": str, "title": str, "better": str, "unit": str, "digits": int}],
        "reads_protocol": bool,
    }
}
"""Entries of an identity's "metrics"."""


def _identity(content: dict[str, Any]) -> Identity:
    metrics, by_contrast = content.get("metrics", {}), content.get("by_contrast", [])
    if not has_form(metrics, _OWN_METRICS) or not has_form(by_contrast, [str]):
        raise InputError("its metrics or models are not as they were written")
    own = {
        text: OwnMetric(**{**one, "columns": tuple(MetricColumn(**column) for column in one["columns"])})
        for text, one in metrics.items()
    }
    return Identity(**{**content, "metrics": own, "by_contrast": tuple(by_contrast)})


def _specs(rows: Sequence[dict[str, Any]]) -> tuple[Variant, ...]:
    return tuple(Variant(**row) for row in rows)
