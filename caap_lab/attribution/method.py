"""What an attribution method is, and how one is run on any number of images."""

import hashlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.attribution.cost import BACKWARD, ModelSize, Passes
from caap_lab.attribution.map import SIGNS, AttributionMap, Sign
from caap_lab.checks import check_choice, check_count
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images, check_kind
from caap_lab.models.batches import batches, check_images, is_single
from caap_lab.models.names import nearest
from caap_lab.models.probability import resolved_probability
from caap_lab.models.running import check_gradients, runs_model

Compute = Callable[..., Tensor]
"""(model, images [batch, 3, height, width], targets [batch], **options) -> scores [batch, row, col].

Rows and columns are the model's grid, or others where the method says so. Images are preprocessed, on the model's
device and in its format. Scores of one image must not depend on the others.
"""


@dataclass(frozen=True)
class Method:
    """An attribution method and what a user wants to know before choosing it."""

    name: str
    family: str
    """What it is made of: gradient, attention, relevance, masking or activation patching."""
    source: str
    """Paper, with its arXiv number or venue."""
    needs: str
    """What it reads: "forward passes", "gradient", "attention", or several of these."""
    forwards: Passes
    """Forward passes of one map."""
    backwards: Passes
    """Backward passes of one map."""
    class_specific: bool
    sign: Sign
    """What the sign of a score means with the default options; see `AttributionMap`."""
    models: tuple[str, ...]
    """Kinds of models that it runs on: "vit", "cnn", "mixer"."""
    options: Mapping[str, Mapping[str, Any]]
    """Names and defaults of its own options, for each kind of model."""
    function: Callable[..., AttributionMap | list[AttributionMap]]
    """(model, images, target, **options) -> maps."""

    def passes(self, size: ModelSize, options: Mapping[str, Any] | None = None) -> float:
        """Cost of one map in forward passes of the same model; a backward pass counts as `BACKWARD` of them.

        Args:
            size: The model's size.
            options: Options that differ from the defaults.

        Raises:
            InputError: the method does not state its cost as a number.
        """
        if self.forwards.count is None or self.backwards.count is None:
            raise InputError(f"{self.name} does not state its passes as numbers; register it with forwards=...")
        settings = {**self.options[size.kind], **(options or {})}
        return self.forwards.count(size, settings) + BACKWARD * self.backwards.count(size, settings)


def method(
    compute: Compute,
    *,
    name: str,
    family: str,
    source: str,
    needs: str,
    sign: Sign,
    forwards: float | str | Passes,
    backwards: float | str | Passes = 0,
    class_specific: bool = True,
    score: str = "attribution to logit",
    models: tuple[str, ...] = ("vit",),
    cnn: Compute | None = None,
    signed_with: Mapping[str, Sequence[str]] | None = None,
) -> Method:
    """A method from a function that scores a batch; its keyword-only parameters are the method's options.

    Args:
        compute: See `Compute`.
        name: What users call it.
        family: See `Method`, as for the following.
        source: Paper.
        needs: What it reads.
        sign: What the sign of a score means, see `AttributionMap`.
        forwards: Forward passes of one map: a number, or `Passes` where it depends on the model or the options.
        backwards: Backward passes of one map, likewise.
        class_specific: False if the map is the same for all targets.
        score: What a score is, see `AttributionMap`.
        models: Kinds of models that it runs on.
        cnn: What scores a batch on CNNs, where that is another function; its options are its own.
        signed_with: Values of options with which scores are signed, whatever they are by default.
    """
    check_choice("sign", sign, SIGNS)
    signed = signed_with or {}
    options_of = {kind: default_options(cnn if cnn is not None and kind == "cnn" else compute) for kind in models}
    defaults = default_options(compute)

    def run(
        model: HookedModel,
        images: Images,
        target: int | str | Sequence[int | str] | None = None,
        *,
        batch_size: int = 8,
        progress: bool = True,
        **options: Any,
    ) -> AttributionMap | list[AttributionMap]:
        check_kind(model, name, models)
        if stated.backwards.text not in ("0", ""):
            check_gradients(model)
        chosen = cnn if cnn is not None and model.kind == "cnn" else compute
        return _run(chosen, name, score, sign, signed, model, images, target, batch_size, progress, options)

    stated = Method(
        name=name,
        family=family,
        source=source,
        needs=needs,
        forwards=Passes.of(forwards, defaults),
        backwards=Passes.of(backwards, defaults),
        class_specific=class_specific,
        sign=sign,
        models=models,
        options=options_of,
        function=runs_model(run),
    )
    return stated


def default_options(compute: Callable[..., Any]) -> dict[str, Any]:
    """A method's own options and their defaults: the function's keyword-only parameters."""
    return {
        option: parameter.default
        for option, parameter in inspect.signature(compute).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _run(
    compute: Compute,
    name: str,
    score: str,
    sign: Sign,
    signed_with: Mapping[str, Sequence[str]],
    model: HookedModel,
    images: Images,
    target: int | str | Sequence[int | str] | None,
    batch_size: int,
    progress: bool,
    options: dict[str, Any],
) -> AttributionMap | list[AttributionMap]:
    settings = _settings(compute, name, options)
    if any(settings.get(option) in values for option, values in signed_with.items()):
        sign = "signed"
    check_count("batch_size", batch_size)
    singles = check_images(images)
    model.target(0)  # a model without a classifier is refused here
    if isinstance(settings.get("probability"), str):  # the map says which one was read
        settings["probability"] = resolved_probability(settings["probability"], model.n_classes)
    wanted = None if target is None else model.targets(target, len(singles))
    fingerprint = model.fingerprint
    written = {option: _written(value) for option, value in settings.items()}
    maps: list[AttributionMap] = []
    with tqdm(total=len(singles), unit="map", disable=not progress or len(singles) == 1) as bar:
        for batch in batches(model, singles, batch_size):
            began = time.perf_counter()
            if wanted is None:
                with torch.no_grad():
                    targets = model(batch).argmax(dim=1)
            else:
                targets = torch.tensor(
                    wanted[len(maps) : len(maps) + len(batch)], device=model.device, dtype=torch.long
                )
            scores = compute(model, batch, targets, **settings).detach().float().cpu()
            if scores.ndim != 3 or len(scores) != len(batch):
                raise InputError(f"{name} must give scores [{len(batch)}, row, col]; it gave {list(scores.shape)}.")
            if not scores.isfinite().all():
                raise InputError(
                    f"{name} gives NaN or infinity on this image: look for extreme values in the image or the weights, "
                    "or use dtype='float32' instead of float16."
                )
            seconds = (time.perf_counter() - began) / len(batch)
            for image, index, found in zip(batch, targets.tolist(), scores, strict=True):
                maps.append(
                    AttributionMap.of_model(
                        model,
                        image,
                        found.clone(),
                        target=index,
                        method=name,
                        score=score,
                        sign=sign,
                        settings=written,
                        seconds=seconds,
                        fingerprint=fingerprint,
                    )
                )
                bar.update()
    return maps[0] if is_single(images) else maps


def _settings(compute: Compute, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a method: the given ones, and the defaults of the rest."""
    known = default_options(compute)
    for option in options:
        if option not in known:
            has = f"Its options are {', '.join(known)}." if known else "It has none."
            raise InputError(f"{name} has no option {option!r}.{nearest(option, list(known))} {has}")
    return known | options


def _written(value: Any) -> Any:
    """An option as the map keeps it: as it is, or an image's kind and a hash of its values."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    digest = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=4).hexdigest()
    return f"{'Image' if isinstance(value, Image.Image) else type(value).__name__} {digest}"
