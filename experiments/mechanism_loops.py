"""The functions of `caap_lab.mechanisms` as plain loops: torch's hooks on timm's modules, every run from the image.

For timm's ViT-tiny and for the logit of class 0 minus that of class 1. `experiments.mechanism_cost` times them.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

BATCH = 32
"""Rows of a batch: cells times images."""
LAYERS, HEADS = 12, 3
EVERY_HEAD = list(itertools.product(range(LAYERS), range(HEADS)))
SENDERS = list(itertools.product((6, 7, 8), range(HEADS)))
"""Heads whose paths to other heads are patched."""
RECEIVERS = [(9, 0, "q"), (9, 1, "k"), (9, 2, "v")]
"""The receivers: layer, head, and query, key or value."""
Cell = tuple[int, Any]
"""A layer, and the token or head that is patched in it."""
Edit = Callable[[Tensor, int, Any], None]
"""Changes the rows of a cell in place: activation, layer, token or head."""


def score(logits: Float[Tensor, "row class"]) -> Float[np.ndarray, " row"]:
    """The target's score of each row."""
    return (logits[:, 0] - logits[:, 1]).detach().double().numpy()


@contextmanager
def hooks(*pairs: tuple[Callable[[Any], Any], Any]) -> Iterator[None]:
    """Hooks that are removed at the end: (module.register_forward_hook, function), ..."""
    with ExitStack() as stack:
        for register, function in pairs:
            stack.callback(register(function).remove)
        yield


