"""The identity of the names in a plan, as hashes: weights, code of own methods and metrics, images with their masks.

Trials are stored under these, so that a number belongs to exactly what produced it: see the table in docs/benchmark.md.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from timm.models import get_pretrained_cfg
from tqdm.auto import tqdm

from caap_lab.attribution.registry import method_digest
from caap_lab.bench.plan import WHOLE, BenchmarkPlan, Identity, OwnMetric
from caap_lab.data.check_images import image_problems
from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.digests.hashing import file_digest, hex_digest, pieces_digest
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import metric_digest, parse_metric
from caap_lab.models.base import HookedModel
from caap_lab.models.checkpoint import read_state_dict
from caap_lab.models.explained import by_contrast
from caap_lab.models.hub import fetch_weights
from caap_lab.models.hugging_face.folder import names_folder, open_folder
from caap_lab.models.load import BUNDLED, bundled_models, check_name
from caap_lab.variant import Variant

WEIGHTS_FILES = ("checkpoint", "head")
"""Options of a model that name a file of weights."""
_CALLED = {"head": "head file"}
_FIRST_COMMAND = {
    b"python -m caap_lab.training.train ": b"python -m caap_lab.data.train ",
    b" --out caap_lab/models/weights": b" --out caap_lab/weights",
}
"""Changes in the command on the bundled models' cards since hashes were first computed."""


@dataclass(frozen=True)
class Unreadable:
    """Models and images of a plan that cannot be read, with the reasons."""

    models: dict[str, str] = field(default_factory=dict)
    """Reasons by the text of the model's spec."""
    images: dict[str, dict[str, str]] = field(default_factory=dict)
    """Reasons by source, then by the image's name."""


def identified(
    plan: BenchmarkPlan,
    models: Mapping[str, HookedModel],
    images: Mapping[str, ImageSet],
    progress: bool = True,
    unreadable: Unreadable | None = None,
) -> BenchmarkPlan:
    """The plan with the current identity of all its names.

    Args:
        plan: The plan to compute.
        models: Models given as objects, by the text of their spec.
        images: Open data sets, by source.
        progress: Show a progress bar while images are read.
        unreadable: Receives models and images that cannot be read. Without it, such a model raises an error.

    Raises:
        InputError: a model, a weights file, a method or a metric does not exist.
    """
    told = Unreadable() if unreadable is None else unreadable
    methods = {spec.text: spec for study in plan.studies for spec in study.methods}
    digests: dict[str, str] = {}
    texts = []
    for text, spec in {spec.text: spec for study in plan.studies for spec in study.models}.items():
        try:
            digests[text] = model_digest(models[text]) if text in models else weights_digest(spec)
        except InputError as error:
            if unreadable is None:
                raise
            digests[text] = ""
            told.models[text] = str(error)
        if text not in told.models and _explains_contrasts(spec, models.get(text)):
            texts.append(text)
    return replace(
        plan,
        identity=Identity(
            digests,
            {text: spec_digest(spec) for text, spec in methods.items()},
            _image_digests(plan, images, told, progress),
            own_metrics(text for study in plan.studies for text in study.metrics),
            tuple(texts),
        ),
    )


def model_digest(model: HookedModel) -> str:
    """Hash of a model in memory: architecture and weights, preprocessing, names of its classes, and its choices."""
    facts = [model.fingerprint, asdict(model.preprocessing), list(model.class_names.names)]
    facts += [model.choices] if model.choices else []
    return pieces_digest([json.dumps(facts, sort_keys=True, default=str)])


def weights_digest(spec: Variant) -> str:
    """Hash of the files of a model by name, with the prefix `WHOLE` if the name is the folder of all of them.

    Raises:
        InputError: there is no such model, or a file is missing.
    """
    digest = pieces_digest(
        f"{role} {_card_digest(path) if role == 'card' else _file_digest(path, _CALLED.get(role, 'weights file'))}"
        for role, path in weights_files(spec)
    )
    return f"{WHOLE}{digest}" if names_folder(spec.name) else digest


def _explains_contrasts(spec: Variant, model: HookedModel | None) -> bool:
    """True if the model's classes are text embeddings, several of them; see `caap_lab.models.explained.by_contrast`."""
    return by_contrast(model) if model is not None else classes_are_texts(spec)


def classes_are_texts(spec: Variant) -> bool:
    """True if a model by name has a head file with text embeddings as classes."""
    if spec.options.get("head") is None:
        return False
    try:
        texts = read_state_dict(str(spec.options["head"])).get("text_embeddings")
    except InputError:  # each trial fails with this error later
        return False
    return texts is not None and len(texts) > 1


