"""The rank sum of two maps: patches that both methods rank high come first.

CAAP says what a patch can do alone; methods that read the image's own run say what the image loses without it. A patch
that both rank high is sufficient and necessary. Ranks put the two on one scale. The weights are equal, and nothing is
tuned: the first principal component of two standardised variables has equal weights, whatever their positive
correlation. (A rank sum is a Borda count with two voters.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.attribution.cost import ModelSize, Passes
from caap_lab.attribution.enlarge import enlarged
from caap_lab.attribution.map_difference import RANK_SUM, places_of
from caap_lab.attribution.method import METHODS, Method, kinds_that_give
from caap_lab.attribution.runner import BatchScores, MapJob, scores_of_targets
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.names import nearest
from caap_lab.models.targets import Target, Targets
from caap_lab.variant import Variant, parse_variant

DEFAULT_PARTS = {
    "vit": {"first": "caap", "second": "libra_ixg_plus"},
    "cnn": {"first": "caap", "second": "grad_cam"},
}
"""By kind of model; LibraGrad's rules are for models without convolutions in their blocks."""


def parts_of(options: Mapping[str, Any]) -> list[Variant]:
    """The two methods, with their options.

    Args:
        options: `rank_sum`'s own; a part that is left out is that of a Vision Transformer.

    Raises:
        InputError: one is no method's text.
    """
    parts = []
    for name, text in {**DEFAULT_PARTS["vit"], **options}.items():
        if not isinstance(text, (str, Variant)):
            raise InputError(f"{name}={text!r} is not a method as text, such as 'caap' or 'caap:cutoff=3'.")
        part = parse_variant(text)
        if part.name not in METHODS:
            raise InputError(f"{name}={text!r}: there is no method {part.name!r}.{nearest(part.name, list(METHODS))}")
        parts.append(part)
    return parts


def _prepare(model: HookedModel, options: Mapping[str, Any], batch_size: int) -> MapJob:
    parts = parts_of({**DEFAULT_PARTS[model.kind], **options})
    jobs = [METHODS[part.name].job(part.options, model, batch_size) for part in parts]
    size = min(job.batch_size for job in jobs)

    def compute(images: Tensor, targets: Targets | None) -> list[BatchScores]:
        found = []
        for job in jobs:
            (one,) = job.compute(images, targets)
            targets = one.targets
            found.append(one)
        assert targets is not None
        maps = [scores_of_targets(one, model.n_classes, job.method) for one, job in zip(found, jobs, strict=True)]
        written = {
            name: {"method": job.method, **one.settings}
            for name, one, job in zip(("first", "second"), found, jobs, strict=True)
        }
        return [BatchScores(rank_sums(maps, model.grid), targets, RANK_SUM, written)]

    def check_target(target: Target) -> None:
        for job in jobs:
            job.check_target(target)

    passes = [job.passes for job in jobs if job.passes is not None]
    return MapJob(
        "rank_sum",
        "level",
        size,
        compute,
        class_specific=any(job.class_specific for job in jobs),
        check_target=check_target,
        passes=sum(passes) if len(passes) == len(jobs) else None,
    )


def rank_sums(maps: Sequence[Float[Tensor, "image _ _"]], grid: tuple[int, int]) -> Float[Tensor, "image row col"]:
    """For every image and patch, the sum over maps of its rank, 0 the lowest to 1 the highest; ties have mean ranks.

    Places are summed before they are divided, so that equal sums are equal to the last bit.

    Args:
        maps: Of the same images by several methods. Those of another size than the grid are brought to it first: finer
            ones are averaged over each patch, coarser ones enlarged as `AttributionMap.upsample` does.
        grid: Rows and columns.
    """
    of_maps = [torch.stack([places_of(on_cells(scores, grid)) for scores in of_images]) for of_images in maps]
    places = torch.stack(of_maps).sum(dim=0)
    return (places / max(grid[0] * grid[1] - 1, 1)).float()


def on_cells(scores: Float[Tensor, "_ _"], grid: tuple[int, int]) -> Float[Tensor, "row col"]:
    """A map on another grid, in float64."""
    size = (scores.shape[0], scores.shape[1])
    if size == grid:
        return scores.double()
    if size[0] >= grid[0] and size[1] >= grid[1]:
        return F.adaptive_avg_pool2d(scores.double()[None], grid)[0]
    return enlarged(scores, grid)


@dataclass(frozen=True)
class _Sum:
    """Passes of both parts together."""

    backwards: bool

    def __call__(self, size: ModelSize, options: Mapping[str, Any]) -> float:
        total = 0.0
        for part in parts_of(options):
            method = METHODS[part.name]
            passes = method.backwards if self.backwards else method.forwards
            if passes.count is None:
                raise InputError(f"{part.name} does not state its passes as numbers; register it with forwards=...")
            total += passes.count(size, {**method.options[size.kind], **part.options})
        return total


RANK_SUM_METHOD = Method(
    name="rank_sum",
    family="combination",
    source="CAAP and LibraGrad, by ranks; see the docs, page Methods",
    needs="what its two parts need",
    forwards=Passes(_Sum(backwards=False), "those of both; about 6"),
    backwards=Passes(_Sum(backwards=True), "those of both; 1"),
    class_specific=True,
    sign="level",
    reads="patched contexts",
    options={kind: DEFAULT_PARTS[kind] for kind in kinds_that_give("patched contexts")},
    prepare=_prepare,
)
