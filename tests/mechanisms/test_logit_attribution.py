"""What parts add to a logit: against plain hooks on timm's modules, and adding up for every family and head."""

from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab import HookedViT, InputError
from helpers.mixers import small_mixer
from helpers.models import ALL_FAMILIES, build, by_trait, random_images, randomise, timm_model
from helpers.passes import Passes
from helpers.plain_parts import PlainParts, scale_of

CLASS = 2
SPLITS = ("component", "head", "token", "neuron")


def attribute(model: HookedViT, images: Any, target: Any = CLASS, **options: Any) -> cl.LogitAttribution:
    return cl.logit_attribution(model, images, target, progress=False, **options)


def labelled(result: Any, *names: str) -> np.ndarray:
    return np.stack([result.data["value"].sel(component=name).values for name in names], axis=1)


def relative_gap(result: cl.LogitAttribution, scores: np.ndarray) -> float:
    """Largest difference between the total and the score, in sizes of the parts."""
    size = np.abs(result.per_image).reshape(len(scores), -1).sum(1)
    size += 0 if result.rest is None else np.abs(result.rest.per_image).sum(1)
    return float((np.abs(result.total - scores) / size).max())


def prompts(width: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {f"a photo of {name}": torch.randn(width, generator=generator) for name in ("a cat", "a dog", "a fish")}


@pytest.mark.parametrize("family", by_trait(family for family in ALL_FAMILIES if family != "clip"))
def test_components_are_those_of_plain_hooks(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    found = attribute(model, images)
    plain = PlainParts(model, images)
    parts = [(plain.attn, "attn"), (plain.mlp, "mlp")]
    for layer in range(model.n_layers):
        for outputs, name in parts:
            expected = plain.share(outputs[layer], layer, CLASS).numpy()
            assert np.abs(labelled(found, f"{name} {layer}")[:, 0] - expected).max() < 1e-10
    assert (
        np.abs(labelled(found, "patch embedding")[:, 0] - plain.share(plain.patches, -1, CLASS).numpy()).max() < 1e-10
    )
    others = [name for name in ("positions", "prefix tokens") if name in found.axes["component"]]
    rest = plain.share(plain.first - plain.patches, -1, CLASS).numpy()
    assert np.abs(labelled(found, *others).sum(1) - rest).max() < 1e-10


@pytest.mark.parametrize("family", by_trait())
def test_parts_add_up_to_the_logit(family: str) -> None:
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        model = build(family, dtype)
        images = random_images(model, 2)
        with torch.no_grad():
            scores = model(images)[:, CLASS].numpy()
        for by in SPLITS[1:] if dtype == torch.float64 else SPLITS[:1]:
            found = attribute(model, images, by=by)
            assert relative_gap(found, scores) < tolerance, by
            assert np.abs(found.score - scores).max() < 1e-5
    assert not model.has_hooks()


@pytest.mark.parametrize("family", ["dinov2_registers", *by_trait(["deit_distilled", "dino_head4", "siglip"])])
def test_heads_tokens_and_neurons_are_those_of_plain_attention_and_mlp(family: str) -> None:
    layer = 1
    model = build(family, torch.float64)
    images = random_images(model, 2)
    plain = PlainParts(model, images)
    block = model.vit.blocks[layer]
    seen: dict[str, torch.Tensor] = {}
    handles = [
        block.attn.register_forward_pre_hook(lambda m, a: seen.update(x=a[0])),
        block.mlp.fc2.register_forward_pre_hook(lambda m, a: seen.update(post=a[0])),
    ]
    with torch.no_grad():
        model.vit(images)
        for handle in handles:
            handle.remove()
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(seen["x"]).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        pattern = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        weight = block.attn.proj.weight.unflatten(1, (heads, -1))
        sources = torch.einsum("bhts,bhsk,dhk->bhstd", pattern, v, weight) * scale_of(block, 1)
        by_token = attribute(model, images, by="token")
        by_head = attribute(model, images, by="head")
        for head in range(heads):
            expected = plain.share(sources[:, head].sum(1), layer, CLASS).numpy()
            assert np.abs(by_head.per_image[:, layer, head] - expected).max() < 1e-10
            for token in (0, 5):
                expected = plain.share(sources[:, head, token], layer, CLASS).numpy()
                assert np.abs(by_token.per_image[:, layer, head, token] - expected).max() < 1e-10
        assert np.abs(by_token.per_image.sum(-1) - by_head.per_image).max() < 1e-10
        by_neuron = attribute(model, images, by="neuron")
        for neuron in (0, 17):
            part = seen["post"][..., neuron, None] * block.mlp.fc2.weight[:, neuron] * scale_of(block, 2)
            expected = plain.share(part, layer, CLASS).numpy()
            assert np.abs(by_neuron.per_image[:, layer, neuron] - expected).max() < 1e-10
    assert by_head.rest is not None and by_neuron.rest is not None
    whole = attribute(model, images)
    assert np.abs(labelled(by_neuron.rest, f"attn {layer}") - labelled(whole, f"attn {layer}")).max() < 1e-10
    attention = by_head.per_image[:, layer].sum(1) + labelled(by_head.rest, f"attn {layer} bias")[:, 0]
    assert np.abs(attention - labelled(whole, f"attn {layer}")[:, 0]).max() < 1e-10


def test_prompts_are_explained_per_head_with_the_length_of_the_embedding_fixed() -> None:
    model = build("clip", torch.float64).with_prompts(prompts(), logit_scale=50.0)
    images = random_images(model, 2)
    plain = PlainParts(model, images)
    found = attribute(model, images, cl.logit(CLASS))
    for layer in range(model.n_layers):
        expected = plain.share(plain.attn[layer], layer, CLASS).numpy()
        assert np.abs(labelled(found, f"attn {layer}")[:, 0] - expected).max() < 1e-10
    with torch.no_grad():
        logits = model(images).numpy()
    centred = attribute(model, images, CLASS, by="token")  # against the mean of all, as for every method
    assert relative_gap(centred, logits[:, CLASS] - logits.mean(1)) < 1e-13
    assert "mean of all" in centred.data.attrs["target"]
    maps = centred.map(layer=3, head=1)
    assert maps.shape == (2, *model.grid)
    assert np.abs(maps.reshape(2, -1) - centred.per_image[:, 3, 1, 1:]).max() == 0
    assert np.abs(centred.map().reshape(2, -1) - centred.per_image[..., 1:].sum((1, 2))).max() < 1e-12


def test_norm_in_front_of_the_blocks_is_linear_at_its_own_scale() -> None:
    model = build("clip", torch.float64)
    images = random_images(model, 2)
    found, stack = attribute(model, images), cl.residual_stack(model, images, progress=False)
    plain = PlainParts(model, images)
    for name in ("patch embedding", "positions", "prefix tokens", "vit.norm_pre.bias"):
        expected = plain.share(torch.from_numpy(stack.part(name)), -1, CLASS).numpy()
        assert np.abs(labelled(found, name)[:, 0] - expected).max() < 1e-10


def test_targets_of_all_kinds_and_several_at_once() -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 3)
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, names_filter="hook_pooled")
    scores, vector = logits.numpy(), torch.randn(24, generator=torch.Generator().manual_seed(0))
    targets = {
        "one": 1,
        "difference": cl.contrast(1, 4),
        "own": cl.contrast(1),
        "direction": cl.direction(vector, "probe"),
        "sum": lambda rows: rows[:, 0] + 2 * rows[:, 3] - 1,
    }
    expected = np.stack(
        [
            scores[:, 1],
            scores[:, 1] - scores[:, 4],
            scores[:, 1] - scores.mean(1),
            (cache["hook_pooled"] @ vector.double()).numpy(),
            scores[:, 0] + 2 * scores[:, 3] - 1,
        ],
        axis=1,
    )
    found = attribute(model, images, targets, by="head", batch_size=2)
    assert list(found.axes) == ["layer", "head", "target"] and found.axes["target"] == list(targets)
    assert np.abs(found.total - expected).max() < 1e-10
    alone = attribute(model, images, cl.contrast(1, 4), by="head")
    assert np.abs(found.per_image[..., 1] - alone.per_image).max() < 1e-12
    with pytest.raises(InputError, match="several targets"):
        found.plot()
    assert "direction" in found.plot(target="direction").get_title()
    predicted = attribute(model, images, None)
    assert np.abs(predicted.total - scores.max(1)).max() < 1e-10
    assert predicted.data.attrs["target"] == "each image's prediction" and predicted.data["target"].shape == (3,)
    each = attribute(model, images, [0, 1, cl.contrast(2, 3)])
    assert np.abs(each.total - [scores[0, 0], scores[1, 1], scores[2, 2] - scores[2, 3]]).max() < 1e-10
    mixed = attribute(model, images, [0, lambda rows: rows[:, 1] + 3, 2], batch_size=1)
    assert np.abs(mixed.total - [scores[0, 0], scores[1, 1] + 3, scores[2, 2]]).max() < 1e-10
    assert labelled(mixed, "the target's own constant").tolist() == [[0], [3], [0]]


