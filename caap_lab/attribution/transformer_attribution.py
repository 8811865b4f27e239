"""Transformer attribution: gradient and relevance of attention (Chefer et al. 2021, CVPR, arXiv 2012.09838)."""

from collections.abc import Sequence
from typing import cast

import torch
from timm.layers import AttentionPoolLatent, GluMlp, Mlp, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.attribution.attention import row_of_product, widened
from caap_lab.attribution.lrp import add_rule, clone_rule, linear_rule, matmul_rule, mean_rule
from caap_lab.attribution.method import method
from caap_lab.attribution.options import check_start_layer
from caap_lab.attribution.reading import block_hooks, on_grid, read_gradients
from caap_lab.errors import InputError
from caap_lab.hooked.block import attention_of
from caap_lab.hooked.heads import ClassAndMeanHead, ZeroShotHead
from caap_lab.hooked.model import HookedViT
from caap_lab.hooked.names import short_name


def transformer_attribution(model: HookedViT, images: Tensor, targets: Tensor, *, start_layer: int = 0) -> Tensor:
    """C[CLS, patches] of C = (I + C^{L-1}) ... (I + C^start), where C^l = mean_h (dy_c/dA^l_h * R^l_h)^+.

    R^l is the relevance of block l's attention, propagated from 1 at the target's logit by the rules in `lrp`.
    LayerNorm, activation functions, softmax, q/k norm, LayerScale and a zero-shot head's normalisation hand it on
    unchanged; the factors of a gated MLP get half each; the latent query of an attention pooling, a parameter, none.
    Models whose head reads other tokens than the class token have their rows: see `attention.query_row`.

    The rules divide by values that may be near 0, which magnifies rounding: on six photos, float32 and float64 maps of
    DeiT-tiny differ by 0.5 to 28 % of their maximum (rank correlation 0.93 to 1.00). Use float64 where that matters.

    Args:
        model: The model.
        images: [batch, 3, height, width].
        targets: [batch].
        start_layer: First block of the product; the paper's segmentation experiments leave out block 0.

    Raises:
        InputError: there is no rule for a part of the model.
    """
    check_start_layer(model, start_layer)
    _refuse_unknown(model)
    patterns, entering = block_hooks(model, "attn.pattern"), block_hooks(model, "resid_pre")
    leaving = block_hooks(model, "resid_post")[-1]
    # All in one run; gradients of the residual streams are not used.
    _, states, gradients = read_gradients(model, images, targets, [*patterns[start_layer:], *entering, leaving])
    n_used = model.n_layers - start_layer
    relevances, _ = propagate(model, states[n_used:], targets, start_layer)
    eye = torch.eye(model.spec.n_tokens, device=images.device)
    steps = [
        eye + (widened(g) * r).clamp(min=0).mean(dim=1) for g, r in zip(gradients[:n_used], relevances, strict=True)
    ]
    return on_grid(model, row_of_product(model, steps))


