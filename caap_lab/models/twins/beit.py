"""BEiT and Data2Vec-Vision of transformers as timm's Beit."""

from typing import Any

import torch
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.models.twins.blueprint import Blueprint
from caap_lab.models.twins.hugging_face import (
    activation,
    blocks_of,
    has_layer_scale,
    need,
    part,
    patch_projection,
    positions,
    run,
    size_pair,
    sizes,
    take_blocks,
)

_PHOTOS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}
_TABLE = "relative_position_bias.relative_position_bias_table"


def beit(module: Any, image_size: tuple[int, int] | None) -> Blueprint:
    """The blueprint of a BEiT: absolute positions, and biases for pairs of tokens per block or shared, or none.

    The head pools the mean of the patches and then normalises it, or normalises first and then takes the class token.
    """
    base = part(module, "beit", "data2vec_vision") or module
    config, embeddings = module.config, need(base, "embeddings")
    blocks = blocks_of(base)
    own = [part(block, _TABLE, f"attention.attention.{_TABLE}") for block in blocks]
    shared = part(base, "shared_position_bias.relative_position_bias_table", f"encoder.{_TABLE}")
    absolute = part(embeddings, "position_embeddings") is not None
    pooler, scaled = part(base, "pooler"), has_layer_scale(base)
    by_mean = isinstance(base.layernorm, nn.Identity)
    blueprint = Blueprint(
        kind=Beit,
        arguments={
            **sizes(base, config, image_size),
            "global_pool": "avg" if by_mean else "token",
            "use_fc_norm": by_mean and pooler is not None,
            "init_values": 1.0 if scaled else None,
            "use_abs_pos_emb": absolute,
            "use_rel_pos_bias": own[0] is not None,
            "use_shared_rel_pos_bias": shared is not None,
        },
        blocks=blocks,
        run=run,
        photos=_PHOTOS,
        activation=activation(config.hidden_act),
    )
    blueprint.layer("patch_embed.proj", patch_projection(base))
    blueprint.tensors["cls_token"] = embeddings.cls_token
    if absolute:
        blueprint.tensors["pos_embed"] = positions(base, config, image_size, always_resampled=True)
    take_blocks(blueprint, scales=("gamma_1", "gamma_2"))
    _take_biases(blueprint, own, shared, size_pair(config.image_size))
    if by_mean and pooler is not None:
        blueprint.layer("fc_norm", pooler.layernorm)
    elif by_mean:
        blueprint.absent = ("norm",)
    else:
        blueprint.layer("norm", base.layernorm)
    if part(module, "classifier") is not None:
        blueprint.classifier(module.classifier)
    return blueprint


def _take_biases(
    blueprint: Blueprint, own: list[Tensor | None], shared: Tensor | None, native: tuple[int, int]
) -> None:
    """Take the biases of queries and values; timm stores them separately and has none for keys."""
    patch, size = blueprint.arguments["patch_size"], blueprint.arguments["img_size"]
    old, new = ((side[0] // patch[0], side[1] // patch[1]) for side in (native, size))
    for index, table in enumerate(own):
        name = f"blocks.{index}.attn"
        query, _, value = blueprint.tensors.pop(f"{name}.qkv.bias").chunk(3)
        blueprint.tensors |= {f"{name}.q_bias": query, f"{name}.v_bias": value}
        if table is not None:
            blueprint.tensors[f"{name}.relative_position_bias_table"] = _as_read(table, old, new)
    if shared is not None:
        blueprint.tensors["rel_pos_bias.relative_position_bias_table"] = _as_read(shared, old, new)


def _as_read(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """The table of biases [distance, head] as transformers uses it: always resampled, with the two axes swapped.

    For a square grid of the original size that changes nothing.
    """
    rows, cols = 2 * old[0] - 1, 2 * old[1] - 1
    patches, rest = table[: rows * cols], table[rows * cols :]
    as_image = patches.reshape(1, cols, rows, -1).permute(0, 3, 1, 2)
    resampled = F.interpolate(as_image, size=(2 * new[0] - 1, 2 * new[1] - 1), mode="bilinear")
    return torch.cat([resampled.permute(0, 2, 3, 1).flatten(0, 2), rest])
