"""Attention summed over pairs of regions: sums over blocks of a pattern, as products with indicators of regions."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caap_lab.models.regions import BACKGROUND, LEFT_OUT
from caap_lab.models.spec import ViTSpec

INTRA, INTER = "intra-object", "inter-object"
PREFIX_WORDS = {"cls": "class", "dist": "distillation", "reg": "registers"}
"""Names of prefix tokens by role, as used in kinds of pairs."""


def pair_kinds(spec: ViTSpec) -> tuple[str, ...]:
    """Kinds of (query, key) pairs in a model: two kinds within objects, otherwise "QUERY-to-KEY" in words."""
    roles = [PREFIX_WORDS[role] for role in dict.fromkeys(spec.prefix)]
    kinds = [INTRA, INTER, "object-to-background", *(f"object-to-{role}" for role in roles)]
    kinds += [f"background-to-{key}" for key in ("object", "background", *roles)]
    if "cls" in spec.prefix:
        kinds += [f"class-to-{key}" for key in ("object", "background", *roles)]
    return tuple(kinds)


def other_kinds(spec: ViTSpec) -> tuple[str, ...]:
    """Kinds of pairs whose query is the distillation token or a register."""
    roles = [PREFIX_WORDS[role] for role in dict.fromkeys(spec.prefix)]
    keys = ("object", "background", *roles)
    return tuple(f"{query}-to-{key}" for query in roles if query != PREFIX_WORDS["cls"] for key in keys)


def pool_kinds(spec: ViTSpec) -> tuple[str, ...]:
    """Kinds of pairs whose query is that of a head with attention pooling."""
    roles = [PREFIX_WORDS[spec.prefix[token]] for token in spec.read_tokens if token < spec.n_prefix]
    return tuple(f"pool-to-{key}" for key in ("object", "background", *dict.fromkeys(roles)))


class RegionPairs:
    """The pairs of tokens of every kind, in a batch of images: those of `pair_kinds`, then those of `other_kinds`."""

    def __init__(self, spec: ViTSpec, regions: Int[np.ndarray, "batch row col"]) -> None:
        """Assign every token of every image to a region.

        Args:
            spec: The spec of the model.
            regions: Each patch's object from 0, -1 for background, -2 for patches that are ignored.
        """
        n_objects = max(int(regions.max()) + 1, 0)
        roles = [PREFIX_WORDS[role] for role in spec.prefix]
        names = ["object"] * n_objects + ["background", "left out", *dict.fromkeys(roles)]
        patches = regions.reshape(len(regions), -1)
        patches = np.select([patches == BACKGROUND, patches == LEFT_OUT], [n_objects, n_objects + 1], patches)
        prefix = np.tile([names.index(role) for role in roles], (len(regions), 1)).astype(int)
        of_token = torch.from_numpy(np.concatenate([prefix, patches], axis=1))
        self.member = torch.nn.functional.one_hot(of_token, len(names))  # [batch, token, region]
        kinds = (*pair_kinds(spec), *other_kinds(spec))
        self.kinds = torch.from_numpy(np.stack([_pairs(kind, names) for kind in kinds])).double()
        self._read = list(spec.read_tokens)
        keys = [kind.partition("-to-")[2] for kind in pool_kinds(spec)]
        asked = [[name == key for name in names] for key in keys]
        self._pool_keys = torch.tensor(asked, dtype=torch.float64, device="cpu")
        size = self.member.sum(dim=1).double()
        self.n_pairs = torch.einsum("br,bs,krs->bk", size, size, self.kinds)
        self.n_queries = torch.einsum("br,kr->bk", size, self.kinds.amax(dim=2))

    def sums(self, pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch kind head"]:
        """Attention summed over the pairs of each kind, in float64 on the CPU."""
        member = self.member.to(pattern.device, pattern.dtype)[:, None]
        blocks = member.mT @ (pattern @ member)
        return torch.einsum("bhrs,krs->bkh", blocks.cpu().double(), self.kinds)

    def of_pool(
        self, row: Float[Tensor, "batch head key"]
    ) -> tuple[Float[Tensor, "batch kind head"], Float[Tensor, "batch kind head"]]:
        """Weight and mass of a pooling head's attention to the tokens that it reads, by `pool_kinds`."""
        member = self.member[:, self._read].double() @ self._pool_keys.T  # [batch, key, kind]
        mass = (row.cpu().double() @ member).mT
        size = member.sum(dim=1)[:, :, None]
        missing = torch.where(size > 0, 0.0, torch.nan)
        return mass / (size + missing), mass + missing

    def weight_and_mass(self, sums: Float[Tensor, "batch kind layer head"]) -> tuple[Tensor, Tensor]:
        """Sums over pairs as a mean over pairs, and as a mean over queries; NaN if an image has no such pair."""
        missing = torch.where(self.n_pairs > 0, 0.0, torch.nan)
        weight, mass = (sums / (count + missing)[:, :, None, None] for count in (self.n_pairs, self.n_queries))
        return weight, mass


def _pairs(kind: str, names: Sequence[str]) -> Bool[np.ndarray, "region region"]:
    within = kind in (INTRA, INTER)
    query, key = ("object", "object") if within else kind.split("-to-")
    pairs = np.outer(np.array(names) == query, np.array(names) == key)
    same = np.eye(len(names), dtype=bool)
    return pairs & (same if kind == INTRA else ~same) if within else pairs
