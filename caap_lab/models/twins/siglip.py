"""SigLIP's image tower in transformers as timm's VisionTransformer."""

from functools import partial
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from caap_lab.models.twins.blueprint import Blueprint, Outputs
from caap_lab.models.twins.hugging_face import (
    activation,
    blocks_of,
    need,
    part,
    patch_projection,
    positions,
    resampling,
    run,
    sizes,
    take_blocks,
)

_PHOTOS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"}


def siglip(module: Any, image_size: tuple[int, int] | None) -> Blueprint:
    """The blueprint of a SigLIP image tower: no class token; attention pooling, or the mean for SigLIP's classifier.

    A tower built without its pooling head returns all tokens; the twin's features are their mean.
    """
    base = part(module, "vision_model") or module
    base = part(base, "vision_model") or base
    config, classifier, pool = base.config, part(module, "classifier"), part(base, "head")
    pooled = classifier is None and pool is not None
    arguments = {**sizes(base, config, image_size), "class_token": False, "fc_norm": False}
    arguments["global_pool"] = "map" if pooled else "avg"
    blueprint = Blueprint(
        kind=VisionTransformer,
        arguments=arguments,
        blocks=blocks_of(base),
        run=partial(_run_tower, **resampling(config, image_size)),
        photos=_PHOTOS,
        activation=activation(config.hidden_act),
    )
    blueprint.layer("patch_embed.proj", patch_projection(base))
    blueprint.tensors["pos_embed"] = positions(base, config, image_size)
    take_blocks(blueprint)
    blueprint.layer("norm", need(base, "post_layernorm"))
    if classifier is not None:
        blueprint.classifier(classifier)
    if pooled:
        _take_pooling(blueprint, pool)
    return blueprint


def _run_tower(module: nn.Module, images: Tensor, **options: Any) -> Outputs:
    whole = part(module, "text_model") is not None
    return run(need(module, "vision_model") if whole else module, images, **options)


def _take_pooling(blueprint: Blueprint, pool: Any) -> None:
    attention, width = pool.attention, pool.probe.shape[-1]
    blueprint.tensors["attn_pool.latent"] = pool.probe
    for name, rows in (("q", slice(width)), ("kv", slice(width, None))):
        blueprint.tensors[f"attn_pool.{name}.weight"] = attention.in_proj_weight[rows]
        blueprint.tensors[f"attn_pool.{name}.bias"] = attention.in_proj_bias[rows]
    blueprint.layer("attn_pool.proj", attention.out_proj)
    blueprint.layer("attn_pool.norm", pool.layernorm)
    blueprint.layer("attn_pool.mlp.fc1", pool.mlp.fc1)
    blueprint.layer("attn_pool.mlp.fc2", pool.mlp.fc2)
