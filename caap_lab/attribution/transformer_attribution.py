"""Transformer attribution: gradient and relevance of attention (Chefer et al. 2021, CVPR, arXiv 2012.09838)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from timm.layers import AttentionPoolLatent, GluMlp, Mlp, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.attribution.activations_and_gradients import block_hooks, differentiable_scores, on_grid, read_gradients
from caap_lab.attribution.attention_rows import row_of_product
from caap_lab.attribution.lrp import (
    add_rule,
    clone_rule,
    combined_rule,
    linear_rule,
    matmul_rule,
    matmul_slopes,
    mean_rule,
)
from caap_lab.attribution.method import method
from caap_lab.attribution.model_parts import NORMS, SILENT, is_activation, matrix_of, no_rule, parts, runs_as
from caap_lab.checks import first_block
from caap_lab.errors import InputError
from caap_lab.models.beit import BeitViT
from caap_lab.models.device_dtype import at_least_float32, widened
from caap_lab.models.eva import EvaViT
from caap_lab.models.float64 import in_float64
from caap_lab.models.heads import ClassAndMeanHead, ZeroShotHead
from caap_lab.models.names import short_name
from caap_lab.models.plain_vit import PlainViT
from caap_lab.models.rotary import Rotation
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(relevance of outputs, inputs, matrix) -> relevance of inputs."""
_NAME = "Transformer attribution"
_PROJECTIONS = (".qkv", ".q_proj", ".k_proj", ".v_proj", ".proj")
_LINEAR = (*_PROJECTIONS, ".fc1", ".fc1_g", ".fc1_x", ".fc2", ".attn_pool.q", ".attn_pool.kv")
"""Parts that use the linear rule; they must be linear."""
_HEADS = ("head", "vit.head", "vit.patch_embed", "vit.norm_pre")
"""Parts that `_through_head` handles, and those before block 0, which relevance does not reach."""


def transformer_attribution(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    start_layer: int = 0,
) -> Float[Tensor, "batch row col"]:
    """C[CLS, patches] of C = (I + C^{L-1}) ... (I + C^start), where C^l = mean_h (dy_c/dA^l_h * R^l_h)^+.

    R^l is the relevance of block l's attention, propagated from 1 at the target's logit by the rules in `lrp`. A target
    of several logits is one output of the head's last layer, whose weights are their combination (a contrast's, the
    difference of two rows; a function's, by its gradient).
    LayerNorm, activation functions, softmax, q/k norm, LayerScale and the normalisation of a zero-shot head pass it on
    unchanged; the factors of a gated MLP get half each; the latent query of attention pooling, a parameter, gets none.
    Rotary positions are linear in queries and keys, whose products are treated like products without rotation. Relative
    positions that are added to the scores get none, like biases. If the head reads other tokens than the class token,
    their rows are used; see `attention_rows.query_row`.

    The rules divide by values that may be near 0, which amplifies rounding: in float32 the map's error reached 88 % of
    its maximum on photos. So everything is computed in float64, in a copy of the model made for the call (twice the
    memory of a float32 model); on a device without float64, Apple's MPS, that copy is on the CPU. The rounding of
    float64 is amplified in the same way, but is 1e-9 times as large.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        start_layer: First block of the product; a negative number counts from the end. The authors' segmentation script
            starts at block 1, which gives other maps.

    Raises:
        InputError: there is no rule for a part of the model.
    """
    start_layer = first_block(model.n_layers, start_layer)
    _refuse_unknown(model)
    wide = in_float64(model)
    found = _attribution(wide, images.to(wide.device, wide.dtype), targets, start_layer)
    return found.to(images.device, at_least_float32(images.dtype))


def _attribution(
    model: HookedViT, images: Float[Tensor, "batch 3 height width"], targets: Targets, start_layer: int
) -> Float[Tensor, "batch row col"]:
    patterns, entering = block_hooks(model, "attn.pattern"), block_hooks(model, "resid_pre")
    leaving = block_hooks(model, "resid_post")[-1]
    # All in one run; gradients of the residual streams are not used.
    logits, states, gradients = read_gradients(model, images, targets, [*patterns[start_layer:], *entering, leaving])
    n_used = model.n_layers - start_layer
    relevances, _ = propagate(model, states[n_used:], slopes(targets, logits), start_layer)
    eye = torch.eye(model.spec.n_tokens, device=images.device, dtype=images.dtype)
    steps = [eye + (g * r).clamp(min=0).mean(dim=1) for g, r in zip(gradients[:n_used], relevances, strict=True)]
    return on_grid(model, row_of_product(model, steps))


