"""The sets of patches that have to run for the interactions of all pairs of some patches."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PairSets:
    """Sets of patches without duplicates, and the indices of those of patches and pairs."""

    masks: Bool[Tensor, "set patch"]
    """The patches of each set."""
    blank: int
    """Index of the empty set."""
    every: Int[np.ndarray, " patch"]
    """Index of the neighbourhood of each patch of the image; -1 if it is not run."""
    single: Int[np.ndarray, " chosen"]
    """Index of the neighbourhood of each chosen patch."""
    union: Int[np.ndarray, "chosen chosen"]
    """Index of the union of two neighbourhoods."""
    overlap: Int[np.ndarray, "chosen chosen"]
    """Index of the intersection of two neighbourhoods."""
    joint: int
    """Index of the union of all chosen neighbourhoods."""

    @classmethod
    def of(cls, neighbourhoods: Bool[Tensor, "patch patch"], chosen: list[int], *, every: bool) -> "PairSets":
        """The sets needed for some patches.

        Args:
            neighbourhoods: S_i of every patch of the image.
            chosen: Numbers of the patches whose pairs are needed.
            every: Also run the neighbourhood of every single patch.
        """
        of_chosen = neighbourhoods[chosen].numpy()
        first, second = np.triu_indices(len(chosen), 1)
        singles = np.arange(len(neighbourhoods)) if every else np.array(chosen)
        parts = [
            np.zeros_like(of_chosen[:1]),
            of_chosen.any(axis=0, keepdims=True),
            neighbourhoods.numpy()[singles],
            of_chosen[first] | of_chosen[second],
            of_chosen[first] & of_chosen[second],
        ]
        stacked = np.concatenate(parts)
        packed = np.ascontiguousarray(np.packbits(stacked, axis=1))
        rows = packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
        _, index, number = np.unique(rows, return_index=True, return_inverse=True)
        _, _, of_single, of_union, of_overlap = np.split(number, np.cumsum([len(part) for part in parts])[:-1])
        every_place = np.full(len(neighbourhoods), -1)
        every_place[singles] = of_single
        single = every_place[chosen]
        return cls(
            masks=torch.from_numpy(stacked[index]),
            blank=int(number[0]),
            every=every_place,
            single=single,
            union=_symmetric(single, of_union),
            overlap=_symmetric(single, of_overlap),
            joint=int(number[1]),
        )

    @property
    def shared(self) -> Int[np.ndarray, "chosen chosen"]:
        """How many patches two neighbourhoods share."""
        return self.masks.sum(dim=1).numpy()[self.overlap]

    def interaction(self, values: Float[np.ndarray, "image set *target"]) -> Float[np.ndarray, "image i j *target"]:
        """f(S_i and S_j) - f(S_i) - f(S_j) + f(blank); 0 on the diagonal."""
        found = self._second_difference(values, values[:, self.blank][:, None, None])
        place = np.arange(len(self.single))
        found[:, place, place] = 0
        return found

    def beyond_overlap(self, values: Float[np.ndarray, "image set *target"]) -> Float[np.ndarray, "image i j *target"]:
        """f(S_i and S_j) - f(S_i) - f(S_j) + f(intersection); 0 on the diagonal."""
        return self._second_difference(values, values[:, self.overlap])

    def effects(self, values: Float[np.ndarray, "image set *target"]) -> Float[np.ndarray, "image i *target"]:
        """f(S_i) - f(blank)."""
        return values[:, self.single] - values[:, [self.blank]]

    def _second_difference(self, values: np.ndarray, base: np.ndarray) -> np.ndarray:
        single = values[:, self.single]
        return values[:, self.union] - (single[:, :, None] + single[:, None, :]) + base  # exactly symmetric


def _symmetric(diagonal: np.ndarray, above: np.ndarray) -> Int[np.ndarray, "i j"]:
    """A symmetric table from its diagonal and the entries above it, row by row."""
    table = np.diag(diagonal)
    rows, cols = np.triu_indices(len(diagonal), 1)
    table[rows, cols] = table[cols, rows] = above
    return table
