"""LeGrad against a plain loop over timm's own modules."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import caap_lab as cl
from caap_lab.attribution.legrad import legrad
from caap_lab.models.explained import targets_of
from caap_lab.models.targets import logit
from helpers.models import build, by_trait, random_images

# -- heads in plain torch: (timm's model, normalised stream [token, d_model], earlier class tokens) -> logits ---------


def class_token(vit: Any, x: Tensor, earlier: list[Tensor]) -> Tensor:
    return vit.head(x[0])


def mean_of_patches(vit: Any, x: Tensor, earlier: list[Tensor]) -> Tensor:
    return vit.head(vit.fc_norm(x[vit.num_prefix_tokens :].mean(0)))


def beit(vit: Any, x: Tensor, earlier: list[Tensor]) -> Tensor:
    return vit.head(vit.fc_norm(x[1:].mean(0)))


def distilled(vit: Any, x: Tensor, earlier: list[Tensor]) -> Tensor:
    return (vit.head(x[0]) + vit.head_dist(x[1])) / 2


HEADS: dict[str, Callable[[Any, Tensor, list[Tensor]], Tensor]] = {
    "vit": class_token,
    "dinov2_registers": class_token,
    "deit_distilled": distilled,
    "conv_stem": mean_of_patches,
    "average_pool_class_token": mean_of_patches,
    "beit": beit,
    "dinov3": class_token,
    "clip": class_token,
}


def run_cut(model: Any, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Streams entering block 0 and leaving every block, and every block's attention, of timm's own forward pass.

    What enters a block is detached, so that nothing goes back further.
    """
    vit, streams, patterns, handles = model.vit, [], [], []

    def enter(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if not streams:
            streams.append(inputs[0].detach())
        return (inputs[0].detach(), *inputs[1:])

    def attend(module: Any, inputs: Any, output: Tensor) -> Tensor:
        patterns.append(output.view_as(output))
        return patterns[-1]

    for block in vit.blocks:
        block.attn.fused_attn = False
        handles += [block.register_forward_pre_hook(enter), block.attn.attn_drop.register_forward_hook(attend)]
        handles.append(block.register_forward_hook(lambda module, inputs, output: streams.append(output)))
    vit.forward_features(image[None])
    for handle in handles:
        handle.remove()
    return streams, patterns


def plain(
    model: Any, image: Tensor, target: int, head: Callable[..., Tensor], mean: bool = False, start: int = 0
) -> Tensor:
    streams, patterns = run_cut(model, image)
    total = torch.zeros(model.spec.grid, dtype=torch.float64)
    for layer in range(start, model.n_layers):
        tokens = streams[layer + 1][0]
        if mean:  # in the place of class and distillation token, which nobody else reads
            tokens = tokens.mean(0, keepdim=True).expand(len(tokens), -1)
        logits = head(model.vit, model.vit.norm(tokens), [])
        (gradient,) = torch.autograd.grad(logits[target], patterns[layer])
        per_token = sum(head.clamp(min=0).mean(0) for head in gradient[0]) / model.spec.n_heads
        total += per_token[model.spec.n_prefix :].reshape(model.spec.grid).detach()
    return total


@pytest.mark.parametrize("family", by_trait(HEADS))
def test_the_sum_over_layers_is_the_plain_loops(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    targets = targets_of(model, [1, 4], 2)
    reads_class = not model.spec.reads_patches
    default, own, late = (
        legrad(model, images, targets, **options)
        for options in ({}, {"class_token": "own"}, {"class_token": "own", "start_layer": -2})
    )
    for image, target, *found in zip(images, (1, 4), default, own, late, strict=True):
        for scores, mean, start in zip(found, (reads_class, False, False), (0, 0, 2), strict=True):
            expected = plain(model, image, target, HEADS[family], mean, start)
            assert (scores - expected).abs().max() < 1e-10 * expected.abs().max()
    assert torch.equal(default, own) != reads_class


@pytest.mark.parametrize("family", by_trait(["siglip", "rope_mixed"]))
def test_pooling_by_attention_is_read_at_its_own_attention(family: str) -> None:
    model = build(family, torch.float64)
    image, spec = random_images(model, 1), model.spec
    streams, _ = run_cut(model, image[0])
    pool = model.vit.attn_pool
    heads = (pool.num_heads, pool.head_dim)

    def read(stream: Tensor) -> tuple[Tensor, Tensor]:
        """The pooling's attention [head, token], and logits."""
        x = model.vit.norm(stream)[0]
        q = pool.q_norm(pool.q(pool.latent[0, 0]).reshape(heads))
        k, v = pool.kv(x).reshape(len(x), 2, *heads).unbind(1)
        pattern = torch.einsum("hd,thd->ht", q, pool.k_norm(k)).mul(pool.scale).softmax(-1)
        out = pool.proj(torch.einsum("ht,thd->hd", pattern, v).flatten())
        out = out + pool.mlp(pool.norm(out))
        return pattern, model.vit.head(model.vit.fc_norm(out))

    expected = torch.zeros(spec.grid, dtype=torch.float64)
    for stream in streams[1:]:
        pattern, logits = read(stream.detach())
        (gradient,) = torch.autograd.grad(logits[3], pattern)
        expected += gradient.clamp(min=0).mean(0)[spec.n_prefix :].reshape(spec.grid)
    (found,) = legrad(model, image, targets_of(model, 3, 1))
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()

    assert torch.equal(legrad(model, image, targets_of(model, 3, 1), class_token="own")[0], found)


def test_a_head_of_several_blocks_reads_what_it_would_read_if_the_model_ended_there() -> None:
    model = build("dino_head4", torch.float64)
    image = random_images(model, 1)
    streams, patterns = run_cut(model, image[0])
    norm, linear, n_prefix = model.vit.norm, model.head.linear, model.spec.n_prefix
    readings: dict[str, Callable[[Tensor], Tensor]] = {"own": lambda x: x[0, 0], "mean": lambda x: x[0].mean(0)}
    for class_token, read in readings.items():
        expected = torch.zeros(model.spec.grid, dtype=torch.float64)
        for layer in range(model.n_layers):
            earlier = [read(streams[max(0, layer + 1 - back)].detach()) for back in (3, 2, 1)]
            tokens = norm(streams[layer + 1][0])
            pooled = torch.cat([*map(norm, [*earlier, read(streams[layer + 1])]), tokens[n_prefix:].mean(0)])
            # Not linear in the logits, so that the class tokens of earlier blocks matter.
            (gradient,) = torch.autograd.grad(linear(pooled).softmax(-1)[3], patterns[layer], retain_graph=True)
            expected += gradient[0].clamp(min=0).mean((0, 1))[n_prefix:].reshape(model.spec.grid)
        targets = targets_of(model, lambda logits: logits.softmax(-1)[:, 3], 1)
        (found,) = legrad(model, image, targets, class_token=class_token)
        assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


def test_prompts_of_clip_are_read_at_every_layer() -> None:
    model = build("clip", torch.float64)
    texts = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    prompted = model.with_prompts({f"photo {i}": text for i, text in enumerate(texts)})
    image = random_images(model, 1)
    texts = F.normalize(texts, dim=-1).double()

    def head(vit: Any, x: Tensor, earlier: list[Tensor]) -> Tensor:
        return 100 * texts @ F.normalize(vit.head(x[0]), dim=-1)

    (found,) = legrad(prompted, image, targets_of(prompted, logit(1), 1))
    expected = plain(prompted, image[0], 1, head, mean=True)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()  # text embeddings are kept in float32


@pytest.mark.slow
@pytest.mark.parametrize("family", by_trait())
def test_every_family_has_a_map(family: str) -> None:
    model = build(family)
    images = random_images(model, 2)
    for class_token in ("mean", "own"):
        found = legrad(model, images, targets_of(model, [0, 5], 2), class_token=class_token)
        assert found.shape == (2, *model.grid) and found.min() >= 0 and found.std() > 0


@pytest.mark.parametrize("name", ["legrad", "attn_lrp"])
def test_maps_lie_on_objects_of_the_bundled_world(name: str) -> None:
    """On the asked one of two digits, far above a map of chance."""
    model, scenes = cl.load_model("demo"), cl.demo_images("two", n=8, seed=5)
    maps = cl.attribute(model, [s.image for s in scenes], name, [s.label for s in scenes], progress=False)
    found = [cl.localisation(m, scene.masks[scene.label]).aupr1 for m, scene in zip(maps, scenes, strict=True)]
    chance = [float(scene.masks[scene.label].mean()) for scene in scenes]
    assert np.mean(found) > 3 * np.mean(chance)