def test_tables_tops_and_pictures() -> None:
    model = build("vit")
    images = random_images(model, 2)
    found = {by: attribute(model, images, by=by) for by in SPLITS}
    for by, result in found.items():
        assert result.by == by
        assert set(result._repr_mimebundle_()) == {"text/plain", "image/png"}
    table = found["neuron"].to_dataframe(top=5)
    assert table.groupby("image").size().tolist() == [5, 5]
    largest = np.abs(found["neuron"].per_image[0]).max()
    assert abs(table["value"].abs().iloc[0] - largest) < 1e-6 and "target" in table and "score" in table
    top = found["head"].top(4)
    assert list(top) == ["part", "mean", "se", "percent_of_score"] and len(top) == 4
    assert found["head"].top(100)["percent_of_score"].sum() == pytest.approx(100, abs=1e-2)
    with pytest.raises(InputError, match='by="token"'):
        found["head"].map(0)
    frame = found["component"].difference(found["component"])
    assert (frame["difference"] == 0).all()


def test_what_is_not_linear_is_refused_in_words() -> None:
    images = random_images(build("vit"), 2)
    with pytest.raises(InputError, match="is not linear in the logits"):
        attribute(build("vit"), images, lambda rows: rows.logsumexp(1))
    for activation in (torch.nn.Tanh(), torch.nn.ReLU()):
        model = build("vit")
        model.vit.head = torch.nn.Sequential(torch.nn.Linear(24, 9), activation, torch.nn.Linear(9, 7)).eval()
        with pytest.raises(InputError, match=rf"{type(activation).__name__} in vit\.head\.1 is not linear"):
            attribute(model, images)
        assert not model.has_hooks()

    class Squared(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :7] ** 2

    class Halved(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :7] / 2 + 1

    model = build("vit", torch.float64)
    model.vit.head = Squared().eval()
    with pytest.raises(InputError, match=r"Squared in vit\.head is not linear"):
        attribute(model, images.double())
    model.vit.head = Halved().eval()
    found = attribute(model, images.double())
    assert labelled(found, "vit.head of zero").tolist() == [[1], [1]]
    with torch.no_grad():
        assert np.abs(found.total - model(images.double())[:, CLASS].numpy()).max() < 1e-10
    with pytest.raises(InputError, match="by='heads' must be one of"):
        attribute(model, images, by="heads")
    hook = [("blocks.2.hook_resid_post", lambda x, hook: x * 2)]
    with model.hooks(fwd_hooks=hook), pytest.raises(InputError, match="do not add up"):
        attribute(model, images.double())


