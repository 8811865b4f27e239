"""Decompositions, ablations, traces, paths, interactions and sparse features on a CUDA device."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from helpers.models import build
from helpers.on_gpu import DEVICE, FORMATS, Seen, both, check, difference, exact, images_of, needs_gpu, on_gpu

pytestmark = needs_gpu

FAMILIES = ("vit", "dinov2_registers", "siglip", "beit", "rope_mixed", "deit_distilled")
Results = list[Any]
QUIET: dict[str, Any] = {"progress": False}


def pair(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and corrupted images."""
    return images[:2], images[2:]


@torch.no_grad()
def largest_logit(model: Any, images: torch.Tensor) -> float:
    """Size of what effects are differences of: rounding goes by it, and differences may be small."""
    return float(model(images).abs().max())


def logit_attribution(model: Any, images: torch.Tensor) -> Results:
    parts = [cl.logit_attribution(model, images, 1, by=by, **QUIET) for by in ("component", "head", "token", "neuron")]
    return [*(part.per_image for part in parts), *(part.total for part in parts)]


def residual_stack(model: Any, images: torch.Tensor) -> Results:
    stacks = [cl.residual_stack(model, images, by=by, **QUIET) for by in ("component", "head")]
    return [*(stack.per_image for stack in stacks), *(stack.total for stack in stacks)]


def logit_lens(model: Any, images: torch.Tensor) -> Results:
    return [cl.logit_lens(model, images, **QUIET).per_image, cl.logit_lens(model, images, target=1, **QUIET).per_image]


def trace(model: Any, images: torch.Tensor) -> Results:
    clean, corrupted = pair(images)
    found = [
        cl.trace(model, clean, corrupted, 1, tokens=[0, 3], points=["resid_pre", "mlp_out"], **QUIET),
        cl.trace(model, clean, corrupted, 1, points="z", by="head", direction="noise", window=2, **QUIET),
        cl.trace(model, clean, corrupted, {"one": 1, "rather": cl.contrast(2, 3)}, by="layer", batch_size=3, **QUIET),
    ]
    return [one.data["value"].values for one in found]


def attribution_patching(model: Any, images: torch.Tensor) -> Results:
    found = [cl.attribution_patching(model, *pair(images), 1, **QUIET)]
    found += [cl.attribution_patching(model, *pair(images), 1, points="z", by="head", **QUIET)]
    found += [cl.attribution_patching(model, *pair(images), 1, points="k", correction="softmax", **QUIET)]
    found += [cl.attribution_patching(model, *pair(images), 1, rules="libra", **QUIET)]
    return [one.values for one in found]


def path_patch(model: Any, images: torch.Tensor) -> Results:
    into = ["2.0.q", "3.1.k", "mlp 2", "logits"]
    found = cl.path_patch(model, *pair(images), ["embed", "0.1", "attn 1", "mlp 1"], into, 1, batch_size=3, **QUIET)
    heads = cl.path_patch(model, *pair(images), "heads", "logits", 1, direction="denoise", tokens=[0, 3], **QUIET)
    size = largest_logit(model, images)
    return [np.append(one.per_image.reshape(-1), size) for one in (found, heads)]


def caap_interactions(model: Any, images: torch.Tensor) -> Results:
    cells = [(0, 0), (2, 1), (1, 1)]
    found = [
        cl.caap_interactions(model, images[:2], 1, patches=cells, context=context, cutoff=2, **QUIET)
        for context in ("clamped", "free")
    ]
    size = largest_logit(model, images)
    return [np.append(one.per_image.reshape(-1), size) for one in found]


def ablations(model: Any, images: torch.Tensor) -> Results:
    heads = [
        cl.ablate_heads(model, images, 1, replacement=name, **QUIET)
        for name in ("zero", "mean", "token_mean", "shuffled")
    ]
    layers = cl.ablate_layers(model, images, {"a": cl.contrast(2, 5), "b": 4}, parts="mlp", batch_size=3, **QUIET)
    tokens = cl.ablate_tokens(model, images, 1, tokens={"first": [1], "box": cl.tokens.box(0, 0, 2, 2)}, **QUIET)
    size = largest_logit(model, images)
    return [np.append(one.effect.reshape(-1), size) for one in (*heads, layers, tokens)]


def caap_parts(model: Any, images: torch.Tensor) -> Results:
    options = {"patches": [(0, 0), (2, 1)], **QUIET}
    found = [cl.caap_by_head(model, images[:2], 1, what=what, **options) for what in ("writes", "reads")]
    found += [cl.caap_by_block(model, images[:2], 1, part=part, **options) for part in ("attn", "mlp")]
    size = largest_logit(model, images)
    return [np.append(one.per_image.reshape(-1), size) for one in found]


def token_norms(model: Any, images: torch.Tensor) -> Results:
    return [cl.token_norms(model, images, **QUIET).per_image]


def corrupted(model: Any, images: torch.Tensor) -> Results:
    mask = np.zeros(model.image_size, bool)
    mask[4:20, 6:24] = True
    how = [("blank", {}), ("blur", {}), ("noise", {"seed": 3})]
    return [cl.corrupt(model, images, name, masks=[mask] * len(images), **more) for name, more in how]


