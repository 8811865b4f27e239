"""Run images and keep only the named activations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.activations.shards import SHARD_BYTES, Shard, bytes_per_image, check_disk, write_shard
from caap_lab.activations.store import ActivationStore, check_target, write_index
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.files import atomic_path
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import batches, check_images
from caap_lab.models.device_dtype import as_device, as_dtype, check_format
from caap_lab.models.names import Site
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT


@runs_model
def record(
    model: HookedViT,
    images: Images,
    names: str | Sequence[str],
    *,
    layers: int | Iterable[int] | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    batch_size: int = 32,
    out: str | Path | None = None,
    progress: bool = True,
) -> ActivationStore:
    """A store of the named activations of images.

    ```python
    store = model.record(images, ["resid_pre", "pattern"], layers=[0, 3])
    store["pattern", 3]    # [image, head, query, key]
    ```

    Only these activations are kept, and blocks after the last of them are not run.

    Args:
        model: The model.
        images: Any number of images.
        names: Hook names, full or short, such as ["resid_pre", "pattern"].
        layers: Layers for the names inside blocks; None for all.
        device: Device on which the activations are kept.
        dtype: Number format in which they are kept; the model's by default.
        batch_size: Images run at once.
        out: Folder to record into, at most 1 GiB of activations in memory at a time; the result is the opened store.
        progress: Show a progress bar when there is more than one batch.

    Raises:
        InputError: unknown name or layer, or more activations than memory or disk can hold (checked before the run).
    """
    check_kind(model, "record")
    check_count("batch_size", batch_size)
    sites = _sites(model, [names] if isinstance(names, str) else list(names), layers)
    shapes = {site.hook: model.activation_shape(site.hook) for site in sites}
    kept = as_dtype(dtype) if dtype is not None else model.dtype
    device = as_device(device)
    check_format(device, kept)
    n_images = len(check_images(images))
    per_image = bytes_per_image(shapes, kept)
    rows = n_images if out is None else max(1, min(n_images, SHARD_BYTES // per_image))
    target = None if out is None else Path(out)
    if target is not None:
        check_target(target)
        check_disk(target, n_images * per_image)
    _check_memory(rows * per_image, device)

    with nullcontext() if target is None else atomic_path(target) as part:
        if part is not None:
            part.mkdir()
        sizes = [min(rows, n_images - first) for first in range(0, n_images, rows)]
        shards: list[Shard] = []
        recording = uuid4().hex[:8]
        for tensors in _filled(model, images, sites, sizes, shapes, kept, device, batch_size, progress):
            shards.append(Shard(tensors if part is None else part, 0, sizes[len(shards)]))
            if part is not None:
                write_shard(part, tensors, recording)
        store = ActivationStore(
            model.model_name, model.fingerprint, shapes, kept, tuple(shards), n_layers=model.n_layers
        )
        if part is not None:
            write_index(part, store)
    return store if target is None else ActivationStore.open(target, model)


def _sites(model: HookedViT, names: list[str], layers: int | Iterable[int] | None) -> list[Site]:
    if not names:
        raise InputError("No names were given; give some, for example names=['resid_pre', 'pattern'].")
    chosen = list(layers) if isinstance(layers, Iterable) else layers
    sites: dict[str, Site] = {}
    for name in names:
        fixed = name in model.hook_dict or model.find(name)[0].layer is None
        sites.update({site.hook: site for site in model.find(name, None if fixed else chosen)})
    order = list(model.hook_dict)
    return sorted(sites.values(), key=lambda site: order.index(site.hook))


def _filled(
    model: HookedViT,
    images: Images,
    sites: list[Site],
    sizes: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
    batch_size: int,
    progress: bool,
) -> Iterator[dict[str, Tensor]]:
    """The activations of each shard, of `sizes` images, as soon as all its images have run.

    Each activation is copied while the model runs, so that the model's own one is freed when the next steps are done
    with it. The run stops after the last block that is needed.
    """
    ends = list(accumulate(sizes))
    begun: dict[int, dict[str, Tensor]] = {}
    done = written = 0

    def keep(activation: Tensor, hook: HookPoint) -> None:
        name = str(hook.name)
        for number, (end, size) in enumerate(zip(ends, sizes, strict=True)):
            first, last = max(done, end - size), min(done + len(activation), end)
            if first < last:
                tensors = begun.setdefault(number, {})
                if name not in tensors:
                    tensors[name] = torch.empty((size, *shapes[name]), dtype=dtype, device=device)
                kept = tensors[name][first - (end - size) : last - (end - size)]
                read = activation.detach()[first - done : last - done]
                kept.copy_(read)
                _check_range(name, read, kept)

    hooks: list[tuple[Any, Any]] = [(site.hook, keep) for site in sites]
    last_block = max(site.block(model.spec.n_layers) for site in sites)
    stop = None if last_block == model.spec.n_layers else last_block + 1
    with images_shown("recording", sum(sizes), batch_size, progress) as bar:
        for batch in batches(model, images, batch_size):
            with torch.no_grad(), model.hooks(fwd_hooks=hooks):
                model(batch, stop_at_layer=stop)
            done += len(batch)
            bar.update(len(batch))
            while written < len(ends) and ends[written] <= done:
                tensors = begun.pop(written)
                yield {hook: tensors[hook] for hook in shapes}
                written += 1


def _check_range(hook: str, activation: Tensor, kept: Tensor) -> None:
    """Raise InputError if an activation becomes infinite in the format in which it is kept."""
    narrower = torch.finfo(kept.dtype).max < torch.finfo(activation.dtype).max
    if narrower and bool((kept.isinf() & activation.isfinite().to(kept.device)).any()):
        raise InputError(
            f"{hook} reaches {float(activation.abs().max()):.4g}, which dtype="
            f"{str(kept.dtype).removeprefix('torch.')!r} cannot hold: its largest number is "
            f"{torch.finfo(kept.dtype).max:.4g}. Record with dtype={str(activation.dtype).removeprefix('torch.')!r}."
        )


def _check_memory(nbytes: int, device: torch.device) -> None:
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if nbytes > free:
        raise InputError(
            f"These activations need {nbytes / 2**20:,.1f} MiB and {device} has {free / 2**20:,.1f} MiB free. Record "
            "fewer names, layers or images, use dtype='float16', or record to disk with out='folder'."
        )