def weights_files(spec: Variant) -> list[tuple[str, Path]]:
    """Files of a model by name, by their role.

    Raises:
        InputError: there is no such model, or weights are missing.
    """
    check_name(spec.name)
    files = [(role, Path(str(spec.options[role]))) for role in WEIGHTS_FILES if spec.options.get(role) is not None]
    if spec.name in bundled_models():
        card = BUNDLED / f"{spec.name}.json"
        weights = json.loads(card.read_text(encoding="utf-8"))["weights"]
        return [*files, ("card", card), ("weights", BUNDLED / weights)]
    if names_folder(spec.name):
        return [*files, *((path.name, path) for path in open_folder(spec.name).files)]
    if "checkpoint" not in spec.options:
        config = get_pretrained_cfg(spec.name)
        if config is None or not config.hf_hub_id:
            raise InputError(f"timm has no weights for {spec.name}; use a local file: {spec.name}:checkpoint=PATH.")
        files.append(("hub", fetch_weights(spec.name, config.hf_hub_id, config.hf_hub_filename)))
    return files


def spec_digest(spec: Variant) -> str:
    """Hash of an own method's code and of the files that its options name; empty if there are neither."""
    code, files = method_digest(spec.name, spec.options), _option_files(spec)
    return pieces_digest([code, *files]) if code or files else ""


def own_metrics(texts: Iterable[str]) -> dict[str, OwnMetric]:
    """The metrics that users registered, by text, in their current form.

    Raises:
        InputError: a metric does not exist, has no such option, or depends on an object that cannot be hashed.
    """
    own: dict[str, OwnMetric] = {}
    for text in dict.fromkeys(texts):
        metric, variant = parse_metric(text)
        code = metric_digest(metric.name)
        if code:
            digest = pieces_digest([code, *_option_files(variant)])
            own[text] = OwnMetric(digest, metric.columns, metric.reads_protocol)
    return own


def _option_files(spec: Variant) -> list[str]:
    """Options that name a file, with the hash of the file."""
    return [
        f"{option} {_file_digest(Path(value), 'file')}"
        for option, value in sorted(spec.options.items())
        if isinstance(value, str) and _is_file(value)
    ]


def _image_digests(
    plan: BenchmarkPlan, images: Mapping[str, ImageSet], told: Unreadable, progress: bool
) -> dict[str, dict[str, str]]:
    """Hashes of the plan's images, by source and name; reasons why one cannot be read are added to `told`."""
    names: dict[str, dict[str, None]] = {}
    for study in plan.studies:
        names.setdefault(study.data.source, {}).update(dict.fromkeys(study.data.names))
    digests: dict[str, dict[str, str]] = {source: {} for source in names}
    with tqdm(total=sum(map(len, names.values())), desc="Reading images", leave=False, disable=not progress) as bar:
        for source, chosen in names.items():
            for name in chosen:
                digests[source][name], problem = _read(images[source], name)
                if problem:
                    told.images.setdefault(source, {})[name] = problem
                bar.update()
    return digests


def _read(images: ImageSet, name: str) -> tuple[str, str]:
    """An image's hash, and the reason why it cannot be read; a readable image is read only once."""
    try:
        one = replace(images, samples=(held(images.named(name)),))
    except Exception:  # told below, as reading it for the hash says it
        one = images
    try:
        digest = one.digest_of(name)
    except Exception as error:  # the trial fails with this error later, if the run continues
        return pieces_digest([f"unreadable {error}"]), str(error) or type(error).__name__
    return digest, image_problems(one.only([name]), progress=False).get(name, "")


def held(sample: Sample) -> Sample:
    """The sample with its photo and masks in memory.

    Raises:
        InputError: it cannot be read.
    """
    photo = sample.image
    photo.load()
    kept = replace(sample, read_image=photo.copy)
    if sample.read_regions is None:
        return kept
    regions = sample.regions
    return replace(kept, read_regions=lambda: regions)


def _card_digest(card: Path) -> str:
    """Hash of a bundled model's card with its original command, so that results stored under it are found again."""
    content = card.read_bytes()
    for now, first in _FIRST_COMMAND.items():
        content = content.replace(now, first)
    return hex_digest(content, size=64)


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError):  # for example too long for a name
        return False


def _file_digest(path: Path, called: str) -> str:
    path = path.expanduser()
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"The {called} {path} cannot be read ({error.strerror}).") from None
