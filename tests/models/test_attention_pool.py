"""Heads that pool by attention: their rows are hook points, and logits stay timm's."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from caap_lab import HookedViT, InputError, Patch, sweep, tokens  # isort: skip  # before timm, for a CPU-only torch
import timm
from timm.layers import AttentionPoolLatent

from helpers.models import build, random_images, randomise, timm_model

SMALL = {"img_size": (16, 24), "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


def several_latents(pool_type: str) -> nn.Module:
    """A pooling with four queries, norms of queries and keys, and positions of its own."""
    vit = timm_model("vit_base_patch16_siglip_224", **SMALL)
    vit.attn_pool = AttentionPoolLatent(
        24,
        num_heads=4,
        latent_len=4,
        feat_size=6,
        pos_embed="abs",
        qk_norm=True,
        pool_type=pool_type,
        norm_layer=nn.LayerNorm,
    )
    return vit


POOLED: dict[str, Callable[[], nn.Module]] = {
    "siglip": lambda: timm_model("vit_base_patch16_siglip_224", **SMALL),
    "first of four": lambda: several_latents("token"),
    "mean of four": lambda: several_latents("avg"),
    "perception encoder": lambda: timm.create_model(
        "vit_pe_core_base_patch16_224", **{**SMALL, "num_heads": 2, "attn_pool_num_heads": 3}
    ),
    "no projection": lambda: timm_model("vit_base_patch16_224", **SMALL, global_pool="prr", fc_norm=False),
    "no projection, mean": lambda: timm_model(
        "vit_base_patch16_224", **SMALL, global_pool="prr", class_token=False, fc_norm=False
    ),
}
ALL = ("q", "k", "v", "attn_scores", "pattern", "z")


def noisy(x: torch.Tensor, hook: object) -> torch.Tensor:
    return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)


@pytest.mark.parametrize("kind", POOLED)
def test_pooling_through_hook_points_is_timms(kind: str) -> None:
    vit = randomise(POOLED[kind]).eval()
    plain = copy.deepcopy(vit)
    model = HookedViT(vit)
    images = random_images(model, 2)
    for fused in (True, False):
        for module in (*vit.modules(), *plain.modules()):
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused
        with torch.no_grad():
            wanted = plain(images)
            read = ALL if not fused else ("q", "k", "v", "z")
            for names in ([], [f"attn_pool.hook_{name}" for name in read]):
                logits, cache = model.run_with_cache(images, names_filter=names)
                assert torch.equal(logits, wanted) and len(cache) == len(names)
    vit.attn_pool.fused_attn = True
    with torch.no_grad():
        logits, cache = model.run_with_cache(images)
        assert (logits - wanted).abs().max() < 1e-5
        for name in ALL:
            hook = f"attn_pool.hook_{name}"
            assert tuple(cache[hook].shape) == (2, *model.activation_shape(hook)), name
            moved = model.run_with_hooks(images, fwd_hooks=[(hook, noisy)])
            assert (moved - wanted).abs().max() > 1e-4, name
        assert (cache["attn_pool.hook_pattern"].sum(-1) - 1).abs().max() < 1e-6
    assert not model.has_hooks()


def test_the_pattern_is_what_timm_multiplies() -> None:
    """Against timm's own explicit pooling, whose values are replaced by the unit matrix."""
    model = HookedViT(randomise(POOLED["siglip"]))
    images = random_images(model, 1)
    pool = copy.deepcopy(model.vit.attn_pool)
    with torch.no_grad():
        _, cache = model.run_with_cache(images)
        x = cache["ln_final.hook_normalized"]
        q = pool.q(pool.latent).reshape(3, 8)
        k = pool.kv(x)[0, :, :24].reshape(6, 3, 8)
        for head in range(3):
            wanted = (k[:, head] @ q[head] / 8**0.5).softmax(0)
            torch.testing.assert_close(cache["attn_pool.hook_pattern"][0, head, 0], wanted)


def test_short_names_are_those_of_the_blocks() -> None:
    model = build("siglip")
    assert [site.layer for site in model.find("pattern")] == [0, 1, 2, 3]
    assert [site.hook for site in model.find("attn_pool.pattern")] == ["attn_pool.hook_pattern"]
    store = model.record(random_images(model, 3), ["pattern", "attn_pool.pattern"], layers=[1])
    assert store["pattern", 1].shape == (3, 3, 16, 16) and store["attn_pool.pattern"].shape == (3, 3, 1, 16)
    assert "attn_pool.hook_q" not in build("average_pool").hook_dict
    before = model.fingerprint
    del model.attn_pool  # points alone: what was recorded before there were any is still this model's
    assert model.fingerprint == before
    with pytest.raises(InputError, match="no hook point named 'attn_pool"):
        build("vit").find("attn_pool.pattern")


