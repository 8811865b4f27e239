"""Each head's own output: parts of timm's attention, by plain hooks on its modules."""

from typing import Any

import pytest
import torch

from caap_lab import HookedViT, Patch, tokens
from helpers.models import build, random_images, randomise, timm_model

LAYER = 1


def gated() -> HookedViT:
    """Rotary attention whose output is normalised over all heads, gated and scaled."""

    def make() -> torch.nn.Module:
        switches = {"scale_attn_inner": True, "init_values": 0.3}
        vit = timm_model("vit_small_patch16_rope_ape_224", **switches)
        for block in vit.blocks:
            block.attn.gate = torch.nn.Linear(24, 24)
        return vit

    return HookedViT(randomise(make)).to(torch.float64)


def plain_results(model: HookedViT, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each head of a block adds to the stream, [batch, token, head, d_model], and what the bias adds."""
    block = model.vit.blocks[LAYER]
    attn = block.attn
    norm = getattr(attn, "norm", None)
    seen: dict[str, Any] = {}
    handles = [attn.register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))]
    first = attn.proj if norm is None or isinstance(norm, torch.nn.Identity) else norm
    handles.append(first.register_forward_pre_hook(lambda m, args: seen.update(z=args[0])))
    model.vit(images)
    for handle in handles:
        handle.remove()
    z, gain = seen["z"], torch.ones(())
    bias = torch.zeros_like(z)
    gate = getattr(attn, "gate", None)
    width = z.shape[-1] // attn.num_heads
    parts = []
    for head in range(attn.num_heads):
        alone = torch.zeros_like(z)
        alone[..., head * width : (head + 1) * width] = z[..., head * width : (head + 1) * width]
        if first is norm:
            std = (z.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
            alone = (alone - alone.mean(-1, keepdim=True)) / std * norm.weight
            bias = norm.bias.expand_as(z)
        if gate is not None:
            alone = alone * gate(seen["x"]).sigmoid()
        parts.append(alone @ attn.proj.weight.T)
    if gate is not None:
        bias = bias * gate(seen["x"]).sigmoid()
    bias = bias @ attn.proj.weight.T + attn.proj.bias
    scale = getattr(getattr(block, "ls1", None), "gamma", getattr(block, "gamma_1", None))
    gain = gain if scale is None else scale
    return torch.stack(parts, 2) * gain, bias * gain


def check(model: HookedViT) -> None:
    """Results are the plain ones, reading leaves logits as they are, and an edit moves what it should."""
    images = random_images(model, 2)
    name = f"blocks.{LAYER}.attn.hook_result"
    with torch.no_grad():
        plain = model(images)
        logits, cache = model.run_with_cache(images, names_filter=[name, f"blocks.{LAYER}.hook_attn_out"])
        assert torch.equal(logits, plain)
        results, attn_out = cache[name], cache[f"blocks.{LAYER}.hook_attn_out"]
        expected, bias = plain_results(model, images)
        assert (results - expected).abs().max() < 1e-10
        assert (results.sum(2) + bias - attn_out).abs().max() < 1e-10
        # an edit of one head at one token is that of attn_out by the same vector
        patch = Patch("result", [LAYER], tokens.cell(1, 1), source=0.5, heads=[2])
        token = model.spec.n_prefix + model.grid[1] + 1
        edited = attn_out.clone()
        edited[:, token] += 0.5 - expected[:, token, 2]
        by_hand = model.run_with_hooks(images, fwd_hooks=[(f"blocks.{LAYER}.hook_attn_out", lambda a, hook: edited)])
        patched = model.run_patched(images, patch)
        assert (patched - plain).abs().max() > 1e-4
        assert (patched - by_hand).abs().max() < 1e-10
        store = model.record(images, "result", layers=LAYER, progress=False)
        assert torch.equal(store["result", LAYER], results)


def test_results_are_the_heads_parts_of_attention(family: str) -> None:
    check(build(family, torch.float64))


def test_norm_over_all_heads_and_gate_are_accounted_for() -> None:
    check(gated())


def test_a_projection_of_another_class_is_taken_as_it_is() -> None:
    class Adapted(torch.nn.Module):
        def __init__(self, base: torch.nn.Linear) -> None:
            super().__init__()
            self.base = base
            self.more = torch.nn.Linear(24, 24, bias=False, dtype=base.weight.dtype)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + self.more(x)

    model = build("vit", torch.float64)
    model.vit.blocks[LAYER].attn.proj = Adapted(model.vit.blocks[LAYER].attn.proj)
    names = [f"blocks.{LAYER}.attn.hook_result", f"blocks.{LAYER}.hook_attn_out"]
    _, cache = model.run_with_cache(random_images(model, 1), names_filter=names)
    results, attn_out = (cache[name] for name in names)
    bias = model.vit.blocks[LAYER].attn.proj.base.bias
    assert (results.sum(2) + bias - attn_out).abs().max() < 1e-10


def test_results_are_computed_only_where_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from caap_lab.models import plain_vit

    model = build("vit")
    calls = []
    original = plain_vit.head_results
    monkeypatch.setattr(plain_vit, "head_results", lambda *args: calls.append(1) or original(*args))
    model.run_with_cache(random_images(model, 1), names_filter="blocks.2.attn.hook_result")
    assert len(calls) == 1


def test_gradients_of_results_are_those_of_the_stream() -> None:
    model = build("dinov2", torch.float64)
    kept: dict[str, torch.Tensor] = {}

    def keep(activation: torch.Tensor, hook: Any) -> None:
        activation.retain_grad()
        kept[hook.name] = activation

    names = [f"blocks.{LAYER}.attn.hook_result", f"blocks.{LAYER}.hook_attn_out", f"blocks.{LAYER}.attn.hook_z"]
    images = random_images(model, 1)
    with model.hooks(fwd_hooks=[(name, keep) for name in names]):
        model(images)[0, 2].backward()
    results, attn_out, z = (kept[name].grad for name in names)
    assert results is not None and attn_out is not None and z is not None
    assert torch.allclose(results, attn_out[:, :, None].expand_as(results))
    with model.hooks(fwd_hooks=[(names[2], keep)]):  # as without the hook point
        model(images)[0, 2].backward()
    assert kept[names[2]].grad is not None and (kept[names[2]].grad - z).abs().max() < 1e-12
