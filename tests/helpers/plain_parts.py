"""What parts of a timm model add to a logit, by forward hooks on timm's own modules and the formulas of its heads."""

from typing import Any

import torch
from torch import Tensor

from caap_lab import HookedViT


def frozen(norm: Any, x: Tensor, part: Tensor) -> Tensor:
    """A part of x through a LayerNorm or RMSNorm that keeps x's scale, without the bias."""
    if isinstance(norm, torch.nn.Identity):
        return part
    if isinstance(norm, torch.nn.LayerNorm):
        part = part - part.mean(-1, keepdim=True)
        return part / (x.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt() * norm.weight
    return part / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight


def scale_of(block: Any, which: int) -> Any:
    """A block's LayerScale behind attention (1) or MLP (2)."""
    gamma = getattr(getattr(block, f"ls{which}", None), "gamma", getattr(block, f"gamma_{which}", None))
    return 1.0 if gamma is None else gamma


class PlainParts:
    """One run of timm's model, taken apart."""

    def __init__(self, model: HookedViT, images: Tensor) -> None:
        self.model, vit = model, model.vit
        self.resid: list[Tensor] = []
        self.attn: list[Tensor] = []
        self.mlp: list[Tensor] = []
        seen: dict[str, Tensor] = {}
        handles = [
            vit.patch_embed.register_forward_hook(lambda m, a, out: seen.update(patches=out)),
            vit.blocks[0].register_forward_pre_hook(lambda m, a: seen.update(first=a[0])),
        ]
        for block in vit.blocks:
            handles += [
                block.attn.register_forward_hook(lambda m, a, out, b=block: self.attn.append(out * scale_of(b, 1))),
                block.mlp.register_forward_hook(lambda m, a, out, b=block: self.mlp.append(out * scale_of(b, 2))),
                block.register_forward_hook(lambda m, a, out: self.resid.append(out)),
            ]
        with torch.no_grad():
            vit(images)
        for handle in handles:
            handle.remove()
        self.first = seen["first"]
        patches = seen["patches"].flatten(1, -2)
        self.patches = torch.zeros_like(self.first)
        self.patches[:, model.spec.n_prefix :] = patches

    @torch.no_grad()
    def share(self, part: Tensor, layer: int, target: int) -> Tensor:
        """What a part [batch, token, d_model] that is added in a block adds to a logit."""
        model, vit, head, last = self.model, self.model.vit, self.model.head, self.resid[-1]
        n_prefix, n_layers = model.spec.n_prefix, model.n_layers
        ready = frozen(vit.norm, last, part)
        if model.spec.pool == "cls+mean":
            weight = head.linear.weight[target].unflatten(0, (-1, model.spec.d_model))
            total = ready[:, n_prefix:].mean(1) @ weight[-1]
            for place, block in enumerate(range(n_layers - model.class_layers, n_layers)):
                if layer <= block:
                    total = total + frozen(vit.norm, self.resid[block], part)[:, 0] @ weight[place]
            return total
        if "dist" in model.spec.prefix:
            return (ready[:, 0] @ vit.head.weight[target] + ready[:, 1] @ vit.head_dist.weight[target]) / 2
        if getattr(vit, "attn_pool", None) is not None:
            pool, x = vit.attn_pool, vit.norm(last)
            d, heads = pool.kv.weight.shape[0] // 2, pool.num_heads
            q = pool.q(pool.latent)[0].unflatten(-1, (heads, -1))
            k = pool.k_norm(pool.kv(x)[..., :d].unflatten(-1, (heads, -1)))
            pattern = torch.einsum("lhd,bnhd->blhn", pool.q_norm(q) * pool.scale, k).softmax(-1)
            v = (ready @ pool.kv.weight[d:].T).unflatten(-1, (heads, -1))
            z = torch.einsum("blhn,bnhd->blhd", pattern, v).flatten(2)[:, 0]
            return z @ pool.proj.weight.T @ vit.head.weight[target]
        whole = vit.norm(last)
        if model.spec.pool == "token":
            pooled, mean = ready[:, 0], whole[:, 0]
        else:
            pooled, mean = ready[:, n_prefix:].mean(1), whole[:, n_prefix:].mean(1)
        pooled, features = frozen(vit.fc_norm, mean, pooled), vit.fc_norm(mean)
        if head is None:
            return pooled @ vit.head.weight[target]
        length = vit.head(features).norm(dim=-1)  # text embeddings: a scaled cosine
        projected = pooled @ vit.head.weight.T
        return head.logit_scale * projected @ head.text_embeddings[target] / length
