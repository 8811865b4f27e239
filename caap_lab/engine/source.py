"""The run of the source images, whose activations CAAP inserts into the blank."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.models.vit import HookedViT


@dataclass(frozen=True)
class SourceRun:
    """Activations of source images, by hook name, and their logits if the run was complete."""

    model: HookedViT
    n_images: int
    activations: dict[str, Float[Tensor, "image token ..."]]
    logits: Float[Tensor, "image classes"] | None

    def heads(self, name: str, layer: int, images: slice) -> Float[Tensor, "image head token d_head"]:
        """Queries, keys or values ("q", "k", "v") of some images."""
        return self.activations[f"blocks.{layer}.attn.hook_{name}"][images].transpose(1, 2)

    def keys_and_values(
        self, layer: int, images: slice
    ) -> tuple[Float[Tensor, "image head token d_head"], Float[Tensor, "image head token d_head"]]:
        """Keys and values of some images."""
        return self.heads("k", layer, images), self.heads("v", layer, images)

    def whole_resid(self, layer: int) -> Float[Tensor, "image token d_model"]:
        """Residual stream of all tokens entering a block (n_layers: leaving the last)."""
        last = self.model.spec.n_layers - 1
        name = f"blocks.{last}.hook_resid_post" if layer > last else f"blocks.{layer}.hook_resid_pre"
        return self.activations[name]


@torch.no_grad()
def run_source(
    model: HookedViT,
    images: Float[Tensor, "image 3 height width"],
    context: str,
    ranges: Sequence[tuple[int, int]],
    logits: bool,
) -> SourceRun:
    """The activations of source images that a context needs; the run stops as soon as it has them, or at the logits.

    Args:
        model: The model.
        images: Preprocessed images.
        context: The context.
        ranges: Pairs (start, cutoff), as for maps of several ranges of patched blocks.
        logits: Whether to compute the images' own logits as well.
    """
    patched = [(start, cutoff) for start, cutoff in ranges if cutoff > start]
    if not patched:
        return SourceRun(model, len(images), {}, model(images) if logits else None)
    n_layers = model.spec.n_layers
    first, stop = min(start for start, _ in patched), max(cutoff for _, cutoff in patched)
    stop = n_layers if context == "frozen" else stop
    names: list[str] = []
    if context == "free":
        names += [f"blocks.{layer}.hook_resid_pre" for layer in range(first, stop)]
    else:
        names += [f"blocks.{layer}.attn.hook_{name}" for layer in range(first, stop) for name in ("k", "v")]
    if context == "clamped":
        entered = {cutoff - 1 for _, cutoff in patched}
        names += [f"blocks.{layer}.{name}" for layer in sorted(entered) for name in ("attn.hook_q", "hook_resid_pre")]
    to_the_end = context == "frozen" and model.spec.reads_patches
    if to_the_end:
        names += [f"blocks.{n_layers - 1}.hook_resid_post"]
    kept: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: HookPoint) -> None:
        kept[str(hook.name)] = activation

    # Of the last patched block only the input of its heads is needed: the rest of it need not run.
    goes_on = logits or to_the_end
    last = f"blocks.{stop - 1}."
    with model.hooks(fwd_hooks=[(name, keep) for name in names if goes_on or not name.startswith(last)]):
        # From the embeddings on: images were checked during preprocessing, and checking again would wait for a GPU.
        entering = model(model.embed(images), start_at_layer=0, stop_at_layer=None if goes_on else stop - 1)
    if goes_on:
        return SourceRun(model, len(images), kept, logits=entering)
    block = model.architecture.block(stop - 1)
    if context == "free":
        return SourceRun(model, len(images), kept | {f"{last}hook_resid_pre": entering}, None)
    heads = block.attention.project_qkv(block.norm1(entering))
    kept |= {f"{last}attn.hook_{name}": t.transpose(1, 2) for name, t in zip("qkv", heads, strict=True)}
    return SourceRun(model, len(images), kept | {f"{last}hook_resid_pre": entering}, None)
