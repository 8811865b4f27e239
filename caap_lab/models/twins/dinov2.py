"""DINOv2 of transformers, with and without registers, as timm's VisionTransformer."""

from typing import Any

from timm.layers import Mlp, SwiGLU
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.heads import ClassAndMeanHead
from caap_lab.models.twins.blueprint import Blueprint
from caap_lab.models.twins.hugging_face import (
    activation,
    blocks_of,
    has_gate,
    need,
    part,
    patch_projection,
    positions,
    run,
    sizes,
    take_blocks,
)

_PHOTOS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic"}


def dinov2(module: Any, image_size: tuple[int, int] | None) -> Blueprint:
    """The blueprint of a DINOv2: LayerScale, registers without positions, a head on class token and mean patch.

    As in timm, the position of the class token of a model with registers is added to it in advance.
    """
    base = part(module, "dinov2", "dinov2_with_registers") or module
    config, embeddings = module.config, need(base, "embeddings")
    registers = part(embeddings, "register_tokens")
    n_registers = 0 if registers is None else registers.shape[1]
    gated = has_gate(base)
    blueprint = Blueprint(
        kind=VisionTransformer,
        arguments={
            **sizes(base, config, image_size),
            "init_values": 1.0,
            "reg_tokens": n_registers,
            "no_embed_class": n_registers > 0,
            "mlp_layer": SwiGLU if gated else Mlp,
        },
        blocks=blocks_of(base),
        run=run,
        photos=_PHOTOS,
        activation=nn.SiLU if gated else activation(config.hidden_act),
    )
    blueprint.layer("patch_embed.proj", patch_projection(base))
    places, class_token = positions(base, config, image_size, always_resampled=True), embeddings.cls_token
    if n_registers:
        blueprint.tensors |= {"cls_token": class_token + places[:, :1], "reg_token": registers}
        places = places[:, 1:]
    else:
        blueprint.tensors["cls_token"] = class_token
    blueprint.tensors["pos_embed"] = places
    take_blocks(blueprint)
    blueprint.layer("norm", need(base, "layernorm"))
    classifier = part(module, "classifier")
    if classifier is not None and type(classifier) is not nn.Linear:
        raise InputError(
            f"The classifier is {type(classifier).__name__}; a linear layer on class token and mean patch is expected. "
            "Use Dinov2Model for a model without labels."
        )
    if classifier is not None:
        head = ClassAndMeanHead(classifier.weight.detach(), _bias(classifier), blueprint.arguments["embed_dim"])
        blueprint.head, blueprint.n_classes = head.to(classifier.weight.dtype), classifier.out_features
    return blueprint


def _bias(layer: nn.Linear) -> Any:
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()
