"""The parts that the paper profile needs on a machine: weights, heads, classifiers and data sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timm.models import get_pretrained_cfg
from torch import nn

from caap_lab.attribution.cost import ModelSize
from caap_lab.bench.check import check_options, known_architecture
from caap_lab.bench.identity import Unreadable, identified
from caap_lab.bench.paper.images import chosen_images, drawn, due, few_images
from caap_lab.bench.paper.parts import DATASETS, HEADS, MODELS, OWN_CLASSES
from caap_lab.bench.paper.profiles import gathered, make_classifier, needs_head
from caap_lab.bench.paper.settings import PaperSettings, split_model
from caap_lab.bench.plan import BenchmarkPlan, Study
from caap_lab.bench.ready import Running, plan_problems
from caap_lab.bench.ready_model import Problem, images_text, model_problems
from caap_lab.bench.trial import forget_models
from caap_lab.data.check_images import image_problems
from caap_lab.data.open import KINDS, open_images
from caap_lab.errors import InputError
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.models.checkpoint import check_file
from caap_lab.models.heads import read_head
from caap_lab.models.hub import cached_weights
from caap_lab.models.hugging_face.folder import HUB, is_here, names_folder
from caap_lab.models.load import bundled_models
from caap_lab.variant import Variant

NOT_CACHED = "is not in the Hugging Face cache"


@dataclass(frozen=True)
class Part:
    """Weights, a head file, a classifier or a data set."""

    name: str
    """The paper's name of the model or data set; "DATASET/MODEL" for a model used on one data set only."""
    here: bool
    """True if a run can use it."""
    report: str
    """Its location, or what is wrong and how to get it."""
    images: int | None = None
    """Number of images of a data set that is available."""
    unfit: bool = False
    """True if it exists but cannot be used."""


@dataclass(frozen=True)
class Checking:
    """How thoroughly parts are checked, and on which device models are tried."""

    device: str = "cpu"
    batch_size: int = 1
    quick: bool = False
    """True to check that files exist without opening all of them."""
    progress: bool = False
    """Show progress bars."""


def used_models(settings: PaperSettings) -> dict[str, Variant | None]:
    """Models of the chosen tables in the paper's order; None for a classifier that has not been trained yet."""
    found: dict[str, Variant | None] = {}
    for table in settings.wanted:
        for dataset in settings.datasets(table):
            for name in settings.model_names(table, dataset):
                found.setdefault(part_name(settings, dataset, name), settings.model(dataset, name))
    order = list(MODELS)
    return dict(sorted(found.items(), key=lambda item: (order.index(split_model(item[0])[1]), "/" in item[0])))


def part_name(settings: PaperSettings, dataset: str, model: str) -> str:
    """Name of a table's model among the parts: models used on one data set only are prefixed with its name."""
    own = f"{dataset}/{model}"
    return own if dataset in OWN_CLASSES or own in settings.models else model


Built = dict[str, tuple[nn.Module, ModelSize]]
"""Models without weights and their sizes, by the text of the spec: building a large one takes a second."""


def model_part(settings: PaperSettings, name: str, spec: Variant | None, built: Built) -> Part:
    """Whether a run finds a model without a network; weights are not read.

    Args:
        settings: Settings of the run.
        name: Name of the part.
        spec: The model; None if it has not been trained yet.
        built: The model is added here if it can be built.
    """
    if spec is None:
        dataset, model = split_model(name)
        return Part(name, False, f'{make_classifier(settings, dataset, model)} trains it; --models "{name}=FOLDER"')
    try:
        if names_folder(spec.name) and not is_here(spec.name):  # its config.json specifies the architecture
            raise InputError(f"{spec.name} {NOT_CACHED}")
        check_options(spec)
        if spec.text not in built:
            options = {name: value for name, value in spec.options.items() if name != "head"}  # a part of its own
            built[spec.text] = known_architecture(replace(spec, options=options))
        return Part(name, True, _place(spec))
    except InputError as error:
        return Part(name, False, str(error))


def head_part(name: str, spec: Variant, built: Built) -> Part | None:
    """Whether a model's head file can be read and fits; None for a model that needs no head or is unknown."""
    path, model = spec.options.get("head"), split_model(name)[1]
    if path is None:
        return Part(name, False, f"--head {name}=PATH, the file {HEADS[model]}") if needs_head(model, spec) else None
    if spec.text not in built:
        return None
    body, size = built[spec.text]
    if size.kind == "cnn":
        return Part(name, False, f"{spec.name} is a CNN and keeps its own head; heads are for Vision Transformers.")
    try:
        read_head(path, body)  # an ordinary head is loaded into it
    except InputError as error:
        return Part(name, False, str(error), unfit=Path(str(path)).is_file())
    return Part(name, True, f"in {path}")


