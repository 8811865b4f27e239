"""Checks of one model before the first trial: its weights, memory, methods and classes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from caap_lab.attribution.registry import RUN_OPTIONS, find_method
from caap_lab.bench.pairing import label_of, with_model_classes
from caap_lab.bench.paper.classes import class_problem
from caap_lab.bench.plan import Study
from caap_lab.bench.target_rule import OwnTarget, fixed_classes, has_probability, reads_label
from caap_lab.bench.trial import GB, forget_failures, forget_unused, model_of, seen_masks
from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import parse_metric
from caap_lab.metrics.localisation import LOCALISATION, refuse_one_sided
from caap_lab.models.base import HookedModel
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.running import running
from caap_lab.variant import Variant

_SHOWN = 5
"""Number of images that a sentence names."""


@dataclass(frozen=True)
class Problem:
    """A problem of a run, or of a part of it."""

    part: str
    """Name of the model or data set in tables, or another part of the run."""
    text: str
    """The problem, in sentences."""
    stops: bool = True
    """False if the rest of the run can continue without it."""


@dataclass(frozen=True)
class Use:
    """The use of a model on one data set in a run."""

    study: Study
    images: ImageSet
    """The study's images that can be read."""
    paper: bool = False
    """True in the paper's own profile, where the model must have the classes of the data set."""

    @property
    def localised(self) -> bool:
        """True if maps are compared with masks."""
        return any(parse_metric(text)[0].name == LOCALISATION.name for text in self.study.metrics)

    @property
    def reads(self) -> tuple[object, ...]:
        """What is read from its images, in addition to the pixels."""
        study = self.study
        return study.data.source, study.data.names, self.localised, reads_label(study.target)


def model_problems(
    spec: Variant,
    uses: Sequence[Use] = (),
    device: str = "cpu",
    batch_size: int = 1,
    model: HookedModel | None = None,
) -> list[Problem]:
    """Problems of a model: it is loaded, runs one image, and is checked for everything that the run needs.

    Args:
        spec: The model.
        uses: Its uses in the run.
        device: Its device.
        batch_size: Changed images run at once for the curves; tried on GPUs, whose memory is fixed.
        model: The model itself, if it was given as an object.
    """
    forget_failures()  # of an earlier run: the file or the free memory may have changed
    try:
        if model is None:
            model = model_of(spec.text, device)
            _check_logits(model, batch_size if _reads_changed_images(uses) else 1)
    except Exception as error:  # reported in a sentence, whatever the error
        return [Problem(spec.label, _sentence(error, str(spec.options.get("device", device))))]
    methods = {method.text: method for use in uses for method in use.study.methods}
    found = dict.fromkeys(Problem(spec.label, text) for text in _method_problems(model, methods.values()))
    looked: set[object] = set()
    for use in uses:
        found |= dict.fromkeys(Problem(spec.label, text) for text in _class_problems(model, use))
        if not found and use.reads not in looked:  # tables share their images
            looked.add(use.reads)
            found |= dict.fromkeys(Problem(spec.label, text, stops) for text, stops in _image_problems(model, use))
    return list(found)


# --- memory ---