def inputs(vit: Any, modules: Sequence[Any], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the input of each module."""
    kept: list[Tensor] = []
    keep = lambda _, args: kept.append(args[0])  # noqa: E731
    with hooks(*[(module.register_forward_pre_hook, keep) for module in modules]):
        logits = vit(images)
    return logits, kept


def outputs(vit: Any, modules: Sequence[Any], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the output of each module."""
    kept: list[Tensor] = []
    keep = lambda _, __, out: kept.append(out)  # noqa: E731
    with hooks(*[(module.register_forward_hook, keep) for module in modules]):
        logits = vit(images)
    return logits, kept


@torch.no_grad()
def patched(vit: Any, modules: Sequence[Any], images: Tensor, cells: Sequence[Cell], edit: Edit) -> np.ndarray:
    """Scores [image, cell] with the input of a cell's module changed; cells are side by side in each batch."""
    count, found = len(images), []
    for first in range(0, len(cells), BATCH // count):
        some = cells[first : first + BATCH // count]

        def change(layer: int, some: Sequence[Cell] = some) -> Callable[..., tuple[Tensor]]:
            def hook(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
                x = args[0].clone()
                for place, (of_layer, what) in enumerate(some):
                    if of_layer == layer:
                        edit(x[place * count : (place + 1) * count], layer, what)
                return (x,)

            return hook

        layers = {layer for layer, _ in some}
        with hooks(*[(modules[layer].register_forward_pre_hook, change(layer)) for layer in layers]):
            found.append(score(vit(images.repeat(len(some), 1, 1, 1))).reshape(len(some), count))
    return np.concatenate(found).T


def projections(vit: Any) -> list[Any]:
    """The modules that receive the concatenated outputs of all heads."""
    return [block.attn.proj for block in vit.blocks]


def channels(head: int) -> slice:
    """The channels of a head among them."""
    return slice(head * 64, (head + 1) * 64)


@torch.no_grad()
def traced_tokens(vit: Any, clean: Tensor, corrupted: Tensor, cells: Sequence[Cell]) -> np.ndarray:
    """Scores with each token's clean stream inserted into the corrupted run; includes the scores of both runs."""
    _, source = inputs(vit, vit.blocks, clean)
    vit(corrupted)

    def edit(x: Tensor, layer: int, token: int) -> None:
        x[:, token] = source[layer][:, token]

    return patched(vit, vit.blocks, corrupted, cells, edit).reshape(-1)


@torch.no_grad()
def traced_heads(vit: Any, clean: Tensor, corrupted: Tensor) -> np.ndarray:
    """Scores with each head's clean output inserted into the corrupted run."""
    _, source = inputs(vit, projections(vit), clean)
    vit(corrupted)

    def edit(x: Tensor, layer: int, head: int) -> None:
        x[..., channels(head)] = source[layer][..., channels(head)]

    return patched(vit, projections(vit), corrupted, EVERY_HEAD, edit).reshape(-1)


@torch.no_grad()
def ablated_heads(vit: Any, images: Tensor) -> np.ndarray:
    """Change of the score when each head's output is replaced by its mean over the images."""
    logits, source = inputs(vit, projections(vit), images)
    means = [z.mean(0) for z in source]

    def edit(x: Tensor, layer: int, head: int) -> None:
        x[..., channels(head)] = means[layer][..., channels(head)]

    return (patched(vit, projections(vit), images, EVERY_HEAD, edit) - score(logits)[:, None]).reshape(-1)


def estimated_tokens(vit: Any, clean: Tensor, corrupted: Tensor) -> np.ndarray:
    """The corrupted score plus gradient times difference, by token."""
    with torch.no_grad():
        _, given = inputs(vit, vit.blocks, clean)
    with torch.enable_grad():
        logits, entering = inputs(vit, vit.blocks, corrupted)
        slopes = torch.autograd.grad(logits[0, 0] - logits[0, 1], entering)
    moved = [((a - b) * g).sum(-1)[0] for a, b, g in zip(given, entering, slopes, strict=True)]
    return score(logits)[0] + torch.cat(moved).detach().double().numpy()


@contextmanager
def only(vit: Any, layer: int, attn: list[Tensor], mlp: list[Tensor], z: Tensor) -> Iterator[None]:
    """A run with one row per head of a layer: in its row, a head has the other run's output, and all else is frozen."""

    def sender(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        x = args[0].clone()
        for head in range(HEADS):
            x[head, :, channels(head)] = z[0, :, channels(head)]
        return (x,)

    def fixed(value: Tensor) -> Callable[..., Tensor]:
        return lambda *_: value.expand(HEADS, -1, -1)

    frozen = [(vit.blocks[at].attn.register_forward_hook, fixed(attn[at])) for at in range(LAYERS) if at != layer]
    frozen += [(vit.blocks[at].mlp.register_forward_hook, fixed(mlp[at])) for at in range(LAYERS)]
    with hooks(*frozen, (projections(vit)[layer].register_forward_pre_hook, sender)):
        yield


def both_runs(vit: Any, clean: Tensor, corrupted: Tensor) -> tuple[float, list[Tensor], list[Tensor], list[Tensor]]:
    """The clean score, outputs of attention layers and MLPs in that run, and heads' outputs in the corrupted one."""
    logits, kept = outputs(vit, [module for block in vit.blocks for module in (block.attn, block.mlp)], clean)
    _, z = inputs(vit, projections(vit), corrupted)
    return float(score(logits)[0]), kept[::2], kept[1::2], z


@torch.no_grad()
def paths_to_logits(vit: Any, clean: Tensor, corrupted: Tensor) -> np.ndarray:
    """Direct effects of all heads on the score: the heads of a layer side by side."""
    base, attn, mlp, z = both_runs(vit, clean, corrupted)
    found = []
    for layer in range(LAYERS):
        with only(vit, layer, attn, mlp, z[layer]):
            found.append(score(vit(clean.repeat(HEADS, 1, 1, 1))) - base)
    return np.concatenate(found)


@torch.no_grad()
def paths_to_heads(vit: Any, clean: Tensor, corrupted: Tensor) -> np.ndarray:
    """Effects through each receiver: a third run for the senders of a layer, and a fourth for each receiver."""
    base, attn, mlp, z = both_runs(vit, clean, corrupted)
    qkv = vit.blocks[RECEIVERS[0][0]].attn.qkv
    found = []
    for layer in sorted({layer for layer, _ in SENDERS}):
        with only(vit, layer, attn, mlp, z[layer]):
            _, (received,) = outputs(vit, [qkv], clean.repeat(HEADS, 1, 1, 1))
        of_layer = []
        for _, head, part in RECEIVERS:
            first = ("qkv".index(part) * HEADS + head) * 64

            def receive(_: Any, __: Any, out: Tensor, first: int = first, received: Tensor = received) -> Tensor:
                out = out.clone()
                out[..., first : first + 64] = received[..., first : first + 64]
                return out

            with hooks((qkv.register_forward_hook, receive)):
                of_layer.append(score(vit(clean.repeat(HEADS, 1, 1, 1))) - base)
        found.append(np.stack(of_layer, axis=1))
    return np.concatenate(found).reshape(-1)


@torch.no_grad()
def head_shares(vit: Any, images: Tensor) -> np.ndarray:
    """The output of each head at the class token, through the final norm with its scale fixed."""
    seen: list[Tensor] = []
    with hooks((vit.norm.register_forward_pre_hook, lambda _, args: seen.append(args[0][:, 0]))):
        _, z = inputs(vit, projections(vit), images)
    (last,) = seen
    scale = (last.var(-1, keepdim=True, unbiased=False) + vit.norm.eps).sqrt()
    reads = (vit.head.weight[0] - vit.head.weight[1]) * vit.norm.weight
    reads = reads - reads.mean()
    found = []
    for layer, head in EVERY_HEAD:
        written = F.linear(z[layer][:, 0, channels(head)], projections(vit)[layer].weight[:, channels(head)])
        found.append((written / scale) @ reads)
    return torch.stack(found, dim=1).double().numpy().reshape(-1)


@torch.no_grad()
def lens(vit: Any, images: Tensor) -> np.ndarray:
    """The target's score and the rank of its class at every block and token; the scores are compared."""
    _, streams = outputs(vit, vit.blocks, images)
    found = []
    for stream in streams:
        logits = vit.head(vit.norm(stream))
        (logits > logits[..., :1]).sum(-1), logits.topk(10)
        found.append(logits[..., 0] - logits[..., 1])
    return torch.stack(found, dim=1).double().numpy().reshape(-1)


@torch.no_grad()
def patched_sets(vit: Any, image: Tensor, blank: Tensor, masks: Tensor, cutoff: int) -> np.ndarray:
    """CAAP's clamped context of each set of patches: the image's stream in these up to the cutoff, else the blank's."""
    _, source = inputs(vit, vit.blocks, image)
    _, empty = inputs(vit, vit.blocks, blank)
    found = []
    for some in masks.split(BATCH):
        inside = F.pad(some, (1, 0))[..., None]
        outside = F.pad(~some, (1, 0))[..., None]

        def enter(layer: int, inside: Tensor = inside, outside: Tensor = outside) -> Callable[..., tuple[Tensor]]:
            def hook(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
                x = torch.where(outside, empty[layer], args[0])
                return (torch.where(inside, source[layer], x) if layer < cutoff else x,)

            return hook

        with hooks(*[(block.register_forward_pre_hook, enter(layer)) for layer, block in enumerate(vit.blocks)]):
            found.append(score(vit(blank.repeat(len(some), 1, 1, 1))))
    return np.concatenate(found)
