"""Attention, relevance and token-subset methods, each against its formula written out a second time."""

import math
from functools import cache, partial

import numpy as np
import pytest
import scipy.stats
import torch
from timm.layers import apply_rot_embed_cat
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab import HookedViT
from caap_lab.attribution import lrp
from caap_lab.attribution.activations_and_gradients import block_hooks, read_activations
from caap_lab.attribution.atman import atman, suppression
from caap_lab.attribution.gen_att import gen_att
from caap_lab.attribution.mutex import masks, mutex, statistics
from caap_lab.attribution.rollout import rollout
from caap_lab.attribution.tam import tam
from caap_lab.attribution.tis import centroids, tis
from caap_lab.attribution.token_subset import largest, logits_of_subsets
from caap_lab.attribution.transformer_attribution import propagate, transformer_attribution
from caap_lab.errors import InputError
from caap_lab.models.float64 import in_float64
from caap_lab.models.heads import ClassAndMeanHead, ZeroShotHead
from helpers.beits import beit_embedding, beit_logits_of_subset
from helpers.models import build, by_trait, random_images, timm_model
from helpers.targets import of_classes


@cache
def case(family: str) -> tuple[HookedViT, Tensor, Tensor]:
    """A model in float64, two images and their targets."""
    model = build(family, torch.float64)
    return model, random_images(model, 2), torch.tensor([1, 4])


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest error as a share of the largest value."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


# -- what the plain formulas share ------------------------------------------------------------------------------------


