"""Rotary positions by themselves: turning, its transpose and its inverse."""

from typing import Any

import pytest
import torch
from timm.layers import apply_rot_embed_cat
from timm.layers.pos_embed_sincos import RotaryEmbeddingCat

from caap_lab import HookedViT
from caap_lab.models import rotary
from caap_lab.models.rotary import _rotation
from helpers.models import timm_model


@pytest.mark.parametrize("halves", [False, True])
def test_turning_its_transpose_and_its_inverse(halves: bool) -> None:
    table = RotaryEmbeddingCat(8, feat_shape=[2, 3], in_pixels=False, rotate_half=halves).get_embed()
    rotation = _rotation(table.double(), 2, halves)
    generator = torch.Generator().manual_seed(0)
    x, slope = (torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.double) for _ in range(2))
    x.requires_grad_()
    turned = rotation.turn(x)
    assert torch.equal(turned[:, :, :2], x[:, :, :2])  # prefix tokens stay as they are
    assert torch.equal(turned[:, :, 2:], apply_rot_embed_cat(x[:, :, 2:], table.double(), half=halves))
    (expected,) = torch.autograd.grad(turned, x, slope)
    torch.testing.assert_close(rotation.pull_back(slope), expected)
    torch.testing.assert_close(rotation.turn_back(turned), x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("of_heads", [False, True])
def test_rows_are_turned_by_the_tokens_they_are(of_heads: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(*(3,) * of_heads, 5, 16, generator=generator)
    rotation = _rotation(table, 1, False)
    x = torch.randn(2, 3, 6, 8, generator=generator)
    turned = rotation.turn(x)
    alike, each = torch.tensor([4, 0, 4]), torch.tensor([[5, 0], [1, 1]])
    assert torch.equal(rotation.of_rows(alike).turn(x[:, :, alike]), turned[:, :, alike])
    of_each = torch.stack([rows[:, tokens] for rows, tokens in zip(x, each, strict=True)])
    expected = torch.stack([rows[:, tokens] for rows, tokens in zip(turned, each, strict=True)])
    assert torch.equal(rotation.of_rows(each).turn(of_each), expected)


@pytest.mark.parametrize("of_heads", [False, True])
@pytest.mark.parametrize("halves", [False, True])
def test_turning_in_place_is_bit_equal(halves: bool, of_heads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotary, "_AT_ONCE", 3)  # neither one piece nor whole pieces
    generator = torch.Generator().manual_seed(0)
    rotation = _rotation(torch.randn(*(3,) * of_heads, 8, 16, generator=generator), 2, halves)
    projected = torch.randn(2, 10, 3 * 8, generator=generator)
    heads = projected.unflatten(-1, (3, 8)).transpose(1, 2)
    expected = rotation.turn(heads)
    with torch.no_grad():
        half = heads.to(torch.bfloat16)
        assert torch.equal(rotation.turn_(half), rotation.turn(half))
        turned = rotation.turn_(heads)
    assert turned.data_ptr() == projected.data_ptr()
    assert torch.equal(turned, expected)


def test_what_a_torch_hook_keeps_of_a_projection_stays_as_it_was() -> None:
    vit: Any = timm_model("vit_small_patch16_rope_224", depth=1, embed_dim=24, num_heads=3)
    model = HookedViT(vit)
    attention, qkv = model.architecture.block(0).attention, vit.blocks[0].attn.qkv
    tokens = torch.arange(model.spec.n_tokens)
    x = torch.randn(1, len(tokens), 24, generator=torch.Generator().manual_seed(0))
    kept: list[torch.Tensor] = []
    with torch.no_grad():
        unwatched = attention.project_qkv(x, tokens)
        handle = qkv.register_forward_hook(lambda layer, inputs, output: kept.append(output))
        for chosen in (tokens, None):
            for found, expected in zip(attention.project_qkv(x, chosen), unwatched, strict=True):
                assert torch.equal(found, expected)
        handle.remove()
        assert len(kept) == 2
        assert all(torch.equal(output, qkv(x)) for output in kept)
