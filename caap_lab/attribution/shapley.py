"""Shapley values of patches: what a patch adds on average, whatever others are there (Shapley 1953)."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caap_lab.attribution.cost import Passes
from caap_lab.attribution.masking import pixel_mask
from caap_lab.attribution.method import Estimate, method
from caap_lab.attribution.shapley_estimate import draw_sets, shapley_estimate
from caap_lab.checks import check_choice, check_count, check_seed, check_share
from caap_lab.engine.blanks import Blank, blank_image, check_blank
from caap_lab.engine.scores import SCORES, check_score, score_read, target_score
from caap_lab.errors import InputError
from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Target, Targets

ROUND = 1000
"""Samples between two looks at the standard errors."""


@torch.no_grad()
def shapley(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    samples: int = 4000,
    until: float | None = None,
    blank: Blank = "white",
    score: str = "logit",
    seed: int = 0,
    chunk_size: int = 64,
) -> Estimate:
    """phi_i = sum over sets S of other patches of |S|! (N - |S| - 1)! / N! (v(S with i) - v(S)), estimated.

    v(S) is the target's score of the image whose patches outside S show the blank's pixels. The values of all patches
    add up to v(all) - v(none), to the last digit. They are estimated without bias from random sets and their
    complements, as `caap_lab.attribution.shapley_estimate` says; the standard errors come with the map, as
    `m.standard_errors`. A map is certain enough for ranks to be compared where they are a few percent of its range.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        samples: Images of random sets that run, half of them complements of the others; an even number. With `until`,
            at most so many.
        until: Stop when the root mean square of the standard errors is at most this share of the map's range (highest
            less lowest value): 0.02 for 2 %. It is looked at after every 1000 samples.
        blank: What a missing patch shows: CAAP's blanks that are images.
        score: The score that values are of, as CAAP's: "logit", "prob", "logprob", "sigmoid" or "logsigmoid".
        seed: Seed of the sets, and of the noise blanks.
        chunk_size: Images run at once; does not change results.
    """
    check_count("samples", samples)
    if samples < 4 or samples % 2:
        raise InputError(f"samples={samples} must be an even number of at least 4: sets run with their complements.")
    if until is not None:
        check_share("until", until, zero=False, one=False)
    check_blank(blank)
    check_choice("score", score, tuple(SCORES))
    check_seed(seed)
    check_count("chunk_size", chunk_size)
    for target in targets:
        check_score(target, score)
    empty = blank_image(model, blank, seed)
    if empty is None:
        raise InputError("This blank consists of activations, not of an image; use an image, such as 'white'.")
    found = []
    for image, target in zip(images[:, None], targets, strict=True):
        rounds = _drawn(model.grid[0] * model.grid[1], samples, seed, samples if until is None else ROUND)
        found.append(_of_image(model, image, empty, target, score, chunk_size, rounds, until or 0.0))
    values, errors = (torch.stack(part).reshape(-1, *model.grid).to(images.device) for part in zip(*found, strict=True))
    return Estimate(values, errors, f"attribution to {score_read(score, model.n_classes)}")


def _drawn(n_patches: int, samples: int, seed: int, at_once: int) -> Iterator[Bool[Tensor, "set patch"]]:
    """Sets in rounds, the same for all images; each stands for two samples."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for first in range(0, samples, at_once):
        yield draw_sets(n_patches, min(at_once, samples - first) // 2, generator)


def _of_image(
    model: HookedModel,
    image: Float[Tensor, "1 3 height width"],
    empty: Float[Tensor, "1 3 height width"],
    target: Target,
    score: str,
    chunk_size: int,
    rounds: Iterator[Bool[Tensor, "set patch"]],
    until: float,
) -> tuple[Float[Tensor, " patch"], Float[Tensor, " patch"]]:
    """Values and standard errors of one image."""

    def values_of(images: Float[Tensor, "set 3 height width"]) -> Float[Tensor, " set"]:
        return target_score(target, model(images), score).double().cpu()

    def values_of_sets(sets: Bool[Tensor, "set patch"]) -> Float[Tensor, " set"]:
        parts = sets.to(image.device).split(images_at_once(model, chunk_size))
        return torch.cat([values_of(torch.where(pixel_mask(model, part), image, empty)) for part in parts])

    whole = float(values_of(image) - values_of(empty))
    if model.grid == (1, 1):
        values = torch.tensor([whole], dtype=torch.float64, device="cpu")
        return values, torch.zeros_like(values)
    sets, halves = [], []
    for drawn in rounds:
        sets.append(drawn)
        both = values_of_sets(torch.cat([drawn, ~drawn])).reshape(2, -1)
        halves.append((both[0] - both[1]) / 2)
        values, errors = shapley_estimate(torch.cat(sets), torch.cat(halves), whole)
        if errors.square().mean().sqrt() <= until * (values.max() - values.min()):
            break
    return values, errors


SHAPLEY = method(
    shapley,
    name="shapley",
    family="masking",
    source="Shapley 1953; estimator of Witter, Liu & Musco 2025, arXiv 2506.11849",
    needs="forward passes",
    sign="signed",
    forwards=Passes(lambda size, options: options["samples"] + 2),
    reads="pixels",
)
