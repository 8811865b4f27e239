"""Attribution methods: their description, and how a function that scores a batch becomes one."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from caap_lab.attribution.cost import BACKWARD, ModelSize, Passes
from caap_lab.attribution.map import SIGNS, AttributionMap, Sign
from caap_lab.attribution.map_list import MapList
from caap_lab.attribution.runner import BatchScores, MapJob, run_maps
from caap_lab.checks import check_choice
from caap_lab.digests.hashing import hex_digest
from caap_lab.errors import InputError
from caap_lab.models.base import KINDS, READS, HookedModel, Images, check_kind, works_on
from caap_lab.models.batches import is_single
from caap_lab.models.black_box import BlackBoxModel
from caap_lab.models.cnn import HookedCNN
from caap_lab.models.explained import predicted_targets
from caap_lab.models.mixer import HookedMixer
from caap_lab.models.names import nearest
from caap_lab.models.probability import resolved_probability
from caap_lab.models.running import check_gradients
from caap_lab.models.targets import TargetLike, Targets
from caap_lab.models.vit import HookedViT

Compute = Callable[..., "Tensor | Estimate"]
"""(model, images [batch, 3, height, width], `Targets`, **options) -> scores [batch, row, col].

The explained quantity is `targets.value(logits)`, one number per image. A method that computes the scores of all
classes at once may return them as [batch, row, col, classes]. Rows and columns are the model's grid, unless the method
documents others. Images are preprocessed, on the model's device and in its format. Scores of one image must not depend
on the others. A method that samples may return an `Estimate`.
"""
Prepare = Callable[[HookedModel, Mapping[str, Any], int], MapJob]
"""(model, options, batch_size) -> job for `run_maps`. It raises InputError for invalid options before anything runs."""
METHODS: "dict[str, Method]" = {}
"""All methods by name; `registry` adds them."""
_MODELS: tuple[type[HookedModel], ...] = (HookedViT, HookedCNN, HookedMixer, BlackBoxModel)


class Estimate(NamedTuple):
    """Scores of a batch that are estimated from samples."""

    scores: Tensor
    """[batch, row, col], of each image's target."""
    standard_errors: Tensor
    """Of the scores, in the same shape."""
    score: str
    """What a score is, see `AttributionMap`."""


def kinds_that_give(what: str) -> tuple[str, ...]:
    """Kinds of models from which `what`, one of `caap_lab.models.base.READS`, can be read."""
    return tuple(model.kind for model in _MODELS if what in model.readable)


