"""Replacements of activations computed from reference images, with as little memory as each kind needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from caap_lab.activations.directions import DirectionEdit
from caap_lab.activations.record import record
from caap_lab.activations.replacements import Moments, drawn, mean_store, moments_of, noise_store
from caap_lab.activations.shards import SHARD_BYTES, bytes_per_image
from caap_lab.activations.store import ActivationStore
from caap_lab.checks import is_number
from caap_lab.digests.tensors import tensor_digest
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import Images
from caap_lab.models.batches import check_images
from caap_lab.models.names import layer_of, short_name
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.vit import HookedViT

REPLACEMENTS = ("mean", "token_mean", "shuffled", "noise", "zero")
"""Kinds of replacements."""


@contextmanager
def reference_source(
    model: HookedViT,
    images: list[Any],
    names: list[str],
    layers: list[int],
    replacement: str,
    reference: Images | ActivationStore | None,
    seed: int,
    batch_size: int,
    progress: bool,
) -> Iterator[ActivationStore]:
    """A store of replacement activations, for as long as the context is open.

    Means and noise need a few images at a time. Activations of other images are stored, in memory or, above 1 GiB, in a
    temporary folder.

    Args:
        model: The model.
        images: Single images whose activations will be replaced.
        names: Short names of hook points in blocks.
        layers: Their layers.
        replacement: One of `REPLACEMENTS` except "zero".
        reference: Images or a store to compute it from; None for the images themselves.
        seed: Seed of random draws.
        batch_size: Images run at once.
        progress: Show progress bars.

    Raises:
        InputError: there are too few images for this replacement, or the store lacks an activation.
    """
    stored = _held(model, reference, names, layers) if isinstance(reference, ActivationStore) else None
    others = images if reference is None else [] if stored is not None else check_images(reference)
    count = len(stored) if stored is not None else len(others)
    if count == 1 and replacement == "mean" and reference is not None:
        raise InputError(
            "replacement='mean' needs several reference images: the mean over one is its own activations, which "
            "'shuffled' inserts."
        )
    if count == 1 and reference is None and replacement in ("mean", "shuffled"):
        missing = "no mean over images but its own activations" if replacement == "mean" else "no other image"
        raise InputError(
            f"One image has {missing}, so replacement={replacement!r} needs reference=..., more images or a store. "
            "Without them, 'token_mean' is the mean over the image's own tokens, and 'noise' has their deviation."
        )
    if replacement != "shuffled":
        if stored is not None:
            like, moments = stored, moments_of(stored)
        else:
            like, moments = _moments(model, others, names, layers, batch_size, progress)
        if replacement == "noise":
            yield noise_store(like, moments, seed, images=len(images), count=count)
        else:
            yield mean_store(like, moments, tokens=replacement == "token_mean", count=count)
        return
    same = [] if reference is None else _places(model, images, others)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if stored is None:
            shapes = {site.hook: model.activation_shape(site.hook) for n in names for site in model.find(n, layers)}
            big = len(others) * bytes_per_image(shapes, model.dtype) > SHARD_BYTES
            out = f"{folder}/store" if big else None
            stored = record(model, others, names, layers=layers, batch_size=batch_size, out=out, progress=progress)
        yield stored.shuffled(seed) if reference is None else drawn(stored, same, seed)


def _places(model: HookedViT, images: list[Any], others: list[Any]) -> list[list[int]]:
    """For each image, where the image itself is among the others.

    Raises:
        InputError: all others are an image itself.
    """
    places: dict[str, list[int]] = {}
    for place, other in enumerate(others):
        places.setdefault(tensor_digest(model.preprocess(other)), []).append(place)
    found = [places.get(tensor_digest(model.preprocess(image)), []) for image in images]
    if len(places) == 1 and any(found):
        raise InputError("reference=... holds only an image that is to be changed; give other images as well.")
    return found


def is_edit(source: Any) -> bool:
    """True for an edit along directions, or one edit per layer: it changes activations instead of replacing them."""
    each = list(source.values()) if isinstance(source, Mapping) else [source]
    return bool(each) and all(isinstance(one, DirectionEdit) for one in each)


def replacement_name(source: Any) -> str:
    """Name of the source of patches in results."""
    if isinstance(source, ActivationStore):
        return source.replacement or f"activations of {counted(len(source), 'image')}"
    if isinstance(source, DirectionEdit):
        return source.replacement
    if is_edit(source):  # for example one probe per layer
        return "; ".join(dict.fromkeys(edit.replacement for edit in source.values()))
    if is_number(source):
        return "zero" if source == 0 else f"{source:g}"
    return "given activations"


def _moments(
    model: HookedViT, images: list[Any], names: list[str], layers: list[int], batch_size: int, progress: bool
) -> tuple[ActivationStore, dict[str, Moments]]:
    """Mean and standard deviation of activations over images, and a store of some of them."""
    size = images_at_once(model, batch_size)
    moments: dict[str, Moments] = {}
    with images_shown("reference images", len(images), size, progress) as bar:
        for start in range(0, len(images), size):
            some = record(model, images[start : start + size], names, layers=layers, batch_size=size, progress=False)
            for hook in some.shapes:
                moments.setdefault(hook, Moments()).add(some[hook])
            bar.update(len(some))
    return some, moments


def _held(model: HookedViT, store: ActivationStore, names: list[str], layers: list[int]) -> ActivationStore:
    """The part of a store that is needed."""
    store.require_model(model)
    hooks = [site.hook for name in names for site in model.find(name, layers)]
    for hook in hooks:
        if hook not in store.shapes:
            name = short_name(hook)
            raise InputError(
                f"The reference store does not hold {name} of layer {layer_of(hook)}; record it: "
                f"model.record(images, [{name!r}])."
            )
    return replace(store, shapes={hook: store.shapes[hook] for hook in hooks})
