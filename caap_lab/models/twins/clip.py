"""Image towers of CLIP and its variants in transformers as timm's VisionTransformer."""

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

_PHOTOS = {
    **{"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)},
    **{"interpolation": "bicubic", "crop_pct": 1.0},
}


def clip(module: Any, image_size: tuple[int, int] | None) -> Blueprint:
    """The blueprint of a CLIP image tower: a norm before the blocks, another on the class token, perhaps a projection.

    The twin of a complete CLIP is its image tower with the projection, so it returns image embeddings. CLIP's
    classifier reads the mean of the patches, without a norm.
    """
    base = part(module, "vision_model") or module
    base = part(base, "vision_model") or base
    config, embeddings = base.config, need(base, "embeddings")
    projection, classifier = part(module, "visual_projection"), part(module, "classifier")
    whole = part(module, "text_model") is not None
    arguments = {**sizes(base, config, image_size), "pre_norm": True, "fc_norm": False}
    if classifier is not None:
        arguments |= {"global_pool": "avg", "final_norm": False}
    blueprint = Blueprint(
        kind=VisionTransformer,
        arguments=arguments,
        blocks=blocks_of(base),
        run=partial(_embeddings if whole else run, **resampling(config, image_size)),
        photos=_PHOTOS,
        activation=activation(config.hidden_act),
    )
    blueprint.tensors["patch_embed.proj.weight"] = patch_projection(base).weight  # no bias, as in timm
    blueprint.tensors["cls_token"] = embeddings.class_embedding.reshape(1, 1, -1)
    blueprint.tensors["pos_embed"] = positions(base, config, image_size)
    blueprint.layer("norm_pre", need(base, "pre_layrnorm", "pre_layernorm"))
    take_blocks(blueprint)
    if classifier is not None:
        blueprint.classifier(classifier)
    else:
        blueprint.layer("norm", need(base, "post_layernorm"))
    if projection is not None:
        blueprint.own_head = nn.Linear(projection.in_features, projection.out_features, bias=False, device="meta")
        blueprint.tensors["head.weight"] = projection.weight
    return blueprint


def _embeddings(module: Any, images: Tensor, **options: Any) -> Outputs:
    pooled = module.vision_model(pixel_values=images, return_dict=True, **options).pooler_output
    return Outputs(module.visual_projection(pooled))
