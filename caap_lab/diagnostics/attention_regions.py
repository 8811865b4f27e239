"""Attention of an object's patches, layer by layer and head by head (CAAP paper, section 3.2 and Fig. 6)."""

from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks
from caap_lab.checks import check_count, check_share
from caap_lab.data.image_set import ImageSet
from caap_lab.diagnostics.head_measures import attention_distance, attention_entropy, patch_distances
from caap_lab.diagnostics.region_pairs import RegionPairs, other_kinds, pair_kinds, pool_kinds
from caap_lab.diagnostics.region_result import AttentionRegions, OtherQueries
from caap_lab.diagnostics.regions import Photo, photos_with_regions
from caap_lab.errors import InputError
from caap_lab.models.base import Images, check_kind
from caap_lab.models.device_dtype import widened
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.regions import Masks
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT


@runs_model
@torch.no_grad()
def attention_regions(
    model: HookedViT,
    images: Images | ImageSet,
    masks: "Masks | list[Masks] | None" = None,
    *,
    ignored: Any = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    progress: bool = True,
) -> AttentionRegions:
    """Attention within objects, between objects, and between objects, background and prefix tokens.

    `other_queries()` of the result has the attention of registers, of a distillation token and of a pooling head.

    ```python
    cl.attention_regions(model, image, {"cat": cat, "dog": dog})
    cl.attention_regions(model, cl.open_images("imagenet-s:PATH").sample(128))
    ```

    Equation 6 of the CAAP paper (arXiv 2603.13652) splits a patch's attention into the part within its object and the
    rest. A patch belongs to the object that covers most of it, if that is at least the fraction `overlap`; if two cover
    it equally, to the one with fewer pixels; all other patches are background.

    Args:
        model: A Vision Transformer in evaluation mode.
        images: Images, or a data set whose images have masks.
        masks: The objects of an image: a bool mask [H, W] at the resolution of the model's input
            (`model.preprocessing.mask` returns one), or a list or dict of them. For several images, a list with one
            such entry per image. Masks of the same pixels count as one object. Omit it for a data set, which has its
            own masks.
        ignored: Pixels without annotation: a mask, or a list of one per image. Patches with mostly such pixels do not
            belong to any kind of pairs. Omit it for a data set.
        overlap: Minimum fraction of a patch that an object has to cover, from 0 (any pixel) to 1.
        batch_size: Images run at once. The attention of one layer of a batch is in memory at a time.
        progress: Show a progress bar when there is more than one batch.

    Raises:
        InputError: the model has no attention or is in training mode, masks are missing or do not fit, or no patch
            belongs to an object.
    """
    check_kind(model, "attention_regions")
    check_count("batch_size", batch_size)
    check_share("overlap", overlap)
    count, photos = photos_with_regions(model, images, masks, ignored, overlap)
    parts, names, regions = [], [], []
    with images_shown("attention", count, batch_size, progress) as bar:
        while batch := list(islice(photos, batch_size)):
            parts.append(_measure(model, batch))
            names += [photo.name for photo in batch]
            regions += [photo.regions for photo in batch]
            bar.update(len(batch))
    if not any((patches >= 0).any() for patches in regions):
        raise InputError(f"No object covers a fraction of {overlap} of any patch; use a smaller overlap.")
    weight, mass, distance, entropy, *of_pool = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    first = len(pair_kinds(model.spec))
    others = OtherQueries(other_kinds(model.spec), weight[:, first:], mass[:, first:])
    return AttentionRegions.of(
        pair_kinds(model.spec),
        weight[:, :first],
        mass[:, :first],
        distance,
        entropy,
        np.stack(regions),
        names,
        overlap=overlap,
        model_name=model.model_name,
        prefix=others if others.kinds else None,
        pool=OtherQueries(pool_kinds(model.spec), *of_pool) if of_pool else None,
    )


def _measure(model: HookedViT, batch: list[Photo]) -> tuple[np.ndarray, ...]:
    """Weight and mass [image, kind, layer, head], distance and entropy [image, layer, head].

    Then weight and mass [image, kind, head] of a head with attention pooling.
    """
    pairs = RegionPairs(model.spec, np.stack([photo.regions for photo in batch]))
    distances = patch_distances(model.spec)
    layers: list[tuple[Tensor, ...]] = []

    def read(pattern: Tensor, hook: Any) -> None:
        pattern = widened(pattern)
        distance = attention_distance(pattern, distances).cpu().double()
        entropy = attention_entropy(pattern, model.spec.n_patches).cpu().double()
        layers.append((pairs.sums(pattern), distance, entropy))

    pooling = model.readout.attention
    of_pool: list[Tensor] = []

    def read_pool(pattern: Tensor, hook: Any) -> None:
        assert pooling is not None
        of_pool.extend(pairs.of_pool(widened(pattern)[:, :, pooling.answers].mean(dim=2)))

    hooks = [(name, read) for name in block_hooks(model, "attn.pattern")]
    if pooling is not None:
        hooks.append(("attn_pool.hook_pattern", read_pool))
    with model.hooks(fwd_hooks=hooks):
        images = model.preprocess([photo.image for photo in batch])
        model(images, stop_at_layer=model.n_layers if pooling is None else None)
    sums, distance, entropy = (torch.stack(of_layers, dim=-2) for of_layers in zip(*layers, strict=True))
    return tuple(numbers.numpy() for numbers in (*pairs.weight_and_mass(sums), distance, entropy, *of_pool))
