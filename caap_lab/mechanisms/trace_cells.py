"""Which activations each cell of a trace inserts: a hook point, layers, and tokens or heads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from caap_lab.activations.patch import HEADED, Patch, head_mask, token_mask
from caap_lab.activations.store import ActivationStore
from caap_lab.checks import check_choice, check_count
from caap_lab.errors import InputError
from caap_lab.models.names import check_layers
from caap_lab.models.regions import BACKGROUND, Masks, patch_regions
from caap_lab.models.vit import HookedViT

BY = ("token", "region", "head", "layer")
REST, PREFIX = "rest", "prefix tokens"
"""Regions without a mask: patches of no object, and class, distillation and register tokens."""


class TracePlace(NamedTuple):
    """The activations that one run inserts."""

    point: str
    layers: tuple[int, ...]
    tokens: Bool[np.ndarray, "image_or_one token"] | None
    """None for all tokens."""
    heads: tuple[int, ...] | None
    """None for all heads, and for points without heads."""

    def patch(self, source: ActivationStore, rows: slice) -> Patch:
        """The patch for some of the images, with their activations as the source."""
        tokens = self.tokens if self.tokens is None or len(self.tokens) == 1 else self.tokens[rows]
        return Patch(self.point, self.layers, tokens, source=source, heads=self.heads)

    def is_empty(self, rows: slice) -> bool:
        """True if no token of these images is patched."""
        return self.tokens is not None and not (self.tokens if len(self.tokens) == 1 else self.tokens[rows]).any()


@dataclass(frozen=True)
class TraceCells:
    """A table of places."""

    axes: dict[str, list[Any]]
    places: list[TracePlace]
    """One place per cell, in the order of the axes."""

    @property
    def points(self) -> list[str]:
        """Hook points without duplicates."""
        return list(dict.fromkeys(place.point for place in self.places))

    @property
    def layers(self) -> list[int]:
        """Layers in order without duplicates."""
        return sorted({layer for place in self.places for layer in place.layers})


def trace_cells(
    model: HookedViT,
    count: int,
    points: str | Sequence[str],
    by: str,
    layers: int | Iterable[int] | None,
    window: int,
    masks: Any,
    heads: Any,
    tokens: Any,
) -> TraceCells:
    """The cells of a trace for a number of pairs; the arguments are those of `caap_lab.trace`.

    Raises:
        InputError: the arguments do not fit the model or each other.
    """
    check_choice("by", by, BY)
    check_count("window", window)
    names = [points] if isinstance(points, str) else list(points)
    found = [_short_name(model, name) for name in names]
    if not found or len(set(found)) < len(found):
        raise InputError("points must be one or several different names of hook points, such as 'resid_pre'.")
    numbers = check_layers(layers, model.spec.n_layers)
    if (masks is not None) != (by == "region"):
        raise InputError("masks of objects are only for by='region'." if masks is not None else _NEED_MASKS)
    if masks is not None and tokens is not None:
        raise InputError("masks choose the tokens of by='region'; omit tokens.")
    chosen = None if tokens is None else token_mask(model, Patch("resid_pre", tokens=tokens), count).numpy()
    if (by == "head" or heads is not None) and not all(map(_is_headed, found)):
        without = next(name for name in found if not _is_headed(name))
        raise InputError(f"{without!r} has no heads; use a point with heads, such as points='z'.")
    own = None if heads is None else np.flatnonzero(head_mask(model, Patch("z", heads=heads), "z", model.spec.n_heads))
    of_heads = None if own is None else tuple(own.tolist())
    axis: dict[Any, tuple[Any, tuple[int, ...] | None]]
    if by == "token":
        if chosen is not None and len(chosen) > 1:
            raise InputError("by='token' needs the same tokens for all pairs: a chooser of cl.tokens, or numbers.")
        each = range(model.spec.n_tokens) if chosen is None else np.flatnonzero(chosen[0]).tolist()
        eye = np.eye(model.spec.n_tokens, dtype=bool)
        axis = {token: (eye[token : token + 1], of_heads) for token in each}
    elif by == "region":
        axis = {name: (mask, of_heads) for name, mask in region_tokens(model, masks, count).items()}
    elif by == "head":
        every = range(model.spec.n_heads) if of_heads is None else of_heads
        axis = {head: (chosen, (head,)) for head in every}
    else:
        axis = {None: (chosen, of_heads)}
    axes: dict[str, list[Any]] = {"point": names, "layer": numbers}
    axes |= {} if by == "layer" else {by: [*axis]}
    if isinstance(points, str):
        del axes["point"]
    places = [
        TracePlace(point, _around(layer, window, model.spec.n_layers), *axis[label])
        for point, layer, label in product(found, numbers, axis)
    ]
    return TraceCells(axes, places)


_NEED_MASKS = (
    "by='region' needs masks: for each pair a bool mask [H, W] of an object, as large as the model's input "
    "(model.preprocessing.mask makes one), or a list or dict of them."
)


def _around(layer: int, window: int, n_layers: int) -> tuple[int, ...]:
    """This many layers around one, with one more before it than after it for even numbers; clipped to the model."""
    first = layer - window // 2
    return tuple(range(max(0, first), min(n_layers, first + window)))


def _is_headed(point: str) -> bool:
    return point.split(".")[-1] in HEADED


def _short_name(model: HookedViT, name: str) -> str:
    site = model.find(name)[0]
    if site.layer is None:
        raise InputError(f"{name!r} is not inside a block, so it has no layers to trace.")
    if name == site.hook:
        raise InputError(f"{name!r} already contains its layer: use points={site.short!r}, layers={site.layer}.")
    return site.short


def region_tokens(model: HookedViT, masks: Any, count: int) -> dict[str, Bool[np.ndarray, "image token"]]:
    """Tokens of each object, of the rest and of the prefix, for each image; see `patch_regions` for the rule.

    Args:
        model: The model.
        masks: Masks of one image's objects, or one entry per image with the same objects.
        count: Number of images.

    Raises:
        InputError: the objects of an image are not those of the first, or an object covers no patch.
    """
    named = [_named(entry) for entry in _entries(masks, count)]
    names = [*named[0]]
    tokens = np.zeros((len(names) + 1, len(named), model.spec.n_tokens), dtype=bool)
    for image, objects in enumerate(named):
        if [*objects] != names:
            raise InputError(
                f"All pairs need masks of the same objects: {', '.join(names)} in pair 0, but "
                f"{', '.join(objects) or 'none'} in pair {image}."
            )
        regions = patch_regions(objects, model).reshape(-1)
        for place, name in enumerate([*names, REST]):
            tokens[place, image, model.spec.n_prefix :] = regions == (BACKGROUND if name == REST else place)
            if name != REST and not tokens[place, image].any():
                raise InputError(
                    f"The object {name!r} of pair {image} covers no patch: it must cover at least half of one, "
                    "and more of it than other objects. Omit this pair, or use a larger mask."
                )
    found = dict(zip([*names, REST], tokens, strict=True))
    if not found[REST].any():
        del found[REST]
    if model.spec.n_prefix:
        found[PREFIX] = np.arange(model.spec.n_tokens)[None] < model.spec.n_prefix
    return found


def _entries(masks: Any, count: int) -> list[Masks]:
    if count == 1 and not (isinstance(masks, (list, tuple)) and len(masks) == 1):
        return [masks]
    if not isinstance(masks, (list, tuple)) or len(masks) != count:
        many = f"{len(masks)} entries" if isinstance(masks, (list, tuple)) else type(masks).__name__
        raise InputError(f"masks needs a list with one entry for each of the {count} pairs, not {many}.")
    return list(masks)


def _named(masks: Masks) -> dict[str, Any]:
    """The masks of one image by name."""
    if isinstance(masks, Mapping):
        named = {str(name): mask for name, mask in masks.items()}
    elif getattr(masks, "ndim", 0) == 2:
        named = {"object": masks}
    else:
        named = {f"object {place}": mask for place, mask in enumerate(masks)}
    reserved = {REST, PREFIX} & set(named)
    if reserved:
        raise InputError(
            f"An object cannot be called {reserved.pop()!r}, which is the name of a region without a mask."
        )
    return named