def _check_logits(model: HookedModel, batch_size: int) -> None:
    """Run one image and, on a GPU, as many as curves run at once.

    Raises:
        InputError: logits are not finite or all equal, or that many images do not fit into memory.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    noise = torch.randn(1, 3, *model.image_size, generator=generator, dtype=torch.float32, device="cpu")
    image = noise.to(model.device, model.dtype)
    logits = _run(model, image)
    if not all_finite(logits):
        raise InputError(
            f"Its logits are NaN or infinite for an image of noise, in {str(model.dtype).removeprefix('torch.')} on "
            f"{model.device}. The weights may be damaged, or need another dtype=, such as float32."
        )
    if logits.shape[-1] > 1 and bool((logits == logits[..., :1]).all()):
        raise InputError(
            "All its classes have the same logit for an image of noise, so that it predicts nothing: its classifier is "
            "not trained, or not in the weights file."
        )
    if model.device.type == "cpu":
        return
    fits = how_many_fit(batch_size, lambda count: _run(model, image.expand(count, -1, -1, -1)))
    if fits < batch_size:
        raise InputError(
            f"{batch_size} images at once do not fit into the memory of {model.device}, but {fits} do: run it with "
            f"batch_size={fits} (--batch-size {fits}), which changes no result beyond rounding."
        )


def how_many_fit(batch_size: int, run: Callable[[int], object]) -> int:
    """Number of images that fit into memory: `batch_size`, halved until they fit; one is known to fit."""
    while batch_size > 1:
        try:
            run(batch_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            break
        forget_unused()
        batch_size //= 2
    return batch_size


def _run(model: HookedModel, images: Tensor) -> Tensor:
    with running(model), torch.no_grad():
        logits: Tensor = model(images)
    return logits


def is_out_of_memory(error: BaseException) -> bool:
    """True if a device or this machine has too little memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _sentence(error: Exception, device: str) -> str:
    """The error of a model as a sentence."""
    if is_out_of_memory(error):
        room = ""
        if device.startswith("cuda"):
            free, whole = torch.cuda.mem_get_info(device)
            room = f" ({free / GB:.1f} of {whole / GB:.1f} GB are free)"
        return (
            f"It cannot run even one image: it needs more memory than {device} has{room}. Omit it, use another "
            "device, or dtype=bfloat16."
        )
    return str(error) if isinstance(error, InputError) else f"It cannot run ({type(error).__name__}: {error})."


def _reads_changed_images(uses: Sequence[Use]) -> bool:
    return any(not parse_metric(text)[0].needs_masks for use in uses for text in use.study.metrics)


# --- methods and classes ---


def _method_problems(model: HookedModel, methods: Iterable[Variant]) -> Iterator[str]:
    """Methods that do not support this kind of model, or whose options do not fit it, as far as they can tell."""
    for variant in methods:
        try:
            options = {name: value for name, value in variant.options.items() if name not in RUN_OPTIONS}
            find_method(variant.name).job(options, model)
        except InputError as error:
            text = str(error)
            yield text if variant.label in text else f"{variant.label}: {text}"


def _class_problems(model: HookedModel, use: Use) -> Iterator[str]:
    """Classes of the data set or of the target that the model does not have."""
    target = use.study.target
    try:
        if has_probability(target) and not isinstance(target, OwnTarget):
            model.target(0)  # raises InputError without a classifier
        for name in fixed_classes(target):
            model.target(name)
    except InputError as error:
        yield str(error)
        return
    if use.paper:
        problem = class_problem(use.study.data.label, use.images, model, by_label=reads_label(target))
        if problem:
            yield problem


# --- images as the model sees them ---


def _image_problems(model: HookedModel, use: Use) -> Iterator[tuple[str, bool]]:
    """Images without a label or mask that the run needs, and whether no image is left; a few fail in their trials."""
    wanted: dict[str, str] = {}
    labelled = reads_label(use.study.target)
    for sample in use.images if use.localised or labelled else ():
        try:
            label = label_of(sample, use.images, model) if labelled else None
            if use.localised:
                _check_mask(model, with_model_classes(sample, use.images, model), label)
        except InputError as error:
            wanted[sample.name] = str(error)
    if wanted:
        yield images_text(wanted, len(use.images)), len(wanted) == len(use.images)


def _check_mask(model: HookedModel, sample: Sample, label: int | None) -> None:
    inside, ignored, _ = seen_masks(model, sample.regions, label)
    refuse_one_sided(inside if ignored is None else inside[~np.asarray(ignored)])


def images_text(problems: dict[str, str], total: int) -> str:
    """The images that cannot be used and the reasons, one per line."""
    shown = list(problems.items())[:_SHOWN]
    lines = [f"{name}: {text}" if name not in text else text for name, text in shown]
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "\n    ".join([f"{len(problems)} of {total} images cannot be used:", *lines, *more])
