"""Models with tokens added at test time: what timm computes with them, and what stays as it was."""

import pytest
import torch

import caap_lab as cl
from caap_lab import InputError
from helpers.models import ALL_FAMILIES, build, random_images

QUICK = ("deit_distilled", "rope_mixed", "beit", "siglip")
FAMILIES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL_FAMILIES]


@pytest.mark.parametrize("family", FAMILIES)
def test_added_tokens_are_prefix_tokens_that_nothing_but_attention_reads(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    with torch.no_grad():
        plain, weights = model(images), model.fingerprint
        more = model.with_extra_tokens(2)
        n = model.spec.n_prefix
        assert more.spec.prefix == (*model.spec.prefix, "reg", "reg") and more.spec.n_patches == model.spec.n_patches
        assert more.preprocessing == model.preprocessing and more.model_name.endswith("+ 2 tokens")
        found = more(images)
        if model.head is None:
            assert torch.equal(found, more.vit(images))  # timm's own forward, bit by bit
        assert (found - plain).abs().max() > 1e-6
        _, cache = more.run_with_cache(images)
        entering = cache["hook_full_embed"]
        assert torch.equal(entering[:, n : n + 2], torch.zeros_like(entering[:, n : n + 2]))
        assert torch.equal(model(images), plain) and model.fingerprint == weights != more.fingerprint

        # Where no token attends to the new ones, all others are what they were.
        def deaf(scores: torch.Tensor, hook: object) -> torch.Tensor:
            scores = scores.clone()
            scores[..., n : n + 2] = -torch.inf
            return scores

        hooks = [(name, deaf) for name in more.hook_dict if name.startswith("blocks") and name.endswith("attn_scores")]
        reads_new = set(range(n, n + 2)) <= set(more.spec.read_tokens)
        if reads_new:
            hooks += [("attn_pool.hook_attn_scores", deaf)]
        assert (more.run_with_hooks(images, fwd_hooks=hooks) - plain).abs().max() < 1e-10
    shared = {id(p) for p in model.vit.parameters()}
    own = {name for name, p in more.vit.named_parameters() if id(p) not in shared}
    assert own <= {"cls_token", "dist_token", "reg_token", "pos_embed"}


@pytest.mark.parametrize("context", ["clamped", "free"])
def test_caap_takes_them_for_registers(context: str) -> None:
    model = build("vit").with_extra_tokens()
    image = random_images(model, 1)
    found = cl.caap(model, image, 0, context=context, cutoff=2)
    assert found.scores.shape == model.grid and model.spec.live_prefix == (0,)


def test_what_cannot_have_them_is_refused() -> None:
    model = build("vit")
    with pytest.raises(InputError, match="count"):
        model.with_extra_tokens(0)
    with pytest.raises(InputError, match="do it first"):
        model.with_extra_tokens().at_image_size(64)
    assert model.at_image_size(64).with_extra_tokens().spec.n_tokens == 1 + 1 + 64
    prompts = {"a cat": torch.ones(7), "a dog": torch.arange(7.0)}
    assert model.with_prompts(prompts).with_extra_tokens().class_names.names == ("a cat", "a dog")
