"""The hooked model: bit-equal to timm, every named point live, no hook left behind."""

import copy

import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer

from caap_lab import HookedViT, InputError
from helpers.models import ALL_FAMILIES, FAMILIES, TINY, build, random_images, randomise


def shuffled(activation: torch.Tensor) -> torch.Tensor:
    """An edit that survives LayerNorm and softmax."""
    noise = torch.randn(activation.shape, generator=torch.Generator().manual_seed(1)).to(activation.dtype)
    return activation + noise


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fused", [True, False])
def test_logits_are_bit_equal_to_timm(family: str, fused: bool) -> None:
    vit = randomise(FAMILIES[family]).eval()
    for module in vit.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    plain = copy.deepcopy(vit)
    model = HookedViT(vit)
    images = random_images(model, 2)
    with torch.no_grad():
        assert torch.equal(model(images), plain(images))
        assert torch.equal(vit(images), plain(images)), "the timm model itself is untouched"


def test_explicit_attention_is_close_to_fused(family: str) -> None:
    model = build(family)
    images = random_images(model, 2)
    with torch.no_grad():
        fused = model(images)
        explicit, cache = model.run_with_cache(images, names_filter=lambda name: name.endswith("pattern"))
    pools = int("attn_pool.hook_pattern" in model.hook_dict)
    assert len(cache) == model.spec.n_layers + pools
    assert (fused - explicit).abs().max() < 1e-5


def test_every_hook_point_fires_with_the_stated_shape(family: str) -> None:
    model = build(family)
    _, cache = model.run_with_cache(random_images(model, 2))
    assert set(cache) == set(model.hook_dict)
    for name, activation in cache.items():
        assert tuple(activation.shape) == (2, *model.activation_shape(name)), name


def test_editing_every_hook_point_moves_the_output(family: str) -> None:
    model = build(family)
    images = random_images(model, 2)
    with torch.no_grad():
        before = model(images)
        for name in model.hook_dict:
            after = model.run_with_hooks(images, fwd_hooks=[(name, lambda activation, hook: shuffled(activation))])
            assert (after - before).abs().max() > 1e-4, name
        assert torch.equal(model(images), before)


def test_names_follow_transformer_lens() -> None:
    names = set(build("dinov2").hook_dict)
    assert {
        "hook_embed",
        "hook_full_embed",
        "ln_final.hook_normalized",
        "hook_pooled",
        "hook_logits",
    } <= names
    points = "hook_resid_pre ln1.hook_normalized attn.hook_q attn.hook_k attn.hook_v attn.hook_attn_scores "
    points += "attn.hook_pattern attn.hook_z attn.hook_result hook_attn_out hook_resid_mid mlp.hook_pre mlp.hook_post "
    points += "hook_mlp_out "
    points += "hook_resid_post"
    for layer in range(TINY["depth"]):
        assert {f"blocks.{layer}.{point}" for point in points.split()} <= names


def test_only_the_watched_block_leaves_fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn import functional as F

    model = build("vit")
    fused = F.scaled_dot_product_attention
    calls = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    model.run_with_cache(random_images(model, 1), names_filter="blocks.2.attn.hook_pattern")
    assert len(calls) == model.spec.n_layers - 1


def test_pattern_rows_sum_to_one() -> None:
    model = build("vit_qk_norm")
    _, cache = model.run_with_cache(random_images(model, 1))
    pattern = cache["blocks.1.attn.hook_pattern"]
    assert (pattern.sum(-1) - 1).abs().max() < 1e-6


def test_two_hooked_models_share_one_timm_model() -> None:
    vit = randomise(FAMILIES["vit"])
    first, second = HookedViT(vit), HookedViT(vit)
    images = random_images(first, 1)
    seen = []
    for model in (first, second):
        model.run_with_hooks(images, fwd_hooks=[("hook_logits", lambda a, hook: seen.append(a))])
    assert len(seen) == 2 and torch.equal(*seen)


def test_start_and_stop_at_layer(family: str) -> None:
    model = build(family)
    images = random_images(model, 2)
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, names_filter=lambda name: name.endswith("hook_resid_post"))
        for layer in range(model.spec.n_layers + 1):
            resid = model(images, stop_at_layer=layer)
            leaving = range(model.spec.n_layers - model.class_layers, min(layer, model.spec.n_layers - 1))
            tokens = [cache[f"blocks.{i}.hook_resid_post"][:, 0] for i in leaving]
            assert torch.equal(model(resid, start_at_layer=layer, class_tokens=tokens), logits)
    with pytest.raises(InputError, match="start_at_layer"):
        model(images, stop_at_layer=model.spec.n_layers + 1)


