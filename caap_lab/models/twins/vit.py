"""ViT, DeiT, ViT-MSN and I-JEPA of transformers as timm's VisionTransformer."""

from collections import OrderedDict
from typing import Any

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.twins.blueprint import Blueprint
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

_PHOTOS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}
_DEIT_PHOTOS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic"}


def vit(module: Any, image_size: tuple[int, int] | None) -> Blueprint:
    """The blueprint of a ViT: a class token, learned positions; a classifier or pooling layer on it, or neither.

    DeiT's distillation token is a second prefix token; only `...WithTeacher` reads it.
    """
    base = part(module, "vit", "deit", "ijepa") or module
    config, embeddings = module.config, need(base, "embeddings")
    class_token, distillation = part(embeddings, "cls_token"), part(embeddings, "distillation_token")
    two_heads = part(module, "distillation_classifier")
    arguments = sizes(base, config, image_size)
    arguments |= {"class_token": class_token is not None, "fc_norm": False}
    if class_token is None:
        arguments["global_pool"] = "avg"
    if distillation is not None and two_heads is None:
        arguments["reg_tokens"] = 1
    blueprint = Blueprint(
        kind=VisionTransformer if two_heads is None else VisionTransformerDistilled,
        arguments=arguments,
        blocks=blocks_of(base),
        run=lambda model, images: run(model, images, **resampling(config, image_size)),
        photos=_PHOTOS if distillation is None else _DEIT_PHOTOS,
        activation=activation(config.hidden_act),
    )
    blueprint.layer("patch_embed.proj", patch_projection(base))
    blueprint.tensors["pos_embed"] = positions(base, config, image_size)
    if class_token is not None:
        blueprint.tensors["cls_token"] = class_token
    if distillation is not None:
        blueprint.tensors["reg_token" if two_heads is None else "dist_token"] = distillation
    take_blocks(blueprint)
    blueprint.layer("norm", need(base, "layernorm"))
    _take_heads(blueprint, module, base)
    return blueprint


def _take_heads(blueprint: Blueprint, module: Any, base: Any) -> None:
    classifier, distilled = part(module, "classifier", "cls_classifier"), part(module, "distillation_classifier")
    if classifier is not None:
        blueprint.classifier(classifier)
    if distilled is not None and blueprint.n_classes:
        blueprint.layer("head_dist", distilled)
    pooler = part(base, "pooler")
    if base is module and pooler is not None:
        if "cls_token" not in blueprint.tensors:
            raise InputError(
                f"{type(module).__name__} pools its first patch, because it has no class token; build it with "
                "add_pooling_layer=False."
            )
        act = {"tanh": nn.Tanh}.get(module.config.pooler_act) or activation(module.config.pooler_act)
        dense = nn.Linear(pooler.dense.in_features, pooler.dense.out_features, device="meta")
        blueprint.own_head = nn.Sequential(OrderedDict(dense=dense, activation=act()))
        blueprint.layer("head.dense", pooler.dense)