def test_patches_and_sweeps_of_the_pooling() -> None:
    model = HookedViT(randomise(POOLED["perception encoder"]))
    images = random_images(model, 2)
    first, second = images[:1], images[1:]
    store = model.record(second, [f"attn_pool.{name}" for name in ALL])
    with torch.no_grad():
        plain, other = model(first), model(second)
    for name in ("pattern", "attn_scores", "q"):
        assert torch.allclose(model.run_patched(second, Patch(f"attn_pool.{name}", source=store)), other, atol=1e-5)
    assert torch.allclose(model.run_patched(first, Patch("attn_pool.z", source=store)), other, atol=1e-5)
    both = [Patch("attn_pool.k", source=store), Patch("attn_pool.v", source=store)]
    assert torch.allclose(model.run_patched(first, both), other, atol=1e-5)
    by_hand = model.run_with_hooks(
        first, fwd_hooks=[("attn_pool.hook_v", lambda v, hook: torch.cat([v[:, :3], 0 * v[:, 3:5], v[:, 5:]], dim=1))]
    )
    assert torch.equal(model.run_patched(first, Patch("attn_pool.v", tokens=[3, 4])), by_hand)
    found = sweep(model, first, lambda head: Patch("attn_pool.z", heads=head), over={"head": range(3)}, metric=0)
    zeroed = torch.stack([model.run_patched(first, Patch("attn_pool.z", heads=h))[0, 0] for h in range(3)])
    assert torch.allclose(torch.from_numpy(found.values[0]).float(), zeroed.detach(), atol=1e-5)
    assert (zeroed - plain[0, 0]).abs().min() > 1e-5
    with pytest.raises(InputError, match="1 learned latents, not tokens"):
        model.run_patched(first, Patch("attn_pool.pattern", tokens=tokens.cls()))
    with pytest.raises(InputError, match="heads 0 to 2"):
        model.run_patched(first, Patch("attn_pool.pattern", heads=3))
    with pytest.raises(InputError, match="omit layers"):
        model.run_patched(first, Patch("attn_pool.pattern", layers=[1]))


def test_edits_that_nothing_reads_are_refused() -> None:
    model = HookedViT(randomise(POOLED["no projection"]))
    x = random_images(model, 1)
    with pytest.raises(InputError, match="cannot change the logits"):
        model.run_patched(x, Patch("attn_pool.pattern", tokens=tokens.patches()))  # only the class token's row is read
    assert not torch.equal(model.run_patched(x, Patch("attn_pool.pattern", tokens=tokens.cls())), model(x))


def test_gradients_reach_the_pattern() -> None:
    model = build("siglip")
    kept = []
    model.run_with_hooks(
        random_images(model, 1), fwd_hooks=[("attn_pool.hook_pattern", lambda x, hook: (kept.append(x), x)[1])]
    )
    model.zero_grad()
    (gradient,) = torch.autograd.grad(model.run_with_hooks(random_images(model, 1))[0, 0], model.vit.attn_pool.latent)
    assert kept[0].requires_grad and gradient.abs().max() > 0


def test_what_would_not_run_is_refused() -> None:
    model = build("siglip")
    x = random_images(model, 1)
    handle = model.vit.attn_pool.register_forward_hook(lambda module, given, out: 2 * out)
    doubled = model(x)  # without a hook point in use timm's own module runs, with its hook
    with pytest.raises(InputError, match="torch hook on model"):
        model.run_with_cache(x, names_filter="attn_pool.hook_pattern")
    handle.remove()
    assert not torch.equal(model(x), doubled) and not model.has_hooks()


@pytest.mark.parametrize("family", ["siglip", "deit_distilled"])
def test_patterns_are_never_missing(family: str) -> None:
    """Fused attention has none: whoever asks for one, in whatever way, gets it."""
    model = build(family)
    x = random_images(model, 1)
    wanted = {name for name in model.hook_dict if name.endswith(("hook_pattern", "hook_attn_scores"))}
    assert len(wanted) == 2 * 4 + 2 * (family == "siglip")
    by_block = {name: model.run_with_cache(x, names_filter=name)[1][name] for name in wanted}

    def check(cache: object) -> None:
        found = {name: value for name, value in dict(cache.items()).items() if name in wanted}  # type: ignore[attr-defined]
        assert set(found) == wanted
        for name, value in found.items():
            torch.testing.assert_close(value, by_block[name], atol=1e-5, rtol=1e-4)

    chosen = sorted(wanted)
    for names in (None, chosen, tuple(chosen), set(chosen), lambda name: name in wanted):
        check(model.run_with_cache(x, names_filter=names)[1])
    store = model.record(x, chosen)
    check({name: store[name] for name in chosen})

    seen: dict[str, torch.Tensor] = {}

    def keep(value: torch.Tensor, hook: object) -> None:
        seen[hook.name] = value  # type: ignore[attr-defined]

    model.run_with_hooks(x, fwd_hooks=[(lambda name: name in wanted, keep)])
    check(seen)
    seen.clear()
    with model.hooks(fwd_hooks=[(name, keep) for name in chosen]):
        model(x)
    check(seen)
    seen.clear()
    for add in (model.add_hook, model.add_perma_hook):
        add(lambda name: name in wanted, keep)
        model(x)
        check(seen)
        seen.clear()
        model.reset_hooks(including_permanent=True)
    cached = model.add_caching_hooks()
    model(x)
    check(cached)
    model.reset_hooks()
    handles = [
        model.hook_dict[name].register_forward_hook(lambda module, given, out: seen.update({module.name: out}))
        for name in chosen
    ]
    model(x)
    check(seen)
    for handle in handles:
        handle.remove()
    seen.clear()
    with model.hooks(bwd_hooks=[(name, keep) for name in chosen]):
        model(x)[0].sum().backward()
    assert set(seen) == wanted and all(value.abs().sum() > 0 for name, value in seen.items())
    assert not model.has_hooks()
