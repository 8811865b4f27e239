"""DINOv3 of transformers as timm's Eva."""

from typing import Any

from timm.models.eva import Eva

from caap_lab.models.twins.blueprint import Blueprint
from caap_lab.models.twins.hugging_face import (
    activation,
    blocks_of,
    has_gate,
    need,
    patch_projection,
    run,
    sizes,
    take_blocks,
)

_PHOTOS = {
    **{"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    **{"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"},
}


def dinov3(module: Any, image_size: tuple[int, int] | None) -> Blueprint:
    """The blueprint of a DINOv3: only rotary positions, which fit any size; class token, registers, LayerScale.

    Queries, keys and values may each have a bias or not.
    """
    config, embeddings = module.config, need(module, "embeddings")
    registers = embeddings.register_tokens
    blueprint = Blueprint(
        kind=Eva,
        arguments={
            **sizes(module, config, image_size),
            "attn_type": "rope",  # supports biases for keys too
            "init_values": 1.0,
            "global_pool": "token",
            "num_reg_tokens": registers.shape[1],
            "use_abs_pos_emb": False,
            "use_rot_pos_emb": True,
            "rope_type": "dinov3",
            "rope_temperature": _theta(config),
            "rope_rotate_half": True,
            "swiglu_mlp": has_gate(module),
            "swiglu_align_to": 1,  # any width, in timm's class with a separate layer for the gate
        },
        blocks=blocks_of(module),
        run=run,
        photos=_PHOTOS,
        activation=activation(config.hidden_act),
    )
    blueprint.layer("patch_embed.proj", patch_projection(module))
    blueprint.tensors["cls_token"] = embeddings.cls_token
    if registers.shape[1]:
        blueprint.tensors["reg_token"] = registers
    take_blocks(blueprint, scales=("gamma_1", "gamma_2"))
    blueprint.layer("norm", need(module, "norm"))
    return blueprint


def _theta(config: Any) -> float:
    theta = getattr(config, "rope_theta", None)
    return float(config.rope_parameters["rope_theta"] if theta is None else theta)