def attention_and_slope(model: HookedViT, image: Tensor, target: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """A [head, query, key] of all blocks, and dy_c/dA: the slope of a zero that is added to it."""
    patterns, zeros = [], []

    def add_zero(x: Tensor, hook: object) -> Tensor:
        patterns.append(x[0].detach())
        zeros.append(torch.zeros_like(x, requires_grad=True))
        return x + zeros[-1]

    with torch.enable_grad(), model.hooks(fwd_hooks=[(n, add_zero) for n in block_hooks(model, "attn.pattern")]):
        y = model(image[None])[0, target]
    return patterns, [g[0] for g in torch.autograd.grad(y, zeros)]


def heads_row(model: HookedViT, matrix: Tensor) -> Tensor:
    """The head's own row of [query, key]."""
    first = model.spec.n_prefix
    if isinstance(model.head, ClassAndMeanHead) or (model.spec.pool == "map" and "cls" in model.spec.prefix):
        return (matrix[:first].mean(0) + matrix[first:].mean(0)) / 2
    if "dist" in model.spec.prefix:
        return (matrix[0] + matrix[1]) / 2
    return matrix[0] if model.spec.pool == "token" else matrix[first:].mean(0)


def grid(model: HookedViT, tokens: Tensor) -> Tensor:
    return tokens[model.spec.n_prefix :].reshape(model.spec.grid)


def positions_for(model: HookedViT, layer: int) -> dict[str, Tensor]:
    """What timm's block is given of positions, by its name: sines and cosines of patches, or a shared bias."""
    vit = model.vit
    if getattr(vit, "rel_pos_bias", None) is not None:
        return {"shared_rel_pos_bias": vit.rel_pos_bias()}
    if getattr(vit, "rope", None) is None:
        return {}
    table = vit.rope.get_embed(vit.patch_embed.grid_size)
    return {"rope": table[layer] if vit.rope_mixed else table}


def plain_embedding(model: HookedViT, image: Tensor) -> Tensor:
    vit = model.vit
    if isinstance(vit, Beit):
        return beit_embedding(vit, image)
    tokens = vit._pos_embed(vit.patch_embed(image[None]))
    return vit.norm_pre(tokens[0] if isinstance(tokens, tuple) else tokens)


def plain_head(model: HookedViT, leaving: list[Tensor]) -> Tensor:
    """Logits [class] from the streams leaving all blocks."""
    vit = model.vit
    if isinstance(model.head, ClassAndMeanHead):
        normed = [vit.norm(x)[0] for x in leaving]
        parts = [x[0] for x in normed[-model.class_layers :]] + [normed[-1][model.spec.n_prefix :].mean(0)]
        return model.head.linear(torch.cat(parts))
    return vit.forward_head(vit.norm(leaving[-1]))[0]


def plain_logits_of_subset(model: HookedViT, image: Tensor, kept: Tensor) -> Tensor:
    """Logits with only some patches: the others are cut out before timm's own blocks."""
    if isinstance(model.vit, Beit):
        return beit_logits_of_subset(model.vit, image, kept).detach()
    x = plain_embedding(model, image)
    n_prefix = model.spec.n_prefix
    x = torch.cat([x[:, :n_prefix], x[:, n_prefix:][:, kept]], dim=1)
    leaving = []
    for layer, block in enumerate(model.vit.blocks):
        positions = {name: table[..., kept, :] for name, table in positions_for(model, layer).items()}
        x = block(x, **positions)
        leaving.append(x)
    return plain_head(model, leaving).detach()


# -- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["vit", "deit_distilled", "siglip", "dino_head1"])
@pytest.mark.parametrize("start", [0, 2])
def test_rollout_is_its_formula(family: str, start: int) -> None:
    model, images, targets = case(family)
    found = rollout(model, images, of_classes(targets), start_layer=start)
    for image, target, map_ in zip(images, targets, found, strict=True):
        product = torch.eye(model.spec.n_tokens, dtype=torch.double)
        for pattern in attention_and_slope(model, image, target)[0][start:]:
            mean = sum(head for head in pattern) / len(pattern)
            mixed = mean + torch.eye(len(mean), dtype=torch.double)
            product = (mixed / mixed.sum(dim=1, keepdim=True)) @ product
        assert relative(map_, grid(model, heads_row(model, product))) < 1e-10


@pytest.mark.parametrize("family", ["vit", "average_pool_class_token", "dino_head4"])
@pytest.mark.parametrize("start", [0, 1])
def test_gen_att_is_its_formula(family: str, start: int) -> None:
    model, images, targets = case(family)
    found = gen_att(model, images, of_classes(targets), start_layer=start)
    for image, target, map_ in zip(images, targets, found, strict=True):
        relevance = torch.eye(model.spec.n_tokens, dtype=torch.double)
        for a, g in list(zip(*attention_and_slope(model, image, target), strict=True))[start:]:
            step = sum((a[h] * g[h]).clamp(min=0) for h in range(len(a))) / len(a)
            relevance = relevance + step @ relevance
        assert relative(map_, grid(model, heads_row(model, relevance))) < 1e-10


@pytest.mark.parametrize("family", ["vit", "average_pool", "deit_distilled"])
@pytest.mark.parametrize("start", [0, 3])
def test_tam_is_its_formula(family: str, start: int) -> None:
    model, images, targets = case(family)
    found = tam(model, images, of_classes(targets), steps=4, start_layer=start)
    for image, target, map_ in zip(images, targets, found, strict=True):
        patterns, _ = attention_and_slope(model, image, target)
        state = heads_row(model, patterns[-1].mean(0))
        for layer in range(model.n_layers - 2, start - 1, -1):
            state = (
                torch.stack(
                    [
                        sum(state[q] * patterns[layer].mean(0)[q, k] for q in range(len(state)))
                        for k in range(len(state))
                    ]
                )
                + state
            )
        slopes = [attention_and_slope(model, image * share, target)[1][-1] for share in (0, 1 / 3, 2 / 3, 1)]
        mean = sum(slopes) / 4
        weight = sum(heads_row(model, mean[h]).clamp(min=0) for h in range(len(mean))) / len(mean)
        assert relative(map_, grid(model, state * weight)) < 1e-10


# -- relevance --------------------------------------------------------------------------------------------------------


def all_products(relevance: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Alpha-1 rule with every product x_i w_ji written out; [token, d_out] -> [token, d_in]."""
    products = (x[:, None, :] * weight[None]).clamp(min=0)
    total = products.sum(dim=2, keepdim=True)
    return (torch.where(total > 0, products / total, 0) * relevance[:, :, None]).sum(dim=1)


def all_terms(relevance: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Rule of a matrix product, every term u_ik v_kj written out."""
    terms = first[:, :, None] * second[None]  # row, inner, col
    shares = terms / terms.sum(dim=1, keepdim=True) * relevance[:, None] / 2
    return shares.sum(dim=2), shares.sum(dim=0)


def plain_add(relevance: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    a, b = first * relevance / (first + second), second * relevance / (first + second)
    size = a.sum().abs() + b.sum().abs()
    return (
        a * (a.sum().abs() / size * relevance.sum() / a.sum()),
        b * (b.sum().abs() / size * relevance.sum() / b.sum()),
    )


def plain_mean(relevance: Tensor, x: Tensor) -> Tensor:
    found = torch.zeros_like(x)
    for d in range(x.shape[1]):
        agree = [t for t in range(len(x)) if x[t, d] * x[:, d].sum() > 0]
        found[agree, d] = relevance[d] * x[agree, d] / x[agree, d].sum()
    return found


def all_turned_terms(relevance: Tensor, q: Tensor, k: Tensor, turn_q: Tensor, turn_k: Tensor) -> tuple[Tensor, Tensor]:
    """Rule of (q T_a) (k T_b)^T, every term q_ai T_ai. T_bj. k_bj written out; T is [token, d_head, d_head]."""
    terms = torch.einsum("ai,aim,bjm,bj->abij", q, turn_q, turn_k, k)
    shares = terms / terms.sum((2, 3), keepdim=True) * relevance[:, :, None, None] / 2
    return shares.sum((1, 3)), shares.sum((0, 2))


def plain_mlp(mlp: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, bool]:
    """What enters the last layer of an MLP, the weight of its first, and whether it is gated."""
    if hasattr(mlp, "fc1_g"):
        return mlp.norm(mlp.act(mlp.fc1_g(x)) * mlp.fc1_x(x)), torch.cat([mlp.fc1_g.weight, mlp.fc1_x.weight]), True
    hidden = mlp.fc1(x)
    if mlp.fc1.out_features == mlp.fc2.in_features:
        return mlp.norm(mlp.act(hidden)), mlp.fc1.weight, False
    one, two = hidden.chunk(2, dim=1)
    return mlp.norm(one * mlp.act(two) if mlp.gate_last else mlp.act(one) * two), mlp.fc1.weight, True


def layer_scale(block: nn.Module, name: str, x: Tensor) -> Tensor:
    gamma = getattr(block, name, None)
    return x if gamma is None else gamma * x


def plain_block(
    block: nn.Module,
    x: Tensor,
    relevance: Tensor,
    rope: Tensor | None = None,
    shared_rel_pos_bias: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Relevance [token, d_model] through one block: of its attention, and of what enters it."""
    attn, mlp = block.attn, block.mlp
    n, heads, width = len(x), attn.num_heads, x.shape[1] // attn.num_heads
    bias = shared_rel_pos_bias + (attn._get_rel_pos_bias()[0] if getattr(attn, "window_size", None) else 0.0)
    bias = torch.zeros(heads, n, n).double() + bias
    scale_1, scale_2 = (getattr(block, f"ls{i}", partial(layer_scale, block, f"gamma_{i}")) for i in (1, 2))
    normed = block.norm1(x)
    if attn.qkv is None:
        layers = attn.q_proj, attn.k_proj, attn.v_proj
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    else:
        apart = getattr(attn, "q_bias", None) is not None
        qkv_bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias]) if apart else attn.qkv.bias
        weights, biases = attn.qkv.weight.chunk(3), qkv_bias.chunk(3)
    q, k, v = (
        F.linear(normed, weight, bias).reshape(n, -1, width) for weight, bias in zip(weights, biases, strict=True)
    )
    q_norm, k_norm, norm = (getattr(attn, name, nn.Identity()) for name in ("q_norm", "k_norm", "norm"))
    q, k = q_norm(q), k_norm(k)
    turn = torch.eye(width).double().expand(heads, n, width, width)
    if rope is not None:
        table = rope.expand(heads, *rope.shape[-2:])[:, :, None].double()
        still = n - table.shape[1]
        turned = apply_rot_embed_cat(turn[:, still:], table, half=attn.rotate_half)
        turn = torch.cat([turn[:, :still], turned], dim=1)
    read = [h * k.shape[1] // heads for h in range(heads)]  # several heads may read one key
    queries = [torch.einsum("ti,tij->tj", q[:, h], turn[h]) for h in range(heads)]
    keys = [torch.einsum("ti,tij->tj", k[:, read[h]], turn[h]) for h in range(heads)]
    patterns = [(queries[h] @ keys[h].T * width**-0.5 + bias[h]).softmax(1) for h in range(heads)]
    z = norm(torch.cat([patterns[h] @ v[:, read[h]] for h in range(heads)], dim=1))
    attn_out = scale_1(attn.proj(z))
    middle = x + attn_out
    normed2 = block.norm2(middle)
    post, first, gated = plain_mlp(mlp, normed2)
    past, of_mlp = plain_add(relevance, middle, scale_2(mlp.fc2(post)))
    of_post = all_products(of_mlp, post, mlp.fc2.weight)
    of_hidden = torch.cat([of_post / 2, of_post / 2], dim=1) if gated else of_post
    relevance = past + all_products(of_hidden, normed2, first)
    past, of_attn = plain_add(relevance, x, attn_out)
    of_z = all_products(of_attn, z, attn.proj.weight).reshape(n, heads, width)
    of_heads, of_patterns = [torch.zeros_like(part) for part in (q, k, v)], []
    for h in range(heads):
        of_pattern, of_v = all_terms(of_z[:, h], patterns[h], v[:, read[h]])
        of_q, of_k = all_turned_terms(of_pattern, q[:, h], k[:, read[h]], turn[h], turn[h])
        for part, head, found in zip(of_heads, (h, read[h], read[h]), (of_q, of_k, of_v), strict=True):
            part[:, head] += found
        of_patterns.append(of_pattern)
    of_normed = [all_products(part.flatten(1), normed, w) for part, w in zip(of_heads, weights, strict=True)]
    return torch.stack(of_patterns), past + sum(of_normed)


def plain_pool(model: HookedViT, x: Tensor, target: Tensor) -> Tensor:
    """SigLIP's attention pooling: from the target's logit to the normalised tokens."""
    vit = model.vit
    pool, n = vit.attn_pool, len(x)
    heads, width = pool.num_heads, pool.head_dim
    q = pool.q(pool.latent[0]).reshape(heads, width)
    k, v = pool.kv(x).reshape(n, 2, heads, width).unbind(1)
    patterns = [(width**-0.5 * k[:, h] @ q[h]).softmax(0)[None] for h in range(heads)]
    z = torch.cat([patterns[h] @ v[:, h] for h in range(heads)], dim=1)
    out = pool.proj(z)
    normed = pool.norm(out)
    hidden = pool.mlp.act(pool.mlp.fc1(normed))
    added = pool.mlp.fc2(hidden)
    relevance = all_products(torch.ones(1, 1).double(), out + added, vit.head.weight[target][None])
    past, of_mlp = plain_add(relevance, out, added)
    of_hidden = all_products(of_mlp, hidden, pool.mlp.fc2.weight)
    of_z = all_products(past + all_products(of_hidden, normed, pool.mlp.fc1.weight), z, pool.proj.weight)
    of_kv = torch.zeros(n, 2, heads, width).double()
    for h in range(heads):
        of_pattern, of_kv[:, 1, h] = all_terms(of_z.reshape(heads, width)[h][None], patterns[h], v[:, h])
        of_kv[:, 0, h] = 2 * all_terms(of_pattern, q[h][None], k[:, h].T)[1].T  # the query is a parameter
    return all_products(of_kv.reshape(n, -1), x, pool.kv.weight)


def plain_relevance(model: HookedViT, image: Tensor, target: Tensor) -> tuple[list[Tensor], Tensor]:
    """Relevance of all blocks' attention, and of the embeddings."""
    vit, n_prefix = model.vit, model.spec.n_prefix
    streams = [plain_embedding(model, image)[0]]
    for layer, block in enumerate(vit.blocks):
        streams.append(block(streams[-1][None], **positions_for(model, layer))[0])
    normed = [vit.norm(x) for x in streams[1:]]
    last = normed[-1]
    one = torch.ones(1, 1).double()
    relevance = torch.zeros_like(last)
    extra: dict[int, Tensor] = {}
    if isinstance(model.head, ClassAndMeanHead):
        layers = range(model.n_layers - model.class_layers, model.n_layers)
        pooled = torch.cat([*(normed[layer][0] for layer in layers), last[n_prefix:].mean(0)])
        parts = all_products(one, pooled[None], model.head.linear.weight[target][None])[0].split(last.shape[1])
        extra = dict(zip(layers, parts[:-1], strict=True))
        relevance[n_prefix:] = plain_mean(parts[-1], last[n_prefix:])
    elif "dist" in model.spec.prefix:
        scores = [fc(last[i])[target] for i, fc in enumerate((vit.head, vit.head_dist))]
        for i, fc in enumerate((vit.head, vit.head_dist)):
            share = scores[i].abs() / (scores[0].abs() + scores[1].abs())
            relevance[i] = all_products(share * one, last[i][None], fc.weight[target][None])[0]
    elif model.spec.pool == "map":
        relevance = plain_pool(model, last, target)
    elif model.spec.pool == "avg":
        mean = vit.fc_norm(last[n_prefix:].mean(0))
        of_mean = all_products(one, mean[None], vit.head.weight[target][None])[0]
        relevance[n_prefix:] = plain_mean(of_mean, last[n_prefix:])
    else:
        relevance[0] = all_products(one, last[:1], vit.head.weight[target][None])[0]
    found = []
    for layer in reversed(range(model.n_layers)):
        if layer in extra:
            relevance[0] = relevance[0] + extra[layer]
        of_pattern, relevance = plain_block(vit.blocks[layer], streams[layer], relevance, **positions_for(model, layer))
        found.append(of_pattern)
    return found[::-1], relevance


@torch.no_grad()
def streams_of(model: HookedViT, images: Tensor) -> list[Tensor]:
    hooks = [*block_hooks(model, "resid_pre"), block_hooks(model, "resid_post")[-1]]
    return read_activations(model, images, hooks)[1]


LRP_FAMILIES = [
    "vit", "vit_qk_norm", "gated_qk_norm", "deit_distilled", "deit3", "clip", "dinov2_registers", "dinov2_swiglu",
    "glu_gate_last", "siglip", "average_pool", "average_pool_class_token", "dino_head1", "dino_head4", "dinov3",
    "rope_mixed", "shared_keys", "beit", "conv_stem",
]  # fmt: skip


PACKED = "gated_qk_norm"
"""A gated MLP whose two branches are one layer, which no family of `make test` has."""


@pytest.mark.parametrize("family", [PACKED, *by_trait(family for family in LRP_FAMILIES if family != PACKED)])
def test_transformer_attribution_is_its_formula(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lrp, "GUARD", 0.0)
    model, images, targets = case(family)
    of_patterns, entering = propagate(model, streams_of(model, images), F.one_hot(targets, model.n_classes).double())
    found = {start: transformer_attribution(model, images, of_classes(targets), start_layer=start) for start in (0, 1)}
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        with torch.no_grad():
            plain, of_embedding = plain_relevance(model, image, target)
        assert relative(entering[i], of_embedding) < 1e-5
        _, slopes = attention_and_slope(model, image, target)
        for start, maps in found.items():
            product = torch.eye(model.spec.n_tokens, dtype=torch.double)
            for layer in range(start, model.n_layers):
                assert relative(of_patterns[layer][i], plain[layer]) < 1e-5
                product = product + (slopes[layer] * plain[layer]).clamp(min=0).mean(0) @ product
            assert relative(maps[i], grid(model, heads_row(model, product))) < 1e-5


def test_relevance_is_conserved(family: str) -> None:
    """All rules keep the total, 1, but for the guard in quotients, a share of 1e-9 / |Z|; measured: 2e-8 at most.

    Of the attention pattern, which is one of several branches, no total is promised.
    """
    model, images, targets = case(family)
    of_patterns, entering = propagate(model, streams_of(model, images), F.one_hot(targets, model.n_classes).double())
    assert len(of_patterns) == model.n_layers
    torch.testing.assert_close(entering.sum((1, 2)), torch.ones(2).double(), atol=1e-6, rtol=0)


def test_rules_conserve_and_stand_zeros() -> None:
    generator = torch.Generator().manual_seed(0)
    relevance, u, v = torch.randn(3, 2, 5, 4, generator=generator, dtype=torch.double)
    weight = torch.randn(4, 60, generator=generator, dtype=torch.double)
    x = torch.randn(2, 5, 60, generator=generator, dtype=torch.double)
    of_x = lrp.linear_rule(relevance, x, weight)
    torch.testing.assert_close(of_x.sum(-1), relevance.sum(-1), atol=1e-6, rtol=0)  # token by token
    assert (lrp.linear_rule(relevance.abs(), x, weight) >= 0).all()
    # An output without one positive product has nowhere to send its relevance: it is lost.
    one = torch.ones(1, 1).double()
    assert lrp.linear_rule(one, one, -one).item() == 0
    of_u, of_v = lrp.add_rule(relevance, u, v)
    torch.testing.assert_close((of_u + of_v).sum((1, 2)), relevance.sum((1, 2)))
    of_u, of_w = lrp.matmul_rule(relevance, x, weight.T.expand(2, 60, 4))
    torch.testing.assert_close(of_u.sum((1, 2)), relevance.sum((1, 2)) / 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(of_w.sum((1, 2)), relevance.sum((1, 2)) / 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(lrp.mean_rule(relevance[:, 0], u).sum(1), relevance[:, 0])
    zero = torch.zeros_like(u)
    assert torch.equal(lrp.add_rule(relevance, zero, zero)[0], zero)
    assert torch.equal(lrp.add_rule(relevance, u, -u)[0], zero)
    assert torch.equal(lrp.linear_rule(relevance, torch.zeros_like(x), weight), torch.zeros_like(x))
    assert torch.equal(lrp.mean_rule(relevance[:, 0], zero), zero)


def test_zero_shot_head_hands_relevance_through_its_norm() -> None:
    model, images, targets = case("average_pool")
    texts = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    shot = HookedViT(model.vit, head=ZeroShotHead(texts, 100.0).double())
    of_tokens = propagate(shot, streams_of(shot, images), F.one_hot(targets, 5).double(), start_layer=3)[1]
    assert of_tokens.isfinite().all()
    torch.testing.assert_close(of_tokens.sum((1, 2)), torch.ones(2).double(), atol=1e-6, rtol=0)
    assert transformer_attribution(shot, images, of_classes(targets)).isfinite().all()


def test_parts_without_a_rule_are_refused() -> None:
    vit = timm_model("vit_base_patch16_224", global_pool="max", depth=2)
    model = HookedViT(vit)
    with pytest.raises(InputError, match="no rule for pool='max'"):
        transformer_attribution(model, random_images(model, 1), of_classes([0]))


@pytest.mark.parametrize("family", ["vit", "deit3", "dinov2_swiglu", "average_pool"])
@pytest.mark.parametrize("start", [0, 2])
def test_transformer_attribution_loses_nothing_in_float32(family: str, start: int) -> None:
    model, exact = build(family), build(family, torch.float64)
    images, targets = random_images(model, 2), torch.tensor([1, 4])
    found = transformer_attribution(model, images, of_classes(targets), start_layer=start)
    expected = transformer_attribution(exact, images.double(), of_classes(targets), start_layer=start)
    assert found.dtype == torch.float32 and model.dtype == torch.float32
    assert relative(found.double(), expected) < 1e-6
    assert (
        relative(transformer_attribution(exact, images.double(), of_classes(targets), start_layer=start - 4), expected)
        < 1e-12
    )


def test_the_copy_in_float64_has_the_models_hooks() -> None:
    model = build("vit")
    images, target = random_images(model, 1), torch.tensor([1])
    plain = transformer_attribution(model, images, of_classes(target))
    kept = model.run_with_cache(images)[1]["blocks.1.hook_resid_post"].detach()  # in float32
    assert in_float64(model) is not model and in_float64(model.double()) is model
    model.float()
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda x, hook: (x + (kept - x).detach()).float())]):
        same = transformer_attribution(model, images, of_classes(target))
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda x, hook: x.flip(1))]):
        other = transformer_attribution(model, images, of_classes(target))
    assert relative(same, plain) < 1e-2 and relative(other, plain) > 0.1
    assert not model.has_hooks()


