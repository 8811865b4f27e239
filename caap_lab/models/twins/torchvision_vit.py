"""torchvision's VisionTransformer as timm's."""

import copy
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.twins.blueprint import Blueprint, Outputs

_PHOTOS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bilinear"}


def torchvision_vit(module: Any, image_size: tuple[int, int] | None) -> Blueprint:
    """The blueprint of torchvision's ViT: square images of one size; a linear head, or one with a hidden layer."""
    size = (module.image_size, module.image_size)
    if image_size not in (None, size):
        raise InputError(f"torchvision's VisionTransformer takes only images of {list(size)} pixels.")
    if not isinstance(module.conv_proj, nn.Conv2d):
        raise InputError("This VisionTransformer of torchvision has a convolutional stem (conv_stem_configs).")
    blocks = list(module.encoder.layers)
    block = blocks[0]
    blueprint = Blueprint(
        kind=VisionTransformer,
        arguments={
            "img_size": size,
            "patch_size": tuple(module.conv_proj.kernel_size),
            "in_chans": module.conv_proj.in_channels,
            "embed_dim": module.hidden_dim,
            "depth": len(blocks),
            "num_heads": block.num_heads,
            "mlp_ratio": (block.mlp[0].out_features + 0.5) / module.hidden_dim,
            "num_classes": 0,
        },
        blocks=blocks,
        run=lambda model, images: Outputs(model(images)),
        photos=_PHOTOS,
        activation=_activation(block.mlp[1]),
    )
    blueprint.layer("patch_embed.proj", module.conv_proj)
    blueprint.tensors |= {"cls_token": module.class_token, "pos_embed": module.encoder.pos_embedding}
    for index, block in enumerate(blocks):
        name, attention = f"blocks.{index}", block.self_attention
        blueprint.layer(f"{name}.norm1", block.ln_1)
        blueprint.tensors[f"{name}.attn.qkv.weight"] = attention.in_proj_weight
        blueprint.tensors[f"{name}.attn.qkv.bias"] = attention.in_proj_bias
        blueprint.layer(f"{name}.attn.proj", attention.out_proj)
        blueprint.layer(f"{name}.norm2", block.ln_2)
        blueprint.layer(f"{name}.mlp.fc1", block.mlp[0])
        blueprint.layer(f"{name}.mlp.fc2", block.mlp[3])
    blueprint.layer("norm", module.encoder.ln)
    _take_head(blueprint, module.heads)
    return blueprint


def _activation(layer: nn.Module) -> type[nn.Module]:
    if type(layer) is nn.GELU and layer.approximate == "none":
        return nn.GELU
    raise InputError(f"The MLPs of this VisionTransformer have {layer} instead of torchvision's GELU.")


def _take_head(blueprint: Blueprint, heads: nn.Module) -> None:
    """Take the head: one linear layer, a chain of layers, or none if it was replaced by an Identity."""
    layers = list(heads) if isinstance(heads, nn.Sequential) else [heads]
    layers = [layer for layer in layers if not isinstance(layer, nn.Identity | nn.Dropout)]
    known = (nn.Linear, nn.Tanh, nn.GELU, nn.ReLU, nn.LayerNorm)
    if any(type(layer) not in known for layer in layers):
        raise InputError(f"The head of this VisionTransformer is {heads}; a linear layer is expected.")
    if len(layers) == 1 and isinstance(layers[0], nn.Linear):
        blueprint.classifier(layers[0])
    elif layers:
        blueprint.own_head = nn.Sequential(*map(copy.deepcopy, layers))
        blueprint.n_classes = next(layer for layer in reversed(layers) if isinstance(layer, nn.Linear)).out_features
        for index, layer in enumerate(layers):
            if any(True for _ in layer.parameters()):
                blueprint.layer(f"head.{index}", layer)
