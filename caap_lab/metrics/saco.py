"""SaCo: whether a map's scores are in proportion to the effects of its pixels on the model's output."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from caap_lab.attribution.enlarge import enlarged
from caap_lab.attribution.map import AttributionMap
from caap_lab.checks import check_choice, check_count
from caap_lab.errors import InputError
from caap_lab.metrics.changed_images import change_order, checked_maps, target_scores
from caap_lab.metrics.metric import Metric, MetricColumn, MetricInput
from caap_lab.metrics.protocol import UPSAMPLINGS
from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import KINDS, HookedModel, Images, check_kind
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Target, TargetLike

GROUPS = 10
"""Number K of groups of pixels, as in the paper's experiments."""


@dataclass(frozen=True, eq=False)
class Saco:
    """SaCo of one map, with the scores and effects of its groups."""

    value: float
    """From -1 (the order of effects is the reverse of that of scores) to 1 (the same order); NaN for a constant map."""
    group_scores: Float[np.ndarray, " group"]
    """Mean score of each group's pixels, from the highest to the lowest."""
    group_effects: Float[np.ndarray, " group"]
    """Drop of the target's probability when the group's pixels are replaced."""
    target_name: str
    method: str
    model_name: str
    upsampling: str

    def __repr__(self) -> str:
        """The value, with method, model and target."""
        return (
            f"Saco: {self.method} of {self.model_name} for {self.target_name!r}: {self.value:z.4f} "
            f"({len(self.group_scores)} groups)"
        )


@runs_model
def saco(
    model: HookedModel,
    images: Images,
    maps: AttributionMap | Sequence[AttributionMap],
    *,
    target: TargetLike | None = None,
    groups: int = GROUPS,
    upsampling: str = "bilinear",
    batch_size: int = 64,
    progress: bool = True,
) -> Saco | list[Saco]:
    """The salience-guided faithfulness coefficient of maps (SaCo, Wu et al., CVPR 2024, arXiv 2404.01415).

    ```python
    found = cl.saco(model, image, m)    # from -1 to 1
    ```

    Pixels are ranked by their score and cut into K groups of equal size. Each group in turn is replaced by the image's
    mean colour; its effect is the drop of the target's probability. For each pair of groups the difference of their
    mean scores counts for the map if the group with the higher score has at least the effect of the other, and against
    it otherwise (the paper's Algorithm 1):

        SaCo = sum_{i<j} ± (s_i - s_j) / sum_{i<j} |s_i - s_j|,   + where effect_i >= effect_j

    Unlike the areas of insertion and deletion it depends on the scores themselves, not only on their order; adding a
    number to all of them, or multiplying them by a positive one, changes nothing. Signed maps are used unchanged: the
    pixels that count against the target are the last groups. A map whose scores are all equal has no SaCo (NaN). The
    cost is K + 1 forward passes. Mean scores replace the paper's sums, so that groups can be compared whose sizes
    differ by a pixel because K does not divide the image; otherwise both give the same value.

    Args:
        model: The model whose output is read.
        images: The images that the maps are of; one image for several maps of it.
        maps: A map, or several.
        target: The target whose probability is read, see `cl.contrast`; by default that of each map. Directions and
            functions of the logits have no probability; their value is read instead.
        groups: Number K of groups; 10 as in the paper's experiments.
        upsampling: Interpolation from the map's grid to pixels: "bilinear", "nearest-exact" or "bicubic". Pixels of
            equal score are in reading order.
        batch_size: Changed images run at once; limits memory.
        progress: Show a progress bar, for one map if it takes more than a second.

    Returns:
        SaCo of one map, or a list.

    Raises:
        InputError: an argument is invalid; raised before anything runs.
    """
    check_kind(model, "saco", tuple(KINDS))
    check_count("batch_size", batch_size)
    check_choice("upsampling", upsampling, UPSAMPLINGS)
    height, width = model.preprocessing.image_size
    if isinstance(groups, bool) or not isinstance(groups, int) or not 2 <= groups <= height * width:
        raise InputError(f"groups={groups!r} must be a number from 2 to {height * width}, the image's pixels.")
    given = checked_maps(model, images, maps, target)
    batch_size = images_at_once(model, batch_size)
    found = []
    with torch.no_grad(), images_shown("SaCo", len(given.maps), 1, progress, "map", groups + 1) as bar:
        for index, (m, one) in enumerate(zip(given.maps, given.targets, strict=True)):
            if index < len(given.images):
                image = given.model.preprocess(given.images[index])
            group = _group_of_pixels(m, upsampling, groups)
            scores = _means(enlarged(m.scores, (height, width), upsampling).double().cpu(), group, groups)
            effects = _effects(given.model, image, group.to(given.model.device), groups, one, batch_size)
            constant = bool((m.scores == m.scores.flatten()[0]).all())
            found.append(
                Saco(
                    value=float("nan") if constant else coefficient(scores, effects),
                    group_scores=scores,
                    group_effects=effects,
                    target_name=one.name,
                    method=m.method,
                    model_name=given.model.model_name,
                    upsampling=upsampling,
                )
            )
            bar.update()
    return found[0] if isinstance(maps, AttributionMap) else found


def coefficient(scores: Float[np.ndarray, " group"], effects: Float[np.ndarray, " group"]) -> float:
    """Algorithm 1 of the paper, for groups in descending order of score; NaN if all are equal."""
    first, second = np.triu_indices(len(scores), k=1)
    weights = scores[first] - scores[second]
    total = np.abs(weights).sum()
    if total == 0:
        return float("nan")
    return float(np.where(effects[first] >= effects[second], weights, -weights).sum() / total)


def _group_of_pixels(m: AttributionMap, upsampling: str, groups: int) -> Int[Tensor, "height width"]:
    """The group of each pixel: a pixel of rank r is in group floor(r K / n)."""
    order = change_order(m, upsampling)
    return order * groups // order.numel()


def _means(
    pixels: Float[Tensor, "height width"], group: Int[Tensor, "height width"], groups: int
) -> Float[np.ndarray, " group"]:
    sums = np.bincount(group.flatten().cpu().numpy(), pixels.flatten().numpy(), groups)
    return sums / np.bincount(group.flatten().cpu().numpy(), minlength=groups)


def _effects(
    model: HookedModel,
    image: Float[Tensor, "1 3 height width"],
    group: Int[Tensor, "height width"],
    groups: int,
    target: Target,
    batch_size: int,
) -> Float[np.ndarray, " group"]:
    """Drop of the target's probability without each group's pixels."""
    mean = image.mean(dim=(2, 3), keepdim=True)
    places = torch.arange(-1, groups, device=image.device)[:, None, None, None]  # -1: the image itself
    values = [
        target_scores(model, torch.where(group == some, mean, image), [target] * len(some), "prob")
        for some in places.split(batch_size)
    ]
    probabilities = torch.cat(values).numpy()
    return probabilities[0] - probabilities[1:]


def _compute(given: MetricInput, *, groups: int = GROUPS, upsampling: str = "bilinear") -> dict[str, Any]:
    result = saco(
        given.model, given.image, given.map, groups=groups, upsampling=upsampling, batch_size=given.batch_size
    )
    assert isinstance(result, Saco)
    return {"saco": result.value}


COLUMNS = (MetricColumn("saco", "SaCo", "SaCo, scores in proportion to effects", unit="", digits=3),)
SACO = Metric("saco", COLUMNS, _compute)