# -- token subsets ----------------------------------------------------------------------------------------------------


def test_subset_is_the_model_without_the_other_tokens(family: str) -> None:
    model, images, _ = case(family)
    n = model.spec.n_patches
    keep = torch.rand(5, n, generator=torch.Generator().manual_seed(0)) < 0.4
    keep[1], keep[3] = True, keep[0]
    found = logits_of_subsets(model, model.embed(images)[1].detach(), keep, chunk_size=2)
    expected = torch.stack([plain_logits_of_subset(model, images[1], kept) for kept in keep])
    assert relative(found, expected) < 1e-12
    torch.testing.assert_close(found[1], model(images)[1].detach())
    assert torch.equal(found[0], found[3])


def test_empty_subset_is_refused_where_the_head_reads_patches_only() -> None:
    empty = torch.zeros(1, 16, dtype=torch.bool)
    model, images, _ = case("average_pool")
    with pytest.raises(InputError, match="keeps no patch"):
        logits_of_subsets(model, model.embed(images)[0].detach(), empty)
    model, images, _ = case("vit")
    assert logits_of_subsets(model, model.embed(images)[0].detach(), empty).isfinite().all()


def mean_where_kept(model: HookedViT, image: Tensor, keep: Tensor, target: Tensor) -> Tensor:
    total, count = torch.zeros(keep.shape[1]).double(), torch.zeros(keep.shape[1]).double()
    for kept in keep:
        total += plain_logits_of_subset(model, image, kept).softmax(0)[target] * kept
        count += kept
    return (total / count.clamp(min=1)).reshape(model.spec.grid)


