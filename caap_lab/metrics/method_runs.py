"""Several methods on the same images, for the same targets: what checks of methods start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import RUN_OPTIONS, attribute, check_variant
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import batches, check_images
from caap_lab.models.explained import explained, predicted_targets
from caap_lab.models.targets import Given, Logit, TargetLike, Targets
from caap_lab.variant import Variant, parse_variant

_AT_ONCE = 16
"""Images of which the model's prediction is read in one run."""


@dataclass(frozen=True, eq=False)
class MethodRuns:
    """Methods, the model's input, and what is explained of each image."""

    methods: dict[str, Variant]
    """By the label that tables have."""
    inputs: Float[Tensor, "image 3 height width"]
    model: HookedModel
    """What reads the targets: the model, or one that has a column of logits for a direction."""
    targets: Targets

    @classmethod
    def of(
        cls,
        model: HookedModel,
        images: Images,
        methods: str | Variant | Sequence[str | Variant],
        target: TargetLike | Sequence[TargetLike] | None,
    ) -> "MethodRuns":
        """What was given, checked before anything runs; a target of None becomes the model's prediction.

        Raises:
            InputError: a method or option is not known or does not run on this model, or a target does not fit.
        """
        several = [methods] if isinstance(methods, (str, Variant)) else methods
        if not isinstance(several, Sequence):
            raise InputError(f"methods={methods!r} is not a method or a list of methods, such as ['caap', 'rollout'].")
        if not several:
            raise InputError("No methods were given, such as methods=['caap', 'rollout'].")
        chosen: dict[str, Variant] = {}
        for variant in map(parse_variant, several):
            if variant.label in chosen:
                raise InputError(f"{variant.label!r} stands twice among the methods; give the second a label, A=NAME.")
            own = {name: value for name, value in variant.options.items() if name not in RUN_OPTIONS}
            check_variant(variant).job(own, model)
            chosen[variant.label] = variant
        singles = check_images(images)
        if target is not None:
            running, targets = explained(model, target, len(singles))
            return cls(chosen, torch.cat(list(batches(model, singles, _AT_ONCE))), running, targets)
        model._require_classifier()
        inputs = list(batches(model, singles, _AT_ONCE))
        with torch.no_grad():
            each = tuple(one for batch in inputs for one in predicted_targets(model, model(batch)))
        return cls(chosen, torch.cat(inputs), model, Targets(each))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.inputs)

    def given(self, image: int) -> Given:
        """An image's target as `attribute` takes it; a class is its own logit, also where it stood for a contrast."""
        given = self.targets[image].given
        return Logit(given) if isinstance(given, int) else given

    def maps(
        self,
        model: HookedModel,
        label: str,
        images: Sequence[Tensor],
        given: Sequence[Given],
        batch_size: int | None,
    ) -> Sequence[AttributionMap]:
        """One method's maps of a model."""
        return attribute(  # type: ignore[return-value]  # a list of images gives a list
            model, list(images), self.methods[label].name, list(given), **self._options(label, batch_size)
        )

    def _options(self, label: str, batch_size: int | None) -> dict[str, Any]:
        own: dict[str, Any] = {"progress": False} | self.methods[label].options
        return own | ({} if batch_size is None else {"batch_size": batch_size})


def from_zero(m: AttributionMap) -> Float[Tensor, "row col"]:
    """A map's scores in float64 where 0 stands for no evidence.

    Of scores whose level means nothing ("level": CAAP's are logits of a blank with one patch), the lowest one is taken
    off; others have a zero of their own and stay as they are.
    """
    scores = m.scores.double().cpu()
    return scores - scores.min() if m.sign == "level" else scores


def rank_correlation(a: Float[Tensor, "row col"], b: Float[Tensor, "row col"]) -> float:
    """Spearman's rank correlation of two maps; NaN where one of them is constant, as it has no ranks."""
    ranks = [rankdata(one.double().cpu().numpy(), axis=None) for one in (a, b)]
    centred = [one - one.mean() for one in ranks]
    size = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / size) if size else float("nan")
