"""Pairs of a clean and a corrupted image and the scores of both runs, on which all patching between them builds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import Images
from caap_lab.models.batches import check_images
from caap_lab.models.explained import several_explained
from caap_lab.models.targets import Contrast, Logit, Targets
from caap_lab.models.vit import HookedViT

DIRECTIONS = ("denoise", "noise")
"""denoise: clean activations go into the corrupted run; noise: corrupted activations go into the clean run."""
DEFAULT_TARGET = "the clean image's prediction rather than the corrupted image's"


class PairBatch(NamedTuple):
    """Some pairs as input tensors."""

    rows: slice
    clean: Float[Tensor, "batch 3 height width"]
    corrupted: Float[Tensor, "batch 3 height width"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images in pairs, the model to run on them, the targets, and the scores of both runs."""

    model: HookedViT
    """The model that computes the targets' logits; see `caap_lab.models.explained.explained`."""
    clean: list[Any]
    corrupted: list[Any]
    targets: dict[str, Targets]
    several: bool
    """Whether a mapping of targets was given, so that results have an axis `target`."""
    target_name: str
    clean_scores: Float[np.ndarray, "image target"]
    corrupted_scores: Float[np.ndarray, "image target"]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.clean)

    def some(self, rows: slice) -> "Pairs":
        """A selection of the pairs."""
        return replace(
            self,
            clean=self.clean[rows],
            corrupted=self.corrupted[rows],
            targets={name: targets[rows] for name, targets in self.targets.items()},
            target_name=self.target_name if self.several else ", ".join(t[rows].name for t in self.targets.values()),
            clean_scores=self.clean_scores[rows],
            corrupted_scores=self.corrupted_scores[rows],
        )

    @property
    def difference(self) -> Float[np.ndarray, "image target"]:
        """Clean minus corrupted score."""
        return self.clean_scores - self.corrupted_scores

    def read(self, logits: Float[Tensor, "batch columns"], rows: slice) -> Float[Tensor, "batch target"]:
        """The targets' scores for the pairs of some rows."""
        return read_targets({name: targets[rows] for name, targets in self.targets.items()}, logits)

    def batches(self, size: int) -> Iterator[PairBatch]:
        """All pairs in batches of this size; files are read when their batch comes."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield PairBatch(rows, self.model.preprocess(self.clean[rows]), self.model.preprocess(self.corrupted[rows]))

    def require_apart(self) -> None:
        """Raise InputError for pairs whose effects cannot be expressed on the scale from corrupted (0) to clean (1).

        Raises:
            InputError: the scores of a pair (nearly) agree.
        """
        size = np.maximum(1.0, np.maximum(np.abs(self.clean_scores), np.abs(self.corrupted_scores)))
        rounding = 2 * torch.finfo(self.model.dtype).eps  # of scores, in the model's number format
        close = np.argwhere(np.abs(self.difference) <= max(1e-5, rounding) * size)
        if len(close):
            row, column = close[0]
            name = list(self.targets.values())[column][row].name
            raise InputError(
                f"{len(set(close[:, 0].tolist()))} of {len(self)} pairs cannot be normalised: for pair {row} the clean "
                f"and the corrupted image score {self.clean_scores[row, column]:.6g} and "
                f"{self.corrupted_scores[row, column]:.6g} for {name}. Corrupt more, omit these pairs, or choose "
                "another target."
            )


@torch.no_grad()
def pairs_of(model: HookedViT, clean: Images, corrupted: Images, target: Any, batch_size: int) -> Pairs:
    """Pair images and score both runs: two forward passes per pair.

    Args:
        model: The model.
        clean: Images.
        corrupted: As many, in the same order, or one for all; one clean image for many corrupted ones is also valid.
        target: See `caap_lab.models.targets.TargetLike`, one for all pairs, one per pair, or a mapping from a name to a
            target. None: why the clean image's predicted class rather than the corrupted image's; if both predictions
            are the same, rather than the mean of all classes.
        batch_size: Images run at once.

    Raises:
        InputError: the numbers of images do not fit, or the model has no such target.
    """
    check_count("batch_size", batch_size)
    ones, others = paired(clean, corrupted)
    model, targets = pair_targets(model, target, len(ones))
    logits = (_logits(model, images, batch_size) for images in (ones, others))
    return scored_pairs(model, ones, others, targets, *logits, several=isinstance(target, Mapping))


def pair_targets(model: HookedViT, target: Any, count: int) -> tuple[HookedViT, dict[str, Targets] | None]:
    """The model to run and the targets of pairs; None for the default ones, which need the logits of both runs."""
    if target is None:
        model._require_classifier()
        return model, None
    return several_explained(model, target, count)


def paired(clean: Images, corrupted: Images) -> tuple[list[Any], list[Any]]:
    """As many clean as corrupted images, as two lists.

    Raises:
        InputError: the numbers of images do not fit.
    """
    ones, others = check_images(clean), check_images(corrupted)
    count = max(len(ones), len(others))
    if {len(ones), len(others)} - {1, count}:
        raise InputError(
            f"{len(ones)} clean and {len(others)} corrupted images do not form pairs: give as many of each, or one for "
            "all."
        )
    ones, others = (images * count if len(images) == 1 else images for images in (ones, others))
    return ones, others


def scored_pairs(
    model: HookedViT,
    ones: list[Any],
    others: list[Any],
    targets: dict[str, Targets] | None,
    clean: Float[Tensor, "image columns"],
    corrupted: Float[Tensor, "image columns"],
    *,
    several: bool,
) -> Pairs:
    """Pairs from the logits of their two runs.

    Args:
        model: The model that computed the logits.
        ones: Clean images.
        others: Corrupted images.
        targets: From `pair_targets`.
        clean: Logits of the clean runs.
        corrupted: Logits of the corrupted runs.
        several: Whether a mapping of targets was given.

    Raises:
        InputError: a score is NaN or infinite.
    """
    name = DEFAULT_TARGET if targets is None and len(ones) > 1 else ""
    targets = default_targets(model, clean, corrupted) if targets is None else targets
    scores = [read_targets(targets, logits).double().cpu().numpy() for logits in (clean, corrupted)]
    wrong = np.argwhere(~np.isfinite(scores))
    if len(wrong):
        side, row, column = wrong[0].tolist()
        raise InputError(
            f"The {('clean', 'corrupted')[side]} image of pair {row} scores {scores[side][row, column]:g} for "
            f"{list(targets.values())[column][row].name}, which cannot be compared; choose a target that is a finite "
            "number for every image."
        )
    return Pairs(model, ones, others, targets, several, name or ", ".join(targets), *scores)


def read_targets(
    targets: Mapping[str, Targets], logits: Float[Tensor, "batch columns"]
) -> Float[Tensor, "batch target"]:
    """The scores of all targets."""
    return torch.stack([each.value(logits) for each in targets.values()], dim=1)


def default_targets(
    model: HookedViT, clean: Float[Tensor, "image columns"], corrupted: Float[Tensor, "image columns"]
) -> dict[str, Targets]:
    """Why the clean image's predicted class rather than the corrupted one's, from the logits of both."""
    return several_explained(model, _predictions(model, clean, corrupted), len(clean))[1]


def _logits(model: HookedViT, images: list[Any], batch_size: int) -> Float[Tensor, "image columns"]:
    size = images_at_once(model, batch_size)
    return torch.cat([model(images[start : start + size]) for start in range(0, len(images), size)])


def _predictions(
    model: HookedViT, clean: Float[Tensor, "image columns"], corrupted: Float[Tensor, "image columns"]
) -> list[Any]:
    """The default target of each pair."""
    classes = model.n_classes
    pairs = zip(clean[:, :classes].argmax(1).tolist(), corrupted[:, :classes].argmax(1).tolist(), strict=True)
    if classes == 1:
        return [Logit(0)] * len(clean)
    return [Contrast(one, None if one == other else other) for one, other in pairs]
