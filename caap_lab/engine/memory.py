"""The number of images and patches that run at once within a memory limit.

An upper bound, computed from the shapes of the largest step. It does not include the model, the blank run, which is
cached with the model for all images, and the result.
"""

from dataclasses import dataclass
from math import ceil

from caap_lab.engine.layout import layout
from caap_lab.engine.merged import FEWEST_TOKENS
from caap_lab.engine.plan import CaapPlan
from caap_lab.models.at_once import at_most, images_at_once, widest_layer
from caap_lab.models.device_dtype import at_least_float32
from caap_lab.models.vit import HookedViT

GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """Numbers of images and patches that run at once."""

    images: int
    patches: int


def sizes_within(
    model: HookedViT, plans: list[CaapPlan], max_memory: float, batch_size: int, chunk_size: int | None
) -> Sizes:
    """The largest numbers of images and patches within a memory limit.

    At least one image, and one patch, or all patches of an image if groups share rows, run at once even if they exceed
    the limit.

    Args:
        model: The model.
        plans: The plans to run, one after the other, on the same images.
        max_memory: The limit in GiB.
        batch_size: Largest number of images.
        chunk_size: Number of patches, if given.
    """
    bound = max_memory * GIB
    of_image = _image_bytes(model, plans)
    # Patches are put into one image at a time.
    images = 1 if plans[0].direction == "remove" else int(min(batch_size, max(1, bound / 2 // of_image)))
    images = images_at_once(model, images)
    if chunk_size is not None:
        return Sizes(images, chunk_size)
    patches = int(max(1, (bound - images * of_image) // max(_patch_bytes(model, plan) for plan in plans)))
    patches = min(at_most(patches, _widest_bytes(model, plan), model.device) for plan in plans)
    n_patches = model.spec.n_patches
    if patches < n_patches:  # parts of equal size
        patches = ceil(n_patches / ceil(n_patches / patches))
    return Sizes(images, patches)


def _image_bytes(model: HookedViT, plans: list[CaapPlan]) -> int:
    """Bytes of an image's source run: its activations, and its largest step."""
    spec = model.spec
    whole = plans[0].context == "frozen" or plans[0].direction == "remove"
    layers = spec.n_layers if whole else max(max(plan.cutoffs) for plan in plans)
    width = spec.d_model if plans[0].context == "free" else 3 * spec.n_heads * spec.d_head + spec.d_model
    pixels = 3 * spec.image_size[0] * spec.image_size[1]
    return model.dtype.itemsize * (spec.n_tokens * (layers * width + _row_floats(model)) + 3 * pixels)


def _patch_bytes(model: HookedViT, plan: CaapPlan) -> float:
    """Bytes of a patch's group, or of its sequence in the free context."""
    if plan.context == "free":
        return _group_bytes(model, plan, 0, 0, 0)
    spec = model.spec
    groups = layout(spec, plan.neighbourhood, plan.tail, 0, spec.n_patches, model.device)
    rows = groups.live if plan.context == "clamped" else groups.prefix
    return _group_bytes(model, plan, len(rows.tokens) / spec.n_patches, groups.replaced.shape[1], rows.slots.shape[1])


def _widest_bytes(model: HookedViT, plan: CaapPlan) -> float:
    """Bytes of the largest tensor of a patch's group, or of its sequence in the free context."""
    spec, item = model.spec, model.dtype.itemsize
    if plan.context == "free":
        return spec.n_tokens * widest_layer(spec) * item
    groups = layout(spec, plan.neighbourhood, plan.tail, 0, spec.n_patches, model.device)
    rows = len((groups.live if plan.context == "clamped" else groups.prefix).tokens) / spec.n_patches
    scores = spec.n_heads * spec.n_tokens if spec.n_tokens < FEWEST_TOKENS else 0  # a kernel does not write them
    return rows * max(widest_layer(spec), scores) * item


def sets_within(model: HookedViT, plan: CaapPlan, largest: int, max_memory: float, chunk_size: int | None) -> int:
    """The largest number of sets of patches of one image within a memory limit; at least one.

    Args:
        model: The model.
        plan: The plan to run.
        largest: Number of patches of the largest set.
        max_memory: The limit in GiB.
        chunk_size: Number of sets, if given.
    """
    if chunk_size is not None:
        return chunk_size
    n_rows = len(model.spec.live_prefix) + largest
    bound = max_memory * GIB - _image_bytes(model, [plan])
    count = max(1, int(bound // _group_bytes(model, plan, n_rows, n_rows, n_rows)))
    tokens = model.spec.n_tokens if plan.context == "free" else n_rows
    return at_most(count, tokens * widest_layer(model.spec) * model.dtype.itemsize, model.device)


def _group_bytes(model: HookedViT, plan: CaapPlan, n_rows: float, n_own: int, n_slots: int) -> float:
    """Bytes of a group with some rows, own tokens and slots; in the free context, of a sequence."""
    spec, item = model.spec, model.dtype.itemsize
    wide = at_least_float32(model.dtype).itemsize  # the softmax runs in this format
    logits = 3 * wide * model.n_classes * len(plan.cutoffs)
    if plan.context == "free":
        return float(item * spec.n_tokens * _row_floats(model) + logits)
    floats = n_rows * _row_floats(model) + (4 * n_own + 3 * n_slots) * spec.n_heads * spec.d_head
    if spec.reads_patches:
        floats += 4 * spec.n_tokens * spec.d_model
    scores = (2 * wide + item) * n_rows * spec.n_heads * (spec.n_tokens + 1 + 2 * n_own)
    return float(item * floats + scores + logits)


def _row_floats(model: HookedViT) -> int:
    """Number of values per token in a block: streams, heads, and the MLP's layers before and after activation."""
    spec = model.spec
    mlp = spec.d_mlp * (2 if spec.gated_mlp else 1) + spec.d_model
    return 4 * spec.d_model + 5 * spec.n_heads * spec.d_head + 2 * mlp
