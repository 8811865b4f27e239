"""Rotary positions by themselves: turning, its transpose and its inverse."""

import pytest
import torch
from timm.layers import apply_rot_embed_cat
from timm.layers.pos_embed_sincos import RotaryEmbeddingCat

from caap_lab.models.rotary import _rotation


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
