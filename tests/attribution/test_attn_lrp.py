"""AttnLRP against relevance that is shared out step by step, and conservation in every family."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import caap_lab as cl
from caap_lab.attribution.attn_lrp import attn_lrp
from caap_lab.attribution.backward_rules import Rules, ruled
from caap_lab.attribution.biases import read_biases
from caap_lab.models.explained import targets_of
from helpers.models import build, by_trait, random_images

# -- textbook rules: the relevance of outputs in, that of inputs out ------------------------------------------------


def linear(relevance: Tensor, x: Tensor, layer: nn.Linear, gamma: float) -> Tensor:
    """Each product's share of its output; with gamma, what speaks for the output's sign counts 1 + gamma times."""
    products, bias = x[..., None, :] * layer.weight, layer.bias  # [token, out, in]
    sign = (products.sum(-1) + bias).sign()
    products = products * (1 + gamma * (products.sign() == sign[..., None]))
    total = products.sum(-1) + bias * (1 + gamma * (bias.sign() == sign))
    return (products * (relevance / total)[..., None]).sum(-2)


def norm(relevance: Tensor, x: Tensor, layer: nn.LayerNorm) -> Tensor:
    """The deviation is a constant; the mean is linear."""
    deviation = (x.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt()
    slope = relevance / layer(x) * layer.weight / deviation
    return x * (slope - slope.mean(-1, keepdim=True))


def block_relevance(block: Any, x: Tensor, relevance: Tensor, rules: str, gamma: float, n_heads: int) -> Tensor:
    """Of what enters a block [token, d_model], from that of what leaves it."""
    attn, n = block.attn, len(x)
    normed = block.norm1(x)
    q, k, v = attn.qkv(normed).reshape(n, 3, n_heads, -1).permute(1, 2, 0, 3)
    scores = attn.scale * q @ k.mT
    pattern = scores.softmax(-1)
    z = pattern @ v
    joined = z.transpose(0, 1).reshape(n, -1)
    out = block.ls1(attn.proj(joined))
    mid = x + out
    inner = block.norm2(mid)
    pre = block.mlp.fc1(inner)
    post = block.mlp.act(pre)
    added = block.ls2(block.mlp.fc2(post))

    per_unit = relevance / (mid + added)
    of_pre = linear(per_unit * added, post, block.mlp.fc2, gamma)  # an activation hands on what it gets
    of_mid = per_unit * mid + norm(linear(of_pre, inner, block.mlp.fc1, gamma), mid, block.norm2)
    per_unit = of_mid / mid
    of_z = linear(per_unit * out, joined, attn.proj, gamma).reshape(n, n_heads, -1).transpose(0, 1)
    half = 0.5 if rules == "attn_lrp" else 1.0
    of_v = half * v * (pattern.mT @ (of_z / z))
    of_pattern = 0.5 * pattern * ((of_z / z) @ v.mT)
    of_scores = (
        scores * (of_pattern - pattern * of_pattern.sum(-1, keepdim=True)) if rules == "attn_lrp" else 0 * scores
    )
    share = attn.scale * of_scores / scores
    of_q, of_k = 0.5 * q * (share @ k), 0.5 * k * (share.mT @ q)
    of_qkv = torch.stack([of_q, of_k, of_v]).permute(2, 0, 1, 3).reshape(n, -1)
    return per_unit * x + norm(linear(of_qkv, normed, attn.qkv, gamma), x, block.norm1)


@pytest.mark.parametrize(("rules", "gamma"), [("attn_lrp", 0.0), ("attn_lrp", 0.3), ("cp_lrp", 0.25)])
@pytest.mark.parametrize("family", ["vit", "dinov2_registers"])
def test_relevance_is_what_sharing_it_out_step_by_step_gives(family: str, rules: str, gamma: float) -> None:
    model = build(family, torch.float64).requires_grad_(False)
    images, vit = random_images(model, 1), model.vit
    streams = [model.embed(images)]
    for block in vit.blocks:
        streams.append(block(streams[-1]))
    last = streams[-1][0]
    tokens = vit.norm(last)
    logits = vit.head(tokens[:1])
    of_tokens = torch.zeros_like(tokens)
    of_tokens[:1] = linear(logits * (torch.arange(7) == 3), tokens[:1], vit.head, gamma)
    relevance = norm(of_tokens, last, vit.norm)
    for block, stream in zip(reversed(vit.blocks), reversed(streams[:-1]), strict=True):
        relevance = block_relevance(block, stream[0], relevance, rules, gamma, model.spec.n_heads)
    patches = vit.patch_embed(images)[0]
    n_prefix = model.spec.n_prefix
    expected = (relevance[n_prefix:] * patches / streams[0][0, n_prefix:]).sum(-1).reshape(model.grid)
    (found,) = attn_lrp(model, images, targets_of(model, 3, 1), rules=rules, gamma=gamma)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()  # quotients are by values near 0

    conv = vit.patch_embed.proj
    pixels = (
        images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(3).reshape(model.spec.n_patches, -1)
    )
    plain = nn.Linear(pixels.shape[1], model.spec.d_model).double()
    plain.load_state_dict({"weight": conv.weight.flatten(1), "bias": conv.bias})
    of_patches = relevance[n_prefix:] * patches / streams[0][0, n_prefix:]
    expected = linear(of_patches, pixels, plain, 0.5).sum(-1).reshape(model.grid)
    (found,) = attn_lrp(model, images, targets_of(model, 3, 1), rules=rules, gamma=gamma, patch_gamma=0.5, at="pixels")
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()  # quotients are by values near 0


def without_biases(model: cl.HookedViT) -> cl.HookedViT:
    """All that is added without an input is 0: biases, positions, prefix tokens."""
    silent = ("bias", "pos_embed", "cls_token", "reg_token", "dist_token", "relative_position_bias_table")
    for name, parameter in model.named_parameters():
        if name.endswith(silent) and ".backbone." not in name:
            nn.init.zeros_(parameter)
    return model


def test_relevance_is_conserved_but_for_the_softmax(family: str) -> None:
    model = without_biases(build(family, torch.float64))
    images = random_images(model, 2)
    targets = targets_of(model, [1, 4], 2)
    with torch.no_grad():
        scores = targets.value(model(images))
    for gamma in (0.0, 0.3):
        constant = attn_lrp(model, images, targets, rules="cp_lrp", gamma=gamma).sum((1, 2))
        assert (constant - scores).abs().max() < 1e-6 * scores.abs().max()

    with lost_in_softmax(model) as lost:
        relevance = attn_lrp(model, images, targets).sum((1, 2))
    assert (relevance + torch.stack(lost).sum(0) - scores).abs().max() < 1e-6 * scores.abs().max()
    assert (relevance - scores).abs().max() > 1e-3 * scores.abs().max()


@pytest.mark.parametrize("family", by_trait(["dinov2_registers", "rope_mixed", "dinov2_swiglu"]))
def test_biases_have_what_is_left(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    targets = targets_of(model, [1, 4], 2)
    for rules in (Rules("AttnLRP", constant_patterns=False), Rules("CP-LRP", constant_patterns=True)):
        with ruled(model, rules), lost_in_softmax(model) as lost:
            logits, streams, biases = read_biases(model, images, targets)
        total = streams[0].sum((1, 2)) + sum(term.products.flatten(1).sum(1) for term in biases)
        if not rules.constant_patterns:
            total += torch.stack(lost).sum(0)
        scores = targets.value(logits)
        assert (total - scores).abs().max() < 1e-6 * scores.abs().max()


def test_the_gamma_rule_counts_biases_that_stand_beside_their_layer() -> None:
    model = build("beit", torch.float64)
    images, targets = random_images(model, 1), targets_of(model, 3, 1)
    found = attn_lrp(model, images, targets, gamma=0.3)
    for block in model.vit.blocks:
        attn = block.attn
        layer = nn.Linear(*reversed(attn.qkv.weight.shape)).double()
        layer.load_state_dict({"weight": attn.qkv.weight, "bias": torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])})
        attn.qkv, attn.q_bias = layer, None
    expected = attn_lrp(cl.HookedViT(model.vit), images, targets, gamma=0.3)
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


@contextmanager
def lost_in_softmax(model: cl.HookedViT) -> Iterator[list[Tensor]]:
    """Relevance [batch] of each pattern, and less that of its scores, in turn."""
    found: list[Tensor] = []

    def note(sign: int) -> Any:
        def keep(x: Tensor, hook: Any) -> None:
            if x.requires_grad:
                x.register_hook(lambda gradient: found.append(sign * (x.detach() * gradient).flatten(1).sum(1)))

        return keep

    shares = [("pattern", note(1)), ("attn_scores", note(-1))]
    hooks = [(name, hook) for leaf, hook in shares for name in model.hook_dict if name.endswith(f"hook_{leaf}")]
    with model.hooks(fwd_hooks=hooks):
        yield found


def test_with_constant_patterns_it_is_libragrad() -> None:
    model = build("siglip", torch.float64)
    images, targets = random_images(model, 1), targets_of(model, 3, 1)
    constant = attn_lrp(model, images, targets, rules="cp_lrp")
    with cl.libragrad(model):
        leaf = model.vit.patch_embed(images).detach().requires_grad_()
        logits = model.run_with_hooks(images, fwd_hooks=[("hook_embed", lambda x, hook: leaf)])
        (gradient,) = torch.autograd.grad(logits[0, 3], leaf)
    assert (constant.flatten() - (leaf * gradient)[0].sum(-1)).abs().max() < 1e-12


def test_what_has_no_rule_is_refused() -> None:
    model = build("vit")
    images, targets = random_images(model, 1), targets_of(model, 3, 1)
    with (
        cl.libragrad(model),
        pytest.raises(cl.InputError, match="follows LibraGrad; leave that context to use AttnLRP"),
    ):
        attn_lrp(model, images, targets)
    with pytest.raises(cl.InputError, match="patch_gamma applies to the patch convolution"):
        attn_lrp(model, images, targets, patch_gamma=0.1)
    stem = build("conv_stem")
    with pytest.raises(cl.InputError, match="AttnLRP has no rules for this model's convolutional stem"):
        attn_lrp(stem, random_images(stem, 1), targets_of(stem, 3, 1), at="pixels")
    model.vit.blocks[1].mlp.act = nn.Tanh()
    with pytest.raises(cl.InputError, match="AttnLRP has no rule for the activation Tanh"):
        attn_lrp(model, images, targets)
    gated = build("vit")
    for block in gated.vit.blocks:
        block.attn.gate = nn.Linear(24, 24)
    with pytest.raises(cl.InputError, match="CP-LRP has no rule for gated attention"):
        attn_lrp(gated, images, targets, rules="cp_lrp")
    own = build("vit")
    own.vit.head = Doubled(own.vit.head)
    own = cl.HookedViT(own.vit)
    assert attn_lrp(own, images, targets).isfinite().all()
    with pytest.raises(cl.InputError, match=r"Doubled in vit.head is no plain linear layer.* Take gamma=0"):
        attn_lrp(own, images, targets, gamma=0.1)
    assert not own.has_hooks() and not hasattr(own, "_backward_rules")


class Doubled(nn.Module):
    """Linear, and nothing that is known."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.inner(x)
