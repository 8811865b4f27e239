"""A family of Vision Transformers that timm does not have, told to the package by one class: all else works on it.

Its attention has both kinds of positions: queries and keys are rotated, and a learned term is added to the scores.
"""

from functools import partial
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

import caap_lab as cl
from caap_lab import HookedViT, InputError, Patch, Preprocessing
from caap_lab.attribution.completeness import completeness_error
from caap_lab.attribution.token_subset import logits_of_subsets
from caap_lab.engine.blanks import blank_run
from caap_lab.models import families
from caap_lab.models.architecture import Architecture
from caap_lab.models.attention import Attention, Heads
from caap_lab.models.block import Block
from caap_lab.models.mlp import mlp_width, run_mlp
from caap_lab.models.spec import ViTSpec
from helpers.models import build, random_images, randomise
from helpers.plain_caap import plain_scores

GRID, WIDTH, HEADS, DEPTH = (2, 3), 24, 3, 3


class ToyBlock(nn.Module):
    """Attention with rotated queries and keys and a term for every pair of tokens, then timm's MLP."""

    def __init__(self) -> None:
        super().__init__()
        from timm.layers import Mlp

        n_tokens, d_head = GRID[0] * GRID[1] + 1, WIDTH // HEADS
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = Mlp(WIDTH, 2 * WIDTH)
        self.pairs = nn.Parameter(torch.randn(HEADS, n_tokens, n_tokens))
        places = torch.cartesian_prod(torch.arange(GRID[0]), torch.arange(GRID[1])).float() + 1
        angles = F.pad(places @ torch.tensor([[0.7, 0.2], [0.3, 1.1]]), (0, 0, 1, 0)).repeat(1, d_head // 4)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def turned(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Pairs of channels turned by the angles of their tokens."""
        cos, sin = self.get_buffer("cos")[tokens].unsqueeze(-3), self.get_buffer("sin")[tokens].unsqueeze(-3)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        scores = self.turned(q, tokens) @ self.turned(k, tokens).mT / (WIDTH // HEADS) ** 0.5
        z = (scores + self.pairs[:, tokens[:, None], tokens[None]]).softmax(-1) @ v
        x = x + self.proj(z.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class ToyViT(nn.Module):
    """The model as its authors would write it; it knows nothing of hooks."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.global_pool = pool
        self.patch_embed = nn.Conv2d(3, WIDTH, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.blocks = nn.ModuleList(ToyBlock() for _ in range(DEPTH))
        self.norm_pre, self.norm, self.fc_norm = nn.Identity(), nn.LayerNorm(WIDTH), nn.Identity()
        self.head_drop, self.head, self.attn_pool = nn.Identity(), nn.Linear(WIDTH, 7), None

    def pool(self, x: Tensor) -> Tensor:
        return x[:, 0] if self.global_pool == "token" else x[:, 1:].mean(dim=1)

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        x = self.patch_embed(images).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        tokens = torch.arange(x.shape[1]) if kept is None else kept
        x = x[:, tokens]
        for block in self.blocks:
            x = block(x, tokens)
        return self.head(self.pool(self.norm(x)))


class ToyAttention(Attention):
    gated, fused, scale = False, True, (WIDTH // HEADS) ** -0.5

    def __init__(self, block: Any) -> None:
        self.block = block
        self.all_tokens = torch.arange(block.pairs.shape[-1])

    def project_qkv(
        self, x: Float[Tensor, "batch token d_model"], tokens: Int[Tensor, "*batch token"] | None = None
    ) -> Heads:
        tokens = self.all_tokens if tokens is None else tokens
        q, k, v = self.block.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.block.turned(q, tokens), self.block.turned(k, tokens), v

    def position_bias(
        self, queries: Int[Tensor, "*group query"] | None, keys: Int[Tensor, "*group key"] | None
    ) -> Float[Tensor, "head *group query key"]:
        queries = self.all_tokens if queries is None else queries
        keys = self.all_tokens if keys is None else keys
        return self.block.pairs[:, queries[..., :, None], keys[..., None, :]]

    def output(self, z: Float[Tensor, "batch head token d_head"], x: Tensor) -> Float[Tensor, "batch token d_model"]:
        return self.block.proj(z.transpose(1, 2).flatten(2))


class ToyFamily(Architecture):
    """All that the package has to be told."""

    containers = (ToyBlock, *families.PlainViT.containers)

    @classmethod
    def fits(cls, vit: nn.Module) -> bool:
        return isinstance(vit, ToyViT)

    def spec(self, d_mlp: int | None = None) -> ViTSpec:
        vit = self.vit
        return ViTSpec(
            n_layers=DEPTH,
            n_heads=HEADS,
            d_model=WIDTH,
            d_head=WIDTH // HEADS,
            d_mlp=mlp_width(vit.blocks[0].mlp, WIDTH, vit.cls_token) if d_mlp is None else d_mlp,
            grid=GRID,
            patch_size=(4, 4),
            image_size=(4 * GRID[0], 4 * GRID[1]),
            prefix=("cls",),
            pool=vit.global_pool,
            read_tokens=(0,) if vit.global_pool == "token" else tuple(range(1, GRID[0] * GRID[1] + 1)),
            gated_mlp=False,
        )

    def read_patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch patch d_model"]:
        return self.vit.patch_embed(images).flatten(2).mT

    def add_positions(self, patches: Float[Tensor, "batch patch d_model"]) -> Float[Tensor, "batch token d_model"]:
        return torch.cat([self.vit.cls_token.expand(len(patches), -1, -1), patches], dim=1)

    def block(self, layer: int) -> Block:
        block = self.vit.blocks[layer]
        return Block(
            norm1=block.norm1,
            attention=ToyAttention(block),
            scale_attention=lambda x: x,
            norm2=block.norm2,
            mlp=partial(run_mlp, block.mlp),
            scale_mlp=lambda x: x,
            stepped_through=(("", block), (".mlp", block.mlp)),
        )


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", [*families.FAMILIES, ToyFamily])


def toy(pool: str = "token", dtype: torch.dtype = torch.float64) -> HookedViT:
    """A random model of the family."""
    preprocessing = Preprocessing((4 * GRID[0], 4 * GRID[1]), (0.5,) * 3, (0.5,) * 3)
    return HookedViT(randomise(lambda: ToyViT(pool)), preprocessing=preprocessing).to(dtype)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_logits_are_the_models_own_fused_and_explicit(pool: str) -> None:
    model = toy(pool)
    images = random_images(model, 2)
    with torch.no_grad():
        own = model.vit(images)
        torch.testing.assert_close(model(images), own, atol=1e-12, rtol=0)
        explicit, cache = model.run_with_cache(images)
    torch.testing.assert_close(explicit, own, atol=1e-12, rtol=0)
    q, k = (cache[f"blocks.1.attn.hook_{name}"].transpose(1, 2) for name in "qk")
    scores = q @ k.mT * ToyAttention.scale + model.vit.blocks[1].pairs
    torch.testing.assert_close(cache["blocks.1.attn.hook_attn_scores"], scores, atol=1e-12, rtol=0)


def test_every_hook_point_moves_the_logits_and_is_recorded() -> None:
    model = toy()
    image = random_images(model, 1)
    plain = model(image)
    names = [name for name in model.hook_dict if name != "hook_logits"]
    store = model.record(image, names, progress=False)
    for name in names:
        assert store[name].shape[1:] == model.activation_shape(name)
        kept = model.run_patched(image, Patch(name, source=store))
        torch.testing.assert_close(kept, plain, atol=1e-10, rtol=0)
        moved = model.run_patched(image, Patch(name, source=store[name].flip(-1) + 0.5))
        assert (moved - plain).abs().max() > 1e-6, name


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("context", ["clamped", "free", "dropped", "frozen"])
def test_caap_equals_the_plain_definition_in_all_contexts(pool: str, context: str) -> None:
    model = toy(pool)
    image = random_images(model, 1)[0]
    for start, cutoff in ((0, 1), (0, 2), (1, DEPTH)):
        found = cl.caap(model, image, 0, start=start, cutoff=cutoff, context=context).all_scores
        expected = plain_scores(model, image, start=start, cutoff=cutoff, context=context)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("attention", ["exact", "cached", "cached_all"])
@pytest.mark.parametrize("tail", ["exact", "shared", "interpolated"])
def test_approximations_keep_positions(attention: str, tail: str) -> None:
    model = toy()
    # On the blank itself all rows are the blank's own, so that every approximation but the single constant is exact.
    options: dict[str, Any] = {"cutoff": 2, "attention": attention, "tail": tail}
    blank = random_images(model, 1, seed=3)
    found = cl.caap(model, blank, 0, blank=blank[0], **options).all_scores
    with torch.no_grad():
        expected = model(blank)[0].expand_as(found)
    if attention != "cached_all":
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    other = cl.caap(model, random_images(model, 1), 0, **options).all_scores
    exact = cl.caap(model, random_images(model, 1), 0, cutoff=2).all_scores
    assert torch.corrcoef(torch.stack([other.flatten(), exact.flatten()]))[0, 1] > 0.8


def test_methods_run_on_the_family() -> None:
    model = toy()
    image = random_images(model, 1)
    for name in ("input_x_gradient", "grad_cam", "attcat", "rollout", "atman", "full_grad_plus", "libra_ixg_plus"):
        assert cl.attribute(model, image, name, 1).scores.abs().max() > 0
    with cl.libragrad(model):
        assert completeness_error(model, image, 1).max() < 1e-6
    with pytest.raises(InputError, match="Transformer attribution has no rules for ToyFamily"):
        cl.attribute(model, image, "transformer_attribution", 1)


@pytest.mark.parametrize("explicit", [False, True])
def test_a_subset_of_tokens_keeps_its_positions(explicit: bool) -> None:
    model = toy()
    image = random_images(model, 1)
    keep = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()
    with torch.no_grad():
        entering = model.embed(image)[0]
        hooks = [(f"blocks.{layer}.attn.hook_pattern", lambda x, hook: None) for layer in range(DEPTH)]
        with model.hooks(fwd_hooks=hooks if explicit else []):
            found = logits_of_subsets(model, entering, keep)
        expected = [model.vit(image, torch.cat([torch.tensor([0]), row.nonzero()[:, 0] + 1]))[0] for row in keep]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-12, rtol=0)


def test_a_model_put_in_place_of_another_is_looked_at_anew() -> None:
    model = build("vit")
    images = random_images(model, 1)
    model.vit = build("vit_qk_norm").vit
    with torch.no_grad():
        assert torch.equal(model(images), model.vit(images))
    model.vit = nn.Identity()
    with pytest.raises(InputError, match="Identity is not supported"):
        model(images)


def test_class_tokens_are_collected_in_one_place() -> None:
    model = build("dino_head4")
    blank = blank_run(model, "white")
    assert [token.shape for token in blank.class_tokens(model.n_layers)] == [(1, 24)] * 3
    assert not blank.class_tokens(0)
    _, collected = model.run_blocks(blank.resid[0][None], range(3))
    for token, resid in zip(collected, blank.resid[1:4], strict=True):
        torch.testing.assert_close(token, resid[:1])