def test_dino_heads_are_linear_on_class_tokens_and_mean_patch() -> None:
    for blocks in (1, 4):
        model = build(f"dino_head{blocks}")
        images = random_images(model, 2)
        with torch.no_grad():
            layers = model.vit.get_intermediate_layers(images, n=blocks, return_prefix_tokens=True, norm=True)
            features = torch.cat([*(prefix[:, 0] for _, prefix in layers), layers[-1][0].mean(dim=1)], dim=-1)
            assert torch.equal(model(images), model.head.linear(features))


def test_unsupported_architectures_are_refused_with_what_is_supported() -> None:
    from timm.models.swin_transformer import SwinTransformer

    swin = SwinTransformer(img_size=32, patch_size=4, embed_dim=8, depths=(1,), num_heads=(1,), window_size=4)
    with pytest.raises(InputError, match="SwinTransformer is not supported: its attention stays within windows"):
        HookedViT(swin)
    with pytest.raises(InputError, match="ParallelScalingBlock"):
        HookedViT(VisionTransformer(**TINY, block_fn=ParallelScalingBlock))
    with pytest.raises(InputError, match="no pooling"):
        HookedViT(VisionTransformer(**TINY, global_pool=""))


def test_unknown_names_are_errors_with_the_nearest() -> None:
    model = build("vit")
    images = random_images(model, 1)
    with pytest.raises(InputError, match="hook_resid_pre"):
        model.run_with_hooks(images, fwd_hooks=[("blocks.0.hook_resid_per", print)])
    with pytest.raises(InputError, match="matches no hook point"):
        model.run_with_hooks(images, fwd_hooks=[(lambda name: "nothing" in name, print)])
    with pytest.raises(InputError, match="no hook point"):
        model.run_with_cache(images, names_filter=["blocks.9.hook_resid_pre"])
    with pytest.raises(InputError, match="no hook point"):
        model.add_hook("vit.blocks.0", print)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("cfg", "model.spec"),
        ("W_U", "model.vit.state_dict"),
        ("b_Q", "model.vit.state_dict"),
        ("to_tokens", "model.preprocess"),
        ("set_use_attn_result", "hook_result"),
        ("tokens_to_residual_directions", "cl.logit_attribution"),
    ],
)
def test_names_of_transformer_lens_lead_to_what_does_the_same(name: str, instead: str) -> None:
    model = build("vit")
    assert not hasattr(model, name)
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'. In caap_lab: .*{instead}"):
        getattr(model, name)
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        model.nothing  # noqa: B018
    assert copy.deepcopy(model).spec == model.spec


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_hook_survives_an_error(error: type[BaseException]) -> None:
    model = build("vit")
    images = random_images(model, 1)

    def fail(activation: torch.Tensor, hook: object) -> None:
        raise error

    for run in (model.run_with_hooks, model.run_with_cache):
        with pytest.raises(error), model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", fail)]):
            run(images)
        assert not model.has_hooks()


def test_fingerprint_follows_the_weights() -> None:
    model = build("vit")
    before = model.fingerprint
    assert before == build("vit").fingerprint
    with torch.no_grad():
        model.vit.blocks[2].mlp.fc1.bias[3] += 1e-3
    assert model.fingerprint != before


def test_repr_says_what_the_model_is() -> None:
    text = repr(build("dinov2_registers"))
    assert "4 layers" in text and "grid 4 x 4" in text and "cls, reg, reg, reg, reg" in text


def test_gradients_flow_through_the_hooked_model() -> None:
    model = build("clip")
    images = random_images(model, 1).requires_grad_()
    model(images)[0, 2].backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_families_have_their_own_switches() -> None:
    specs = {family: build(family).spec for family in ALL_FAMILIES}
    vits = {family: build(family).vit for family in FAMILIES}
    assert specs["deit_distilled"].prefix == ("cls", "dist") and specs["deit_distilled"].read_tokens == (0, 1)
    assert specs["dinov2_registers"].prefix == ("cls", "reg", "reg", "reg", "reg")
    assert specs["siglip"].prefix == () and specs["siglip"].pool == "map"
    assert specs["average_pool"].prefix == () and specs["average_pool"].pool == "avg"
    assert specs["dinov2_swiglu"].gated_mlp and specs["odd_grid"].grid == (5, 3)
    assert vits["deit3"].no_embed_class and hasattr(vits["deit3"].blocks[0].ls1, "gamma")
    assert not isinstance(vits["clip"].norm_pre, torch.nn.Identity)
    assert type(vits["clip"].blocks[0].mlp.act).__name__ == "QuickGELU"
    assert hasattr(vits["dinov2"].blocks[0].ls1, "gamma")
    assert hasattr(vits["gated_qk_norm"].blocks[0].attn.q_norm, "weight") and specs["gated_qk_norm"].gated_mlp
    assert type(vits["conv_stem"].patch_embed).__name__ == "HybridEmbed" and specs["conv_stem"].prefix == ()
    assert vits["beit"].rel_pos_bias is not None and vits["beit"].blocks[0].attn.q_bias is not None
    assert len(FAMILIES) == 20