def plain_masks(patterns: list[Tensor], n_prefix: int, min_cut: float, ratio: float) -> Tensor:
    found = []
    for operator in (np.min, np.max, np.sum):
        network = []
        for pattern in patterns:
            links = operator(pattern[:, n_prefix:, n_prefix:].numpy(), axis=0)
            links[links < min_cut * links.max()] = 0
            network.append(links)
        for axis in (0, 1):
            degrees = np.stack([links.sum(axis=axis) for links in network])  # layer, patch
            columns: list[list[float]] = []
            for d in degrees.T:
                same = np.ptp(d) <= 1e-6 * d.max()
                std = 0.0 if same else float(np.std(d, ddof=1))
                columns.append([
                    float(scipy.stats.entropy(d)) if d.sum() else 0.0,
                    d.max(), d.min(), d.sum(), std, d.sum() / (std + 1e-8), sorted(d)[(len(d) - 1) // 2],
                    0.0 if same else float(scipy.stats.skew(d)), 0.0 if same else float(scipy.stats.kurtosis(d)),
                ])  # fmt: skip
            for values in np.array(columns).T:
                lowest = sorted(values)[math.ceil(ratio * len(values)) - 1]
                found.append(values >= lowest - 1e-6 * abs(lowest))
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize("family", ["vit", "siglip", "dino_head1"])
@pytest.mark.parametrize(("ratio", "start"), [(0.5, 0), (0.3, 1)])
def test_mutex_is_its_formula(family: str, ratio: float, start: int) -> None:
    model, images, targets = case(family)
    found = mutex(model, images, of_classes(targets), token_ratio=ratio, start_layer=start, min_cut=0.05)
    patterns, _ = attention_and_slope(model, images[0], targets[0])
    keep = plain_masks(patterns[start:], model.spec.n_prefix, 0.05, ratio)
    assert len(keep) == 54
    assert relative(found[0], mean_where_kept(model, images[0], keep, targets[0])) < 1e-10


def test_mutex_stands_constants_one_layer_and_zeros() -> None:
    for strengths in (torch.full((4, 6), 0.1).double() / 3, torch.zeros(4, 6).double(), torch.rand(1, 6).double()):
        values = statistics(strengths)
        assert values.shape == (9, 6) and values.isfinite().all()
        assert not values[[4, 7, 8]].any()  # spread, skewness, kurtosis
    # All patches equal: nothing tells them apart, so every mask keeps them all.
    assert masks(torch.full((3, 2, 6, 6), 1 / 6), 0.01, 0.5).all()
    model, images, targets = case("vit")
    assert mutex(model, images, of_classes(targets), start_layer=3).isfinite().all()
    assert mutex(model, torch.zeros_like(images), of_classes(targets)).isfinite().all()


@pytest.mark.parametrize("prefix", [True, False])
def test_mutex_tells_patches_apart_where_attention_is_nearly_uniform(prefix: bool) -> None:
    # As in a model without training: entropies of what a patch receives or gives differ by less than a millionth.
    generator = torch.Generator().manual_seed(0)
    scores = 1e-3 * torch.randn(4, 2, 31, 31, generator=generator, dtype=torch.float64)
    attention = scores.softmax(dim=-1)[..., int(prefix) :, int(prefix) :]
    sizes = masks(attention, 0.01, 0.5).sum(dim=1).view(3, 2, 9)
    exactly = attention.shape[-1] - math.ceil(0.5 * attention.shape[-1]) + 1
    if prefix:
        assert (sizes == exactly).all()
    else:  # all heads' attention given sums to the number of heads, and nothing tells patches apart by it
        assert (sizes[2, 1] == attention.shape[-1]).all()
        assert (sizes[:2] == exactly).all() and (sizes[2, 0] == exactly).all()
    few = masks(attention[:3], 0.01, 0.5).sum(dim=1).view(3, 2, 9)
    assert (few[..., 8] == attention.shape[-1]).all()  # any three values have the kurtosis -1.5


def test_mutex_keeps_all_of_equal_patches() -> None:
    attention = torch.zeros(1, 1, 4, 4)
    attention[0, 0, 0] = torch.tensor([0.1, 0.2, 0.2, 0.3])
    received = masks(attention, 0.0, 0.75)[3]  # sum of attention received
    assert received.tolist() == [False, True, True, True]


@pytest.mark.parametrize("family", ["vit", "average_pool"])
def test_tis_is_its_formula(family: str) -> None:
    from sklearn.cluster import KMeans

    model, images, targets = case(family)
    _, leaving = read_activations(model, images[:1], block_hooks(model, "resid_post"))
    columns = torch.stack([x[0, model.spec.n_prefix :, d] for x in leaving for d in range(x.shape[2])])
    fitted = torch.from_numpy(KMeans(6, n_init=1, random_state=3).fit(columns.numpy()).cluster_centers_)
    for clusters, centres in ((6, fitted), (1024, columns)):
        keep = torch.zeros(centres.shape, dtype=torch.bool)
        for mask, centre in zip(keep, centres, strict=True):
            mask[sorted(range(len(centre)), key=lambda t: -float(centre[t]))[: len(centre) // 4]] = True
        found = tis(model, images[:1], of_classes(targets[:1]), clusters=clusters, kept=0.25, seed=3)
        assert relative(found[0], mean_where_kept(model, images[0], keep, targets[0])) < 1e-10


def test_tis_seed_and_equal_columns() -> None:
    model, images, targets = case("vit")
    one = tis(model, images, of_classes(targets), clusters=8, seed=0)
    assert torch.equal(one, tis(model, images, of_classes(targets), clusters=8, seed=0))
    assert not torch.equal(one, tis(model, images, of_classes(targets), clusters=8, seed=1))
    equal = torch.ones(30, 5)
    assert centroids(equal, 4, 0).shape == (1, 5)
    nearly = torch.cat([equal, equal + 1e-7 * torch.arange(30)[:, None], torch.randn(2, 5)])
    assert centroids(nearly, 8, 0).isfinite().all()  # fewer clusters than asked for, and no warning
    assert largest(torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]]), 2).tolist() == [[False, True, True, False, False]]