def edits(model: Any, images: torch.Tensor) -> Results:
    u, v = (torch.randn(24, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    sources = (cl.directions.add(u, 3.0), cl.directions.project_off(u, v), cl.directions.swap(u, v))
    return [model.run_patched(images, cl.Patch("resid_pre", 2, tokens=[1, 4], source=source)) for source in sources]


def attention_regions(model: Any, images: torch.Tensor) -> Results:
    one, other = np.zeros((2, *model.image_size), bool)
    one[:16, :16], other[16:, 8:] = True, True
    found = cl.attention_regions(model, images, [[one, other]] * len(images), **QUIET)
    return [found.weight, found.mass, found.entropy]


CALLS: dict[Callable[[Any, torch.Tensor], Results], Seen] = {
    logit_attribution: (2e-6, 0.0051, 0.053),
    residual_stack: (8e-7, 7e-4, 0.006),
    logit_lens: (8e-7, 0.0021, 0.016),
    trace: (2e-6, 0.005, 0.045),
    attribution_patching: (4.1e-6, 0.01, 0.13),
    path_patch: (6e-7, 0.0021, 0.017),
    caap_interactions: (4e-6, 0.005, 0.02),
    ablations: (1.3e-6, 0.003, 0.026),
    caap_parts: (9e-7, 0.002, 0.023),
    token_norms: (2.2e-7, 5e-4, 0.004),
    corrupted: (1.2e-7, 1e-3, 0.009),
    edits: (1.1e-6, 0.0025, 0.018),
    attention_regions: (1.1e-6, 0.003, 0.031),
}


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_every_mechanism(call: Callable[..., Results], dtype: str) -> None:
    for family in FAMILIES:
        seen = dict(zip(FORMATS, CALLS[call], strict=True))[dtype]
        check(*both(family, FORMATS[dtype], call, count=4), seen, family)


def test_the_gap_between_joint_and_single_effects() -> None:
    def gaps(model: Any, images: torch.Tensor) -> Results:
        m = cl.caap(model, images[:1], 1, cutoff=3)
        traced = cl.trace(model, *pair(images), 1, **QUIET)
        found = [cl.interaction_check(model, m, images[:1], top=3), cl.interaction_check(model, traced, top=3)]
        return [part for one in found for part in (one.joint, one.singles)]

    check(*both("vit", torch.float32, gaps, count=4), 6.4e-6, "gaps")


def test_noise_is_the_same_on_both() -> None:
    def effects(model: Any, images: torch.Tensor) -> Results:
        return [cl.ablate_heads(model, images, 1, replacement="noise", seed=2, **QUIET).effect]

    check(*both("vit", torch.float32, effects, count=4), 7.4e-7, "noise")


@pytest.mark.parametrize("dtype", FORMATS)
def test_sparse_features(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    encoder, decoder = torch.randn(24, 60, generator=generator), torch.randn(60, 24, generator=generator) / 24**0.5

    def features(model: Any, images: torch.Tensor) -> Results:
        weights = [part.to(model.device, torch.float32) for part in (encoder, decoder)]
        sae = cl.SparseAutoencoder.of(
            lambda x: (x.to(weights[0]) @ weights[0]).relu().to(x), lambda f: (f.to(weights[1]) @ weights[1]).to(f),
            width=24,
        )  # fmt: skip
        store = model.record(images, "resid_pre", layers=2, **QUIET)
        found = sae.features(store, "resid_pre", 2, keep=60, **QUIET)
        with torch.no_grad():
            ablated = model.run_patched(images, cl.Patch("resid_pre", 2, source=sae.ablate(7)))
        return [found.of(7), found.frequency, np.array([found.explained]), ablated]

    seen = {"fp32": 1e-6, "fp16": 0.018, "bf16": 0.053}[dtype]
    for family in ("vit", "dinov2_registers"):
        check(*both(family, FORMATS[dtype], features, count=4), seen, family)


def test_neurons_move_to_a_new_token() -> None:
    def moved(model: Any, images: torch.Tensor) -> Results:
        neurons = cl.register_neurons(model, images, top=2, threshold=1.05, layer=2, **QUIET)
        calm = neurons.moved(model)
        return [
            neurons.table["difference"].to_numpy(),
            calm(images).detach(),
            cl.caap(calm, images[0], 1, cutoff=2).all_scores,
        ]

    check(*both("deit3", torch.float32, moved, count=4), 1e-6, "register neurons")


def test_libragrad_and_the_model_at_another_size() -> None:
    def results(model: Any, images: torch.Tensor) -> Results:
        larger = model.at_image_size(48)
        big = torch.nn.functional.interpolate(images, (48, 48))
        with cl.libragrad(model):
            gradients = cl.attribute(model, images[0], "input_x_gradient", 1)
        return [larger(big).detach(), cl.caap(larger, big[0], 1).all_scores, gradients.scores]

    check(*both("dinov2_registers", torch.float32, results), 8e-7, "another size")


def test_stores_stay_where_they_are_asked_to_be() -> None:
    model, images = on_gpu("vit", torch.float32), images_of("vit", torch.float32)
    store = model.record(images, ["z", "resid_pre"], device=DEVICE, **QUIET)
    assert store["z", 1].device.type == DEVICE
    patch = cl.Patch("z", [1], source=store.shuffled(0))
    plain, on_cpu = exact("vit", torch.float32), images.cpu().double()
    expected_patch = cl.Patch("z", [1], source=plain.record(on_cpu, ["z"], **QUIET).shuffled(0))
    with torch.no_grad():
        found, expected = model.run_patched(images, patch), plain.run_patched(on_cpu, expected_patch)
    assert difference(found, expected) < 1e-5


def test_a_model_is_the_same_one_on_both() -> None:
    assert on_gpu("vit", torch.float32).fingerprint == build("vit").fingerprint