@torch.no_grad()
def propagate(
    model: HookedViT, residuals: Sequence[Tensor], targets: Tensor, start_layer: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Relevance of the attention patterns of blocks from `start_layer` on, and that of tokens entering `start_layer`.

    Args:
        model: The model.
        residuals: Residual streams entering blocks 0 to L-1 and leaving the last one.
        targets: [batch].
        start_layer: Where to stop.
    """
    relevance, of_class_tokens = _through_head(model, residuals, targets)
    found: list[Tensor] = []
    for layer in reversed(range(start_layer, model.n_layers)):
        if layer in of_class_tokens:
            relevance = relevance.clone()
            relevance[:, 0] = clone_rule(relevance[:, 0], of_class_tokens[layer])
        of_pattern, relevance = _through_block(model, layer, residuals[layer], relevance)
        found.append(of_pattern)
    return found[::-1], relevance


def _through_block(model: HookedViT, layer: int, entering: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """From the residual stream leaving a block to its attention pattern, and to the stream entering it."""
    block = model.block(layer)
    x = _activations(model, layer, entering)
    skipped, of_mlp = add_rule(relevance, x["resid_mid"], x["mlp_out"])
    relevance = clone_rule(skipped, _through_mlp(block.mlp, x, of_mlp))
    skipped, of_attention = add_rule(relevance, x["resid_pre"], x["attn_out"])
    attn = attention_of(block)
    heads = x["attn.z"].shape
    joined = attn.norm(x["attn.z"].flatten(2).to(model.dtype))
    of_z = linear_rule(of_attention, widened(joined), attn.proj.weight).reshape(heads)
    q, k, v = (x[name].transpose(1, 2) for name in ("attn.q", "attn.k", "attn.v"))
    of_pattern, of_v = matmul_rule(of_z.transpose(1, 2), x["attn.pattern"], v)
    of_q, of_k = matmul_rule(of_pattern, q, k.mT)
    of_qkv = torch.stack([of_q, of_k.mT, of_v], dim=2)  # [batch, head, 3, token, d_head]
    of_qkv = of_qkv.permute(0, 3, 2, 1, 4).flatten(2)
    return of_pattern, clone_rule(skipped, linear_rule(of_qkv, x["ln1.normalized"], attn.qkv.weight))


def _activations(model: HookedViT, layer: int, entering: Tensor) -> dict[str, Tensor]:
    """All activations inside one block, run again, so that those of all blocks need not be held at once."""
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: object) -> None:
        kept[short_name(hook.name)] = widened(x)  # type: ignore[attr-defined]

    inside = [name for name in model.hook_dict if name.startswith(f"blocks.{layer}.")]
    with model.hooks(fwd_hooks=[(name, keep) for name in inside]):
        model.run_block(layer, entering)
    return kept


def _through_mlp(mlp: nn.Module, x: dict[str, Tensor], relevance: Tensor) -> Tensor:
    assert isinstance(mlp, (Mlp, GluMlp, SwiGLU))
    post = mlp.norm(x["mlp.post"].to(mlp.fc2.weight.dtype))
    of_post = linear_rule(relevance, widened(post), mlp.fc2.weight)
    if isinstance(mlp, SwiGLU):
        halves = [linear_rule(of_post / 2, x["ln2.normalized"], fc.weight) for fc in (mlp.fc1_g, mlp.fc1_x)]
        return clone_rule(*halves)
    if isinstance(mlp, GluMlp):
        of_post = torch.cat([of_post, of_post], dim=-1) / 2
    return linear_rule(of_post, x["ln2.normalized"], mlp.fc1.weight)


def _through_head(model: HookedViT, residuals: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """From 1 at each target's logit to tokens leaving the last block, and to class tokens leaving earlier ones."""
    vit, head = model.vit, model.head
    normalized = vit.norm(residuals[-1])
    tokens = widened(normalized)
    relevance = F.one_hot(targets, model.n_classes).to(tokens.dtype)
    of_tokens = torch.zeros_like(tokens)
    if isinstance(head, ClassAndMeanHead):
        layers = [layer for layer in range(model.n_layers) if model.reads_class_token(layer)]
        earlier = [vit.norm(residuals[layer + 1][:, 0]) for layer in layers]
        pooled = widened(head.pool(normalized, earlier, model.spec.n_prefix))
        *of_earlier, of_class, of_mean = linear_rule(relevance, pooled, head.linear.weight).chunk(
            len(layers) + 2, dim=1
        )
        of_tokens[:, 0] = of_class
        of_tokens[:, model.spec.n_prefix :] = mean_rule(of_mean, tokens[:, model.spec.n_prefix :])
        return of_tokens, dict(zip(layers, of_earlier, strict=True))
    if isinstance(vit, VisionTransformerDistilled) and head is None:
        heads = cast(nn.Linear, vit.head), cast(nn.Linear, vit.head_dist)
        logits = [widened(fc(normalized[:, i])) / 2 for i, fc in enumerate(heads)]
        for i, (part, fc) in enumerate(zip(add_rule(relevance, *logits), heads, strict=True)):
            of_tokens[:, i] = linear_rule(part, tokens[:, i], fc.weight)
        return of_tokens, {}
    features = vit.fc_norm(vit.pool(normalized))
    if isinstance(head, ZeroShotHead):
        embedding = F.normalize(widened(vit.head(features)), dim=-1)
        relevance = linear_rule(relevance, embedding, head.get_buffer("text_embeddings"))
    if isinstance(vit.head, nn.Linear):
        relevance = linear_rule(relevance, widened(features), vit.head.weight)
    read = list(model.spec.read_tokens)
    if vit.attn_pool is not None:
        of_tokens[:, read] = _through_attention_pool(vit.attn_pool, normalized[:, read], relevance)
    elif vit.global_pool == "token":
        of_tokens[:, 0] = relevance
    else:
        of_tokens[:, read] = mean_rule(relevance, tokens[:, read])
    return of_tokens, {}


def _through_attention_pool(pool: AttentionPoolLatent, x: Tensor, relevance: Tensor) -> Tensor:
    """From an attention pooling's output to the tokens that it reads.

    timm's module has no hook points, so its steps are taken again. Its query is a parameter: Q K^T is linear in the
    keys, which get all of the relevance.
    """
    batch, tokens, _ = x.shape
    if pool.pos_embed is not None:
        x = x + pool.pos_embed.to(x.dtype)
    q = pool.q(pool.latent.expand(batch, -1, -1)).unflatten(2, (pool.num_heads, -1)).transpose(1, 2)
    k, v = pool.kv(x).reshape(batch, tokens, 2, pool.num_heads, pool.head_dim).permute(2, 0, 3, 1, 4)
    q, k = widened(pool.q_norm(q)), widened(pool.k_norm(k))
    v = widened(v)
    pattern = (pool.scale * q @ k.mT).softmax(dim=-1)
    joined = (pattern @ v).transpose(1, 2).flatten(2)
    projected = pool.proj(joined.to(x.dtype))
    if pool.mlp is None:
        relevance = _through_latents(pool, widened(projected), relevance)
    else:
        inner = pool.norm(projected)
        hidden = pool.mlp.act(pool.mlp.fc1(inner))
        added = pool.mlp.fc2(hidden)
        relevance = _through_latents(pool, widened(projected + added), relevance)
        skipped, of_mlp = add_rule(relevance, widened(projected), widened(added))
        of_hidden = linear_rule(of_mlp, widened(hidden), pool.mlp.fc2.weight)
        relevance = clone_rule(skipped, linear_rule(of_hidden, widened(inner), pool.mlp.fc1.weight))
    if isinstance(pool.proj, nn.Linear):
        relevance = linear_rule(relevance, joined, pool.proj.weight)
    of_z = relevance.unflatten(2, (pool.num_heads, -1)).transpose(1, 2)
    of_pattern, of_v = matmul_rule(of_z, pattern, v)
    of_k = 2 * matmul_rule(of_pattern, q, k.mT)[1].mT
    of_kv = torch.stack([of_k, of_v], dim=2).permute(0, 3, 2, 1, 4).flatten(2)
    return linear_rule(of_kv, widened(x), pool.kv.weight)


def _through_latents(pool: AttentionPoolLatent, latents: Tensor, relevance: Tensor) -> Tensor:
    """From what an attention pooling puts out to its latents: their mean, or the first."""
    if pool.pool == "avg":
        return mean_rule(relevance, latents)
    return F.pad(relevance[:, None], (0, 0, 0, pool.latent_len - 1))


def _refuse_unknown(model: HookedViT) -> None:
    vit = model.vit
    if any(model.block(layer).attn.gate is not None for layer in range(model.n_layers)):
        raise InputError("Transformer attribution has no rule for gated attention, which this model has.")
    if not isinstance(vit.head, (nn.Linear, nn.Identity)):
        raise InputError(f"Transformer attribution has no rule for a head of type {type(vit.head).__name__}.")
    if vit.attn_pool is None:
        known = model.spec.pool in ("token", "avg", "cls+mean")
    else:
        known = isinstance(vit.attn_pool, AttentionPoolLatent) and vit.attn_pool.pool in ("token", "avg")
    if not known:
        raise InputError(
            f"Transformer attribution has no rule for pool={model.spec.pool!r}; it has rules for a class token, a mean "
            "over tokens and timm's attention pooling."
        )


TRANSFORMER_ATTRIBUTION = method(
    transformer_attribution,
    name="transformer_attribution",
    family="relevance",
    source="Chefer et al. 2021, CVPR, arXiv 2012.09838",
    needs="attention, gradient, relevance",
    sign="positive",
    forwards="2",
    backwards="1",
)
