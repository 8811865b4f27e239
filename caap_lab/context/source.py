"""The source images' run: what CAAP inserts into the blank."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.hooked.model import HookedViT


@dataclass(frozen=True)
class SourceRun:
    """Activations of source images, by hook name, and their logits if the run went to its end."""

    model: HookedViT
    n_images: int
    activations: dict[str, Tensor]
    logits: Float[Tensor, "image classes"] | None

    def heads(
        self, name: str, layer: int, image: Int[Tensor, " group"], patches: Int[Tensor, "group row"]
    ) -> Float[Tensor, "group head row d_head"]:
        """Queries, keys or values ("q", "k", "v") of some patches of each group's image."""
        stored = self.activations[f"blocks.{layer}.attn.hook_{name}"]
        return stored[image[:, None], patches + self.model.spec.n_prefix].transpose(1, 2)

    def resid(
        self, layer: int, image: Int[Tensor, " group"], patches: Int[Tensor, "group row"]
    ) -> Float[Tensor, "group row d_model"]:
        """Residual stream entering a block (n_layers: leaving the last) of some patches of each group's image."""
        return self.whole_resid(layer)[image[:, None], patches + self.model.spec.n_prefix]

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
    start: int,
    cutoffs: Sequence[int],
    logits: bool,
) -> SourceRun:
    """Run source images and keep what a context needs; stops after the last block that it needs, or with the logits."""
    last = model.spec.n_layers - 1
    stop = last + 1 if context == "frozen" else max(cutoffs)
    names: list[str] = []
    if context == "free":
        names += [f"blocks.{layer}.hook_resid_pre" for layer in range(start, stop)]
    elif max(cutoffs) > start:
        names += [f"blocks.{layer}.attn.hook_{name}" for layer in range(start, stop) for name in ("k", "v")]
        if context == "clamped":
            entered = [cutoff - 1 for cutoff in cutoffs if cutoff > start]
            names += [f"blocks.{layer}.{name}" for layer in entered for name in ("attn.hook_q", "hook_resid_pre")]
        if context == "frozen" and model.spec.reads_patches:
            names += [f"blocks.{last}.hook_resid_post"]
    kept: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: HookPoint) -> None:
        kept[str(hook.name)] = activation

    found = None
    if logits or names:
        with model.hooks(fwd_hooks=[(name, keep) for name in names]):
            found = model(images, stop_at_layer=None if logits else stop)
    return SourceRun(model, len(images), kept, found if logits else None)