def test_other_kinds_of_models_are_refused() -> None:
    model = small_mixer()
    for run in (cl.logit_attribution, cl.residual_stack, cl.logit_lens):
        with pytest.raises(InputError, match="works on Vision Transformers"):
            run(model, torch.zeros(1, 3, *model.image_size))


def test_poolings_with_several_latents_and_without_projection() -> None:
    from timm.layers import AttentionPoolLatent

    def latents(pool_type: str) -> torch.nn.Module:
        vit = timm_model("vit_base_patch16_siglip_224")
        more = {"pos_embed": "abs", "feat_size": 16, "qk_norm": True, "norm_layer": torch.nn.LayerNorm}
        vit.attn_pool = AttentionPoolLatent(24, num_heads=4, latent_len=4, pool_type=pool_type, **more)
        return vit

    def refined() -> torch.nn.Module:
        return timm_model("vit_base_patch16_224", global_pool="prr", fc_norm=False)

    for make in (lambda: latents("token"), lambda: latents("avg"), refined):
        model = HookedViT(randomise(make)).to(torch.float64)
        images = random_images(model, 2)
        with torch.no_grad():
            scores = model(images)[:, CLASS].numpy()
        assert relative_gap(attribute(model, images, by="head"), scores) < 1e-13


def test_a_model_with_test_time_registers_is_taken_apart_as_it_runs() -> None:
    from caap_lab.models.moved_neurons import move_neurons

    for family in ("vit", "average_pool_class_token"):
        model = build(family, torch.float64).with_extra_tokens(1)
        move_neurons(model.vit, {1: {3: 1, 8: -1}})
        model = model.rewrapped(model.vit)
        images = random_images(model, 2)
        with torch.no_grad():
            scores = model(images)[:, CLASS].numpy()
        found = attribute(model, images, by="neuron")
        for parts in (found, attribute(model, images, by="token")):
            assert relative_gap(parts, scores) < 1e-13
        assert (found.per_image[:, 1, [3, 8]] == 0).all() and (found.per_image[:, 2, [3, 8]] != 0).all()
        bias = model.vit.blocks[1].mlp.fc2.bias.expand(2, model.spec.n_tokens, -1)
        expected = PlainParts(model, images).share(bias, 1, CLASS).numpy()
        assert found.rest is not None and np.abs(labelled(found.rest, "mlp 1 bias")[:, 0] - expected).max() < 1e-10


def test_cost_is_one_forward_pass() -> None:
    model = build("vit")
    images = random_images(model, 4)
    for by in ("component", "head", "token"):
        with Passes(model) as passes:
            attribute(model, images, by=by, batch_size=2)
        assert abs(passes.forwards - 4) < 1e-9, by
    with Passes(model) as passes:
        attribute(model, images, by="neuron")
    assert passes.forwards < 1.1 * 4  # the class token's MLPs again
