"""The other direction: a blank's patches put into an image's run.

The engine's two runs change roles. Nothing else changes: "clamped" keeps the image's other tokens as they are in the
image, E-CAAP takes the image's own queries, and so on.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.plan import CaapPlan
from caap_lab.engine.source import SourceRun
from caap_lab.models.vit import HookedViT


@torch.no_grad()
def run_receiver(
    model: HookedViT, image: Float[Tensor, "1 3 height width"], context: str
) -> tuple[BlankRun, Float[Tensor, "1 classes"]]:
    """An image's whole run, for patches to be put into it as they are into a blank's; and its logits.

    Args:
        model: The model.
        image: As the model gets it.
        context: The context; all but "free" read queries, keys and values of every block, which are kept as they pass.
    """
    layers = range(model.n_layers)
    streams = [f"blocks.{layer}.hook_resid_pre" for layer in layers] + [f"blocks.{layers[-1]}.hook_resid_post"]
    heads = [] if context == "free" else [f"blocks.{layer}.attn.hook_{name}" for layer in layers for name in "qkv"]
    kept: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: HookPoint) -> None:
        kept[str(hook.name)] = activation[0]

    with model.hooks(fwd_hooks=[(name, keep) for name in streams + heads]):
        # From the embeddings on, as images were looked at when they were preprocessed, which waits for a GPU.
        logits = model(model.embed(image), start_at_layer=0)
    qkv = {}
    for layer in layers if heads else ():
        q, k, v = (kept[f"blocks.{layer}.attn.hook_{name}"].transpose(0, 1).contiguous() for name in "qkv")
        qkv[layer] = (q, k, v)
    return BlankRun(model, "", "", [kept[name] for name in streams], qkv), logits


def as_source(blank: BlankRun, plans: Sequence[CaapPlan]) -> SourceRun:
    """A blank's run as what is put into images.

    Args:
        blank: The run.
        plans: What is to run, which says which blocks are read.
    """
    n_layers = blank.model.n_layers
    kept = {f"blocks.{layer}.hook_resid_pre": resid[None] for layer, resid in enumerate(blank.resid[:n_layers])}
    kept[f"blocks.{n_layers - 1}.hook_resid_post"] = blank.resid[n_layers][None]
    for plan in plans:
        for layer in range(plan.start, max(plan.cutoffs)) if plan.context != "free" else ():
            heads = zip("qkv", blank.qkv(layer), strict=True)
            kept |= {f"blocks.{layer}.attn.hook_{name}": part.transpose(0, 1)[None] for name, part in heads}
    return SourceRun(blank.model, 1, kept, None)