@dataclass(frozen=True)
class Method:
    """An attribution method, with the facts that help to choose one."""

    name: str
    family: str
    """What it is made of: gradient, attention, relevance, masking, activation patching, or a combination of methods."""
    source: str
    """Paper, with its arXiv number or venue."""
    needs: str
    """What it needs: "forward passes", "gradient", "attention", or several of these."""
    forwards: Passes
    """Forward passes per map."""
    backwards: Passes
    """Backward passes per map."""
    class_specific: bool
    sign: Sign
    """Meaning of the sign of a score with the default options; see `AttributionMap`."""
    reads: str
    """What it reads from a model, one of `caap_lab.models.base.READS`. It runs on models that provide it."""
    options: Mapping[str, Mapping[str, Any]]
    """Names and defaults of its own options, for each kind of model."""
    prepare: Prepare
    """Prepares it to run on a model."""

    def function(
        self,
        model: HookedModel,
        images: Images,
        target: TargetLike | Sequence[TargetLike] | None = None,
        *,
        batch_size: int = 8,
        progress: bool = True,
        **options: Any,
    ) -> AttributionMap | MapList:
        """A map for one image, or a list of maps for several; arguments as for `attribute`."""
        maps = run_maps(
            model, images, target, lambda *given: self.job(options, *given), batch_size=batch_size, progress=progress
        )
        firsts = MapList(first for (first,) in maps)
        return firsts[0] if is_single(images) else firsts

    def job(self, options: Mapping[str, Any], model: HookedModel, batch_size: int = 1) -> MapJob:
        """A job that runs the method with some options on a model.

        Raises:
            InputError: the method does not run on the model, or has no such options.
        """
        self.check(model)
        check_options(self.name, options, self.options[model.kind])
        return self.prepare(model, options, batch_size)

    @property
    def models(self) -> tuple[str, ...]:
        """Kinds of models that it runs on: "vit", "cnn", "mixer", "black_box"."""
        return kinds_that_give(self.reads)

    def check(self, model: HookedModel) -> None:
        """Raise InputError for a model on which the method does not run.

        Raises:
            InputError: it does not; the message lists the methods that do.
        """
        check_kind(model, self.name, tuple(KINDS))
        if self.reads not in model.readable:
            said = f"{works_on(self.name, self.models)}; {model.model_name} is a {KINDS[model.kind][0]}"
        elif not model.gives(self.reads):
            said = f"{self.name} needs {self.reads}, but {model.model_name} has none"
        elif self._takes_gradients and model.why_no_gradient:
            said = f"{self.name} needs gradients, but {model.model_name} has none ({model.why_no_gradient})"
        else:
            return
        able = [name for name, method in METHODS.items() if method.runs_on(model)]
        raise InputError(f"{said}; methods that run on it are {', '.join(able)}.")

    def runs_on(self, model: HookedModel) -> bool:
        """True if the method runs on a model."""
        return model.gives(self.reads) and not (self._takes_gradients and model.why_no_gradient)

    @property
    def _takes_gradients(self) -> bool:
        return self.backwards.text not in ("0", "")

    def passes(self, size: ModelSize, options: Mapping[str, Any] | None = None) -> float:
        """Cost of one map in forward passes of the same model; a backward pass counts as `BACKWARD` of them.

        Args:
            size: The model's size.
            options: Options that differ from the defaults.

        Raises:
            InputError: the method does not declare its cost as a number.
        """
        if self.forwards.count is None or self.backwards.count is None:
            raise InputError(f"{self.name} does not declare its passes as numbers; register it with forwards=...")
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
    reads: str = "attention",
    on: Mapping[str, Compute] | None = None,
    signed_with: Mapping[str, Sequence[str]] | None = None,
) -> Method:
    """A `Method` from a function that scores a batch; its keyword-only parameters become the method's options.

    Args:
        compute: See `Compute`.
        name: Name of the method.
        family: See `Method`, also for the following.
        source: Paper.
        needs: What it needs.
        sign: Meaning of the sign of a score; see `AttributionMap`.
        forwards: Forward passes per map: a number, or `Passes` if it depends on the model or the options.
        backwards: Backward passes per map, likewise.
        class_specific: False if the map is the same for all targets.
        score: The quantity of a score; see `AttributionMap`.
        reads: What it reads from a model; see `caap_lab.models.base.READS`.
        on: Functions for kinds of models that need another one, with their own options. An option `layer` on black
            boxes is the name of a module, or None for the last one with maps; the function gets its name.
        signed_with: Values of options with which scores are signed, if they are not by default.
    """
    check_choice("sign", sign, SIGNS)
    check_choice("reads", reads, tuple(READS))
    signed = signed_with or {}
    computes = {kind: (on or {}).get(kind, compute) for kind in kinds_that_give(reads)}
    options_of = {kind: default_options(function) for kind, function in computes.items()}
    defaults = default_options(compute)

    def prepare(model: HookedModel, options: Mapping[str, Any], batch_size: int) -> MapJob:
        if stated.backwards.text not in ("0", ""):
            check_gradients(model)
        settings = {**options_of[model.kind], **options}
        changes_sign = any(settings.get(option) in values for option, values in signed.items())
        if isinstance(settings.get("probability"), str):  # the map records which one was used
            settings["probability"] = resolved_probability(settings["probability"], model.n_classes)
        if isinstance(model, BlackBoxModel) and "layer" in settings:
            settings["layer"] = model.find_layer(settings["layer"])
        written = {option: _written(value) for option, value in settings.items()}
        chosen = computes[model.kind]

        def compute_batch(images: Tensor, targets: Targets | None) -> list[BatchScores]:
            if targets is None:
                with torch.no_grad():
                    targets = predicted_targets(model, model(images))
            found = chosen(model, images, targets, **settings)
            # float32 for float64 models, too: it is enlarged exactly, so that equal pixels stay equal; see `enlarged`
            if isinstance(found, Estimate):
                errors = found.standard_errors.detach().float()
                return [
                    BatchScores(found.scores.detach().float(), targets, found.score, written, standard_errors=errors)
                ]
            return [BatchScores(found.detach().float(), targets, score, written)]

        passes = _shown_passes(stated.forwards, model, settings)
        sign_now: Sign = "signed" if changes_sign else sign
        return MapJob(name, sign_now, batch_size, compute_batch, class_specific, passes=passes)

    stated = Method(
        name=name,
        family=family,
        source=source,
        needs=needs,
        forwards=Passes.of(forwards, defaults),
        backwards=Passes.of(backwards, defaults),
        class_specific=class_specific,
        sign=sign,
        reads=reads,
        options=options_of,
        prepare=prepare,
    )
    return stated


def default_options(compute: Callable[..., Any]) -> dict[str, Any]:
    """A method's own options and their defaults: the function's keyword-only parameters."""
    return {
        option: parameter.default
        for option, parameter in inspect.signature(compute).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_options(name: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise InputError for an option that a method does not have.

    Raises:
        InputError: there is no such option; the message gives the nearest name and all options.
    """
    for option in options:
        if option not in known:
            has = f"Its options are {', '.join(known)}." if known else "It has none."
            raise InputError(f"{name} has no option {option!r}.{nearest(option, list(known))} {has}")


def _written(value: Any) -> Any:
    """An option as recorded in a map: itself, or for an image its type and a hash."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    digest = hex_digest(np.ascontiguousarray(array).tobytes(), size=4)
    return f"{'Image' if isinstance(value, Image.Image) else type(value).__name__} {digest}"


def _shown_passes(forwards: Passes, model: HookedModel, settings: Mapping[str, Any]) -> float | None:
    """Number of passes for a progress bar; None if options are invalid, for which the method raises its own error."""
    try:
        return None if forwards.count is None else forwards.count(ModelSize.of(model), settings)
    except (TypeError, ValueError, ArithmeticError, InputError):
        return None
