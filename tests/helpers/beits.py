"""timm's BEiT run on some of its tokens: every pair of them keeps the entry of its offset, looked up pair by pair."""

from typing import Any

import torch
from torch import Tensor


def beit_embedding(vit: Any, image: Tensor) -> Tensor:
    """What enters block 0, [1, token, d_model]."""
    x = torch.cat([vit.cls_token, vit.patch_embed(image[None])], dim=1)
    return x if vit.pos_embed is None else x + vit.pos_embed


def beit_logits_of_subset(vit: Any, image: Tensor, kept: Tensor) -> Tensor:
    """Logits [class] with the patches that are kept, and the class token."""
    tokens = [0, *(kept.nonzero()[:, 0] + 1).tolist()]
    x = beit_embedding(vit, image)[:, tokens]
    for block in vit.blocks:
        bias = torch.zeros(block.attn.num_heads, len(tokens), len(tokens), dtype=x.dtype)
        for part in (block.attn, vit.rel_pos_bias):
            if part is None or part.window_size is None:
                continue
            for i, query in enumerate(tokens):
                for j, key in enumerate(tokens):
                    bias[:, i, j] += part.relative_position_bias_table[part.relative_position_index[query, key]]
        own, block.attn.relative_position_bias_table = block.attn.relative_position_bias_table, None
        x = block(x, shared_rel_pos_bias=bias)
        block.attn.relative_position_bias_table = own
    return vit.forward_head(vit.norm(x))[0]