# -- AtMan ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_atman(model: HookedViT, image: Tensor, target: Tensor, factor: float, similarity: float) -> Tensor:
    vit, n_prefix = model.vit, model.spec.n_prefix
    patches = vit.patch_embed(image[None])[0].reshape(model.spec.n_patches, -1)

    def log_prob(turned_down: Tensor) -> Tensor:
        x, leaving = plain_embedding(model, image)[0], []
        for block in vit.blocks:
            attn = block.attn
            qkv = attn.qkv(block.norm1(x)).reshape(len(x), 3, attn.num_heads, attn.head_dim)
            out = []
            for h in range(attn.num_heads):
                scores = attn.q_norm(qkv[:, 0, h]) @ attn.k_norm(qkv[:, 1, h]).T / math.sqrt(attn.head_dim)
                for query in range(len(x)):
                    scores[query] = (scores[query] - scores[query].min()) * turned_down
                out.append(scores.softmax(1) @ qkv[:, 2, h])
            x = x + block.ls1(attn.proj(torch.cat(out, dim=1)))
            x = x + block.ls2(block.mlp(block.norm2(x)))
            leaving.append(x[None])
        return plain_head(model, leaving).log_softmax(0)[target]

    whole = log_prob(torch.ones(n_prefix + len(patches)).double())
    found = []
    for t in range(len(patches)):
        turned_down = torch.ones(n_prefix + len(patches)).double()
        for j in range(len(patches)):
            cosine = float(F.cosine_similarity(patches[t], patches[j], dim=0))
            if j == t or cosine >= similarity:
                turned_down[n_prefix + j] = factor if j == t else factor + (1 - factor) * (1 - cosine)
        found.append(whole - log_prob(turned_down))
    return torch.stack(found).reshape(model.spec.grid)


@pytest.mark.parametrize("family", ["vit", "dino_head1"])
def test_atman_is_its_formula(family: str) -> None:
    model, images, targets = case(family)
    found = atman(model, images, of_classes(targets), factor=0.2, similarity=0.3, chunk_size=5)
    assert relative(found[0], plain_atman(model, images[0], targets[0], 0.2, 0.3)) < 1e-10
    nothing = atman(model, images, of_classes(targets), factor=1)
    assert nothing.abs().max() < 1e-10  # softmax does not see a row's shift


def test_atman_never_turns_attention_up() -> None:
    embedded = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.6, -0.8]])
    factors = suppression(embedded, 0.1, -1.0)
    assert factors.max() == 1
    expected = torch.tensor([0.1, 1.0, 1.0, 0.1 + 0.9 * (1 - 0.6)])  # cosines 1, -1, 0 and 0.6
    torch.testing.assert_close(factors[0], expected)


def test_atman_turns_like_patches_down_together() -> None:
    embedded = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    found = suppression(embedded, 0.1, 0.6)
    near = 0.1 + 0.9 * (1 - 0.5**0.5)
    torch.testing.assert_close(found[0], torch.tensor([0.1, 0.1, near, 1.0]))