def slopes(targets: Targets, logits: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
    """The gradient of each target with respect to the logits: 1 at a class, 1 and -1 at those of a contrast."""
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        return torch.autograd.grad(differentiable_scores(targets, logits).sum(), logits)[0]


@torch.no_grad()
def propagate(
    model: HookedViT, residuals: Sequence[Tensor], of_logits: Float[Tensor, "batch columns"], start_layer: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Relevance of the attention patterns of blocks from `start_layer` on, and that of tokens entering `start_layer`.

    Args:
        model: The model.
        residuals: Residual streams entering blocks 0 to L-1 and leaving the last one.
        of_logits: Gradients of the targets with respect to the logits, from `slopes`.
        start_layer: The block at which to stop.
    """
    relevance, of_class_tokens = _through_head(model, residuals, of_logits)
    found: list[Tensor] = []
    for layer in reversed(range(start_layer, model.n_layers)):
        if layer in of_class_tokens:
            relevance = relevance.clone()
            relevance[:, 0] = clone_rule(relevance[:, 0], of_class_tokens[layer])
        of_pattern, relevance = _through_block(model, layer, residuals[layer], relevance)
        found.append(of_pattern)
    return found[::-1], relevance


def _through_block(model: HookedViT, layer: int, entering: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of a block's attention pattern and of the stream entering it, from that of the stream leaving it."""
    block, name = cast(Any, model.block(layer)), f"vit.blocks.{layer}"
    x = _activations(model, layer, entering)
    skipped, of_mlp = add_rule(relevance, x["resid_mid"], x["mlp_out"])
    relevance = clone_rule(skipped, _through_mlp(f"{name}.mlp", block.mlp, model.dtype, x, of_mlp))
    skipped, of_attention = add_rule(relevance, x["resid_pre"], x["attn_out"])
    attn = block.attn
    shape = x["attn.z"].shape
    joined = x["attn.z"].flatten(2).to(model.dtype)
    if not isinstance(model.architecture, BeitViT):  # Beit has no norm there
        joined = attn.norm(joined)
    of_z = _through_linear(f"{name}.attn.proj", attn.proj, widened(joined), of_attention).reshape(shape)
    q, k, v = (x[short].transpose(1, 2) for short in ("attn.q", "attn.k", "attn.v"))
    of_pattern, of_v = matmul_rule(of_z.transpose(1, 2), x["attn.pattern"], v)
    of_q, of_k = matmul_slopes(of_pattern, q, k.mT)
    rotation = model.architecture.block(layer).attention.rotation
    heads = [_before_turning(rotation, q, of_q), _before_turning(rotation, k, of_k.mT), of_v]
    return of_pattern, clone_rule(skipped, _through_projections(f"{name}.attn", attn, x["ln1.normalized"], heads))


def _before_turning(rotation: Rotation | None, turned: Tensor, slope: Tensor) -> Tensor:
    """Relevance of queries or keys before the rotation by their positions, which is linear."""
    if rotation is None:
        return turned * slope
    return rotation.turn_back(turned) * rotation.pull_back(slope)


def _through_projections(name: str, attn: Any, x: Tensor, of_heads: list[Tensor]) -> Tensor:
    """Relevance of the input of attention, from that of queries, keys and values [batch, head, token, d_head]."""
    joined = [relevance.transpose(1, 2) for relevance in of_heads]  # [batch, token, head, d_head]
    if attn.qkv is not None:
        return _through_linear(f"{name}.qkv", attn.qkv, x, torch.cat([part.flatten(2) for part in joined], dim=2))
    of_x = torch.zeros_like(x)
    for short, relevance in zip(("q_proj", "k_proj", "v_proj"), joined, strict=True):
        layer = getattr(attn, short)
        n_own = getattr(attn, "num_heads" if short == "q_proj" else "num_kv_heads", attn.num_heads)
        # Several heads may share a key and its value, which get the sum.
        relevance = relevance.unflatten(2, (n_own, -1)).sum(dim=3).flatten(2)
        of_x = clone_rule(of_x, _through_linear(f"{name}.{short}", layer, x, relevance))
    return of_x


def _activations(model: HookedViT, layer: int, entering: Tensor) -> dict[str, Tensor]:
    """All activations inside one block, which is run again so that those of all blocks need not be stored at once."""
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: object) -> None:
        kept[short_name(hook.name)] = widened(x)  # type: ignore[attr-defined]

    inside = [name for name in model.hook_dict if name.startswith(f"blocks.{layer}.")]
    with model.hooks(fwd_hooks=[(name, keep) for name in inside]):
        model.run_block(layer, entering)
    return kept


def _through_mlp(name: str, mlp: nn.Module, dtype: torch.dtype, x: dict[str, Tensor], relevance: Tensor) -> Tensor:
    assert isinstance(mlp, (Mlp, GluMlp, SwiGLU))
    post = mlp.norm(x["mlp.post"].to(dtype))
    of_post = _through_linear(f"{name}.fc2", mlp.fc2, widened(post), relevance)
    inner = x["ln2.normalized"]
    if isinstance(mlp, SwiGLU):
        branches = ("fc1_g", mlp.fc1_g), ("fc1_x", mlp.fc1_x)
        return clone_rule(*(_through_linear(f"{name}.{short}", fc, inner, of_post / 2) for short, fc in branches))
    if isinstance(mlp, GluMlp):
        of_post = torch.cat([of_post, of_post], dim=-1) / 2
    return _through_linear(f"{name}.fc1", mlp.fc1, inner, of_post)


def _through_linear(name: str, module: nn.Module, x: Tensor, relevance: Tensor, rule: Rule = linear_rule) -> Tensor:
    """Relevance of a part's input x, from that of its output; the part may have adapters or be of another class."""
    return rule(relevance, x, matrix_of(_NAME, name, module, x))


def _through_module(name: str, module: nn.Module, x: Tensor, relevance: Tensor, rule: Rule = linear_rule) -> Tensor:
    """Relevance through a head: a linear part, or an nn.Sequential of linear parts, norms and activation functions.

    `rule` is that of the last linear part.
    """
    if runs_as(module, (nn.Sequential,)):
        steps = list(module.children())
        inputs = [x]
        for part in steps:
            inputs.append(widened(part(inputs[-1].to(x.dtype))))
        for index, part in reversed(list(enumerate(steps))):
            relevance = _through_module(f"{name}.{index}", part, inputs[index], relevance, rule)
            rule = rule if _is_handed_on(part) else linear_rule
        return relevance
    return relevance if _is_handed_on(module) else _through_linear(name, module, x, relevance, rule)


def _is_handed_on(module: nn.Module) -> bool:
    """True for a part that passes relevance on unchanged."""
    return runs_as(module, (*NORMS, *SILENT, nn.BatchNorm1d)) or is_activation(module)


def _through_head(model: HookedViT, residuals: Sequence[Tensor], of_logits: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """Relevance of tokens leaving the last block, and of class tokens leaving earlier ones, from the logits."""
    vit, head = model.vit, model.head
    normalized = vit.norm(residuals[-1])
    tokens = widened(normalized)
    # A target of several logits, such as a contrast, is treated as one output of a combined layer: relevances of both
    # signs would cancel in the totals that rules conserve.
    of_classes = bool(((of_logits == 1).sum(1) == 1).all() and ((of_logits != 0).sum(1) == 1).all())
    relevance = of_logits.to(tokens.dtype) if of_classes else torch.ones_like(tokens[:, 0, :1])
    rule = linear_rule if of_classes else partial(combined_rule, shares=of_logits)
    of_tokens = torch.zeros_like(tokens)
    if isinstance(head, ClassAndMeanHead):
        layers = [layer for layer in range(model.n_layers) if model.reads_class_token(layer)]
        earlier = [vit.norm(residuals[layer + 1][:, 0]) for layer in layers]
        pooled = widened(head.pool(normalized, earlier, model.spec.n_prefix))
        of_pooled = _through_module("head.linear", head.linear, pooled, relevance, rule)
        *of_earlier, of_class, of_mean = of_pooled.chunk(len(layers) + 2, dim=1)
        of_tokens[:, 0] = of_class
        of_tokens[:, model.spec.n_prefix :] = mean_rule(of_mean, tokens[:, model.spec.n_prefix :])
        return of_tokens, dict(zip(layers, of_earlier, strict=True))
    if isinstance(vit, VisionTransformerDistilled) and head is None:
        heads = cast(nn.Linear, vit.head), cast(nn.Linear, vit.head_dist)
        logits = [widened(fc(normalized[:, i])) / 2 for i, fc in enumerate(heads)]
        if not of_classes:
            logits = [(of_logits * one).sum(1, keepdim=True) for one in logits]
        for i, (part, fc) in enumerate(zip(add_rule(relevance, *logits), heads, strict=True)):
            of_tokens[:, i] = _through_module(f"vit.{('head', 'head_dist')[i]}", fc, tokens[:, i], part, rule)
        return of_tokens, {}
    features = vit.fc_norm(model.architecture.feature_readout().pool(normalized))
    if isinstance(head, ZeroShotHead):
        embedding = F.normalize(widened(vit.head(features)), dim=-1)
        relevance, rule = rule(relevance, embedding, head.get_buffer("text_embeddings")), linear_rule
    elif head is not None:
        relevance = _through_module("head", head, widened(vit.head(features)), relevance, rule)
        rule = rule if _is_handed_on(head) else linear_rule
    relevance = _through_module("vit.head", vit.head, widened(features), relevance, rule)
    read = list(model.spec.read_tokens)
    attn_pool = getattr(vit, "attn_pool", None)
    if attn_pool is not None:
        of_tokens[:, read] = _through_attention_pool(attn_pool, normalized[:, read], relevance)
    elif vit.global_pool == "token":
        of_tokens[:, 0] = relevance
    else:
        of_tokens[:, read] = mean_rule(relevance, tokens[:, read])
    return of_tokens, {}


def _through_attention_pool(pool: AttentionPoolLatent, x: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of the tokens that attention pooling reads, from that of its output.

    timm's module has no hook points, so its steps are repeated here. Its query is a parameter: Q K^T is linear in the
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
        of_hidden = _through_linear("vit.attn_pool.mlp.fc2", pool.mlp.fc2, widened(hidden), of_mlp)
        relevance = clone_rule(
            skipped, _through_linear("vit.attn_pool.mlp.fc1", pool.mlp.fc1, widened(inner), of_hidden)
        )
    relevance = _through_module("vit.attn_pool.proj", pool.proj, joined, relevance)
    of_z = relevance.unflatten(2, (pool.num_heads, -1)).transpose(1, 2)
    of_pattern, of_v = matmul_rule(of_z, pattern, v)
    of_k = 2 * matmul_rule(of_pattern, q, k.mT)[1].mT
    of_kv = torch.stack([of_k, of_v], dim=2).permute(0, 3, 2, 1, 4).flatten(2)
    return _through_linear("vit.attn_pool.kv", pool.kv, widened(x), of_kv)


def _through_latents(pool: AttentionPoolLatent, latents: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of the latents, from that of the output of attention pooling: their mean, or the first."""
    if pool.pool == "avg":
        return mean_rule(relevance, latents)
    return F.pad(relevance[:, None], (0, 0, 0, pool.latent_len - 1))


def _refuse_unknown(model: HookedViT) -> None:
    vit = model.vit
    if not isinstance(model.architecture, (PlainViT, EvaViT, BeitViT)):
        raise InputError(
            f"{_NAME} has no rules for {type(model.architecture).__name__}; it has rules for timm's VisionTransformer, "
            "Eva and Beit."
        )
    if any(model.architecture.block(layer).attention.gated for layer in range(model.n_layers)):
        raise InputError("Transformer attribution has no rule for gated attention, which this model has.")
    for name, module in parts(model):
        if any(isinstance(value, Tensor) and value.grad_fn is not None for value in vars(module).values()):
            raise InputError(
                f"The weights of {name} are made by a hook of torch.nn.utils.weight_norm, which cannot be copied; use "
                "torch.nn.utils.parametrizations.weight_norm instead."
            )
        named = name.endswith(_LINEAR) or name.startswith(_HEADS)
        # A forward set on the module itself stays with the original when the model is copied.
        if "forward" in vars(module) or not (named or _is_handed_on(module)):
            raise no_rule(_NAME, name, module)
    attn_pool = getattr(vit, "attn_pool", None)
    if attn_pool is None:
        known = model.spec.pool in ("token", "avg", "cls+mean")
    else:
        known = isinstance(attn_pool, AttentionPoolLatent) and attn_pool.pool in ("token", "avg")
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
    forwards=2,
    backwards=1,
)
