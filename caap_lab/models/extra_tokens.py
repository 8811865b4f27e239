"""timm's Vision Transformers with more tokens than they were trained with, as test-time registers."""

import copy
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from caap_lab.checks import check_count
from caap_lab.errors import InputError

Body = TypeVar("Body", bound=nn.Module)


def extended(vit: Body, count: int) -> Body:
    """A timm Vision Transformer with zero tokens, without positions, after its other prefix tokens.

    timm's own forward runs it. It shares all weights except prefix tokens and positions, which get rows of zeros; the
    given model is unchanged. Relative positions (BEiT) treat the new tokens as class tokens.

    Args:
        vit: The model.
        count: Number of new tokens.

    Raises:
        InputError: the head adds positions to all tokens, and has none for the new ones.
    """
    check_count("count", count)
    pool: Any = getattr(vit, "attn_pool", None)
    if getattr(pool, "pos_embed", None) is not None:
        kind = type(vit).__name__
        raise InputError(f"The head of this {kind} adds positions to all tokens, and has none for the new ones.")
    other: Any = copy.deepcopy(vit, {id(parameter): parameter for parameter in vit.parameters()})
    n_prefix = int(other.num_prefix_tokens)
    with torch.inference_mode(False), torch.no_grad():
        name = _holder(other)
        tokens = getattr(other, name)
        if tokens is None:
            like = next(other.parameters())
            tokens = like.new_zeros(1, 0, other.embed_dim)
        setattr(other, name, nn.Parameter(_with_zeros(tokens, tokens.shape[1], count)))
        positions = getattr(other, "pos_embed", None)
        if positions is not None and not getattr(other, "no_embed_class", False):
            other.pos_embed = nn.Parameter(_with_zeros(positions, n_prefix, count))
        for part in other.modules():
            if getattr(part, "relative_position_index", None) is not None:
                part.relative_position_index = _as_class_token(part.relative_position_index, count)
                rows, cols = part.window_size
                part.window_size = (rows * cols + count, 1)  # timm uses only the product, here or as window_area
                if hasattr(part, "window_area"):
                    part.window_area += count
            if hasattr(part, "num_prefix_tokens"):
                part.num_prefix_tokens += count
    if hasattr(other, "num_reg_tokens"):
        other.num_reg_tokens += count
    other.n_extra_tokens = getattr(other, "n_extra_tokens", 0) + count
    return other


def refuse_extra_tokens(vit: nn.Module, what: str) -> None:
    """Raise InputError for a model with added tokens.

    Raises:
        InputError: it has some; the message gives the order of calls that works.
    """
    if getattr(vit, "n_extra_tokens", 0):
        raise InputError(f"{what} does not work on a model with extra tokens: do it first, then add the tokens.")


def _holder(vit: nn.Module) -> str:
    """Name of the parameter that is last among timm's prefix tokens."""
    if isinstance(vit, VisionTransformerDistilled):
        return "dist_token"
    return "cls_token" if isinstance(vit, Beit) else "reg_token"


def _with_zeros(rows: Float[Tensor, "1 row d_model"], place: int, count: int) -> Float[Tensor, "1 more d_model"]:
    zeros = rows.new_zeros(1, count, rows.shape[-1])
    return torch.cat([rows[:, :place], zeros, rows[:, place:]], dim=1)


def _as_class_token(offsets: Tensor, count: int) -> Tensor:
    """A table of offsets between tokens, [token, token], with `count` more class tokens after the first."""
    tokens = torch.arange(len(offsets), device=offsets.device)
    tokens = torch.cat([tokens[:1].repeat(count + 1), tokens[1:]])
    return offsets[tokens][:, tokens].contiguous()