def data_part(settings: PaperSettings, name: str, how: Checking) -> Part:
    """Whether the images that a run uses from a data set exist and can be read."""
    kind, source = DATASETS[name], settings.data.get(name)
    if source is None:
        return Part(name, False, f"--data {kind}:PATH, from {KINDS[kind].home}")
    try:
        images = chosen_images(settings, name)
    except InputError as error:
        return Part(name, False, str(error))
    few = few_images(settings, name, len(images))
    if few:
        return Part(name, False, few, len(images), unfit=True)
    used = drawn(settings, name, images, max(due(settings, name)))
    used = used[:1] if how.quick else used  # opening a data set reads no photos, so missing ones would not be noticed
    problems = image_problems(used, how.progress)
    if problems:
        return Part(name, False, images_text(problems, len(used)), len(images), unfit=True)
    masks = "with masks" if images.has_masks else "without masks"
    return Part(name, True, f"{len(images)} images {masks} in {source.partition(':')[2]}", len(images))


def opened(settings: PaperSettings, models: Mapping[str, Variant], data: set[str], how: Checking) -> dict[str, str]:
    """Problems of models whose files exist, by the part's name, found by the check that a run makes before it starts.

    Args:
        settings: Settings of the run.
        models: Models whose files exist, by the part's name.
        data: Names of the data sets that can be read.
        how: How thoroughly to check, and on which device.
    """
    studies = []
    for study in gathered(settings)[0]:
        label = study.data.label
        named = [replace(model, label=part_name(settings, label, model.label)) for model in study.models]
        here = tuple(model for model in named if model.label in models)
        if label in data and here:
            studies.append(replace(study, models=here))
    found = _in_plan(studies, settings, how)
    planned = {spec.text for study in studies for spec in study.models}
    for text, name in {spec.text: name for name, spec in models.items()}.items():
        if text not in planned:
            found += [replace(problem, part=name) for problem in model_problems(models[name], (), how.device)]
            forget_models()
    texts: dict[str, dict[str, None]] = {}
    for problem in (problem for problem in found if problem.stops):
        own = models.get(problem.part)  # the same weights under several names are tried once
        same = [name for name, spec in models.items() if own is not None and spec.text == own.text]
        for part in same or [problem.part]:
            texts.setdefault(part, {})[problem.text] = None
    return {part: " ".join(sentences) for part, sentences in texts.items()}


def _in_plan(studies: Sequence[Study], settings: PaperSettings, how: Checking) -> list[Problem]:
    """The problems that would stop a run of these studies."""
    if not studies:
        return []
    images = {study.data.source: open_images(study.data.source) for study in studies}
    unreadable = Unreadable()
    plan = BenchmarkPlan(tuple(studies), curve_protocol(settings.protocol), "paper")
    plan = identified(plan, {}, images, how.progress, unreadable)
    running = Running({}, images, how.device, how.batch_size, here=True, progress=how.progress)
    found = plan_problems(plan, plan.trials, unreadable, running)
    forget_models()
    return found


def _place(spec: Variant) -> str:
    """The location of a model's weights.

    Raises:
        InputError: they are not available.
    """
    checkpoint = spec.options.get("checkpoint")
    if checkpoint is not None:
        try:
            check_file(Path(str(checkpoint)))
        except InputError as error:
            raise InputError(f"{spec.name}: {error}") from None
        return f"{spec.name} in {checkpoint}"
    if spec.name in bundled_models():
        return f"{spec.name} comes with caap_lab"
    if names_folder(spec.name):
        return f"{spec.name} is {'in the Hugging Face cache' if spec.name.startswith(HUB) else 'a folder'}"
    config = get_pretrained_cfg(spec.name)
    if config is None or not config.hf_hub_id:
        raise InputError(f"{spec.name}: timm has no weights for it")
    if cached_weights(config.hf_hub_id, config.hf_hub_filename) is None:
        raise InputError(f"{config.hf_hub_id} {NOT_CACHED}")
    return f"{config.hf_hub_id} is in the Hugging Face cache"
