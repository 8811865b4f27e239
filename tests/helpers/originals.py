"""Small random Vision Transformers of transformers and torchvision, and how to run and edit them by torch's hooks."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from helpers.models import randomise

_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_WIDE: dict[str, Any] = {**_SIZES, "intermediate_size": 52, "image_size": (24, 32), "patch_size": 8}
_SQUARE: dict[str, Any] = {**_WIDE, "image_size": 24}
_DINO2: dict[str, Any] = {**_SIZES, "mlp_ratio": 2, "image_size": 24, "patch_size": 8}
_TEXT: dict[str, Any] = {"text_config": {**_SIZES, "intermediate_size": 52, "vocab_size": 50, "eos_token_id": 1}}
_TEXT["text_config"] |= {"bos_token_id": 0, "pad_token_id": 2}
_BIASED = "use_relative_position_bias"


def _make(class_name: str, /, config_name: str | None = None, **options: Any) -> Callable[[], nn.Module]:
    """A class of transformers, and the options of its configuration, or (add_pooling_layer) of the class itself."""
    own = {name: options.pop(name) for name in ("add_pooling_layer",) if name in options}
    family = next(class_name.removesuffix(end) for end in _ENDS if class_name.endswith(end))

    def make() -> nn.Module:
        config = getattr(transformers, config_name or f"{family}Config")(**options)
        return getattr(transformers, class_name)(config, **own)

    return make


_ENDS = ("ForImageClassificationWithTeacher", "ForImageClassification", "ModelWithProjection", "Model", "Backbone")

ORIGINALS: dict[str, Callable[[], nn.Module]] = {
    "vit": _make("ViTForImageClassification", num_labels=5, hidden_act="gelu_new", qkv_bias=False, **_WIDE),
    "vit_pooled": _make("ViTModel", hidden_act="gelu_fast", layer_norm_eps=1e-3, pooler_output_size=20, **_WIDE),
    "vit_features": _make("ViTModel", add_pooling_layer=False, hidden_act="relu", **_WIDE),
    "vit_no_labels": _make("ViTForImageClassification", num_labels=0, hidden_act="silu", **_WIDE),
    "deit": _make("DeiTForImageClassification", num_labels=5, **_WIDE),
    "deit_two_heads": _make("DeiTForImageClassificationWithTeacher", num_labels=5, **_WIDE),
    "deit_pooled": _make("DeiTModel", **_WIDE),
    "msn": _make("ViTMSNForImageClassification", num_labels=5, **_WIDE),
    "msn_features": _make("ViTMSNModel", **_WIDE),
    "ijepa": _make("IJepaForImageClassification", num_labels=5, **_WIDE),
    "ijepa_features": _make("IJepaModel", **_WIDE),
    "dinov2": _make("Dinov2Model", **_DINO2),
    "dinov2_gated": _make("Dinov2ForImageClassification", use_swiglu_ffn=True, num_labels=5, **_DINO2),
    "dinov2_registers": _make(
        "Dinov2WithRegistersForImageClassification", num_register_tokens=3, num_labels=5, **_DINO2
    ),
    "dinov2_registers_features": _make("Dinov2WithRegistersModel", num_register_tokens=0, **_DINO2),
    "dinov3": _make("DINOv3ViTModel", num_register_tokens=2, layerscale_value=0.3, **_WIDE),
    "dinov3_gated": _make(
        "DINOv3ViTModel",
        **{"use_gated_mlp": True, "hidden_act": "silu", "rope_theta": 50.0},
        **{"key_bias": True, "query_bias": False, "mlp_bias": False, "proj_bias": False},
        **_WIDE,
    ),
    "clip": _make("CLIPVisionModelWithProjection", projection_dim=12, **_SQUARE),
    "clip_features": _make("CLIPVisionModel", hidden_act="gelu", **_SQUARE),
    "clip_whole": _make("CLIPModel", vision_config=_SQUARE, projection_dim=12, **_TEXT),
    "clip_classes": _make("CLIPForImageClassification", "CLIPConfig", vision_config=_SQUARE, num_labels=5, **_TEXT),
    "metaclip2": _make("MetaClip2VisionModelWithProjection", projection_dim=12, **_SQUARE),
    "metaclip2_classes": _make(
        "MetaClip2ForImageClassification", "MetaClip2Config", vision_config=_SQUARE, num_labels=5, **_TEXT
    ),
    "altclip": _make("AltCLIPVisionModel", **_SQUARE),
    "chinese_clip": _make("ChineseCLIPVisionModel", **_SQUARE),
    "chinese_clip_whole": _make("ChineseCLIPModel", vision_config=_SQUARE, projection_dim=12, **_TEXT),
    "altclip_whole": _make(
        "AltCLIPModel",
        vision_config=_SQUARE,
        projection_dim=12,
        text_config={**_TEXT["text_config"], "project_dim": 32, "max_position_embeddings": 20},
    ),
    "siglip": _make("SiglipVisionModel", **_SQUARE),
    "siglip_tokens": _make("SiglipVisionModel", vision_use_head=False, **_SQUARE),
    "siglip_whole": _make("SiglipModel", vision_config=_SQUARE, **_TEXT),
    "siglip_classes": _make(
        "SiglipForImageClassification", "SiglipConfig", vision_config=_SQUARE, num_labels=5, **_TEXT
    ),
    "beit": _make("BeitForImageClassification", num_labels=5, **{_BIASED: True}, **_WIDE),
    "beit_shared": _make(
        "BeitForImageClassification",
        **{"num_labels": 5, "use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True},
        **{"use_mean_pooling": False, "layer_scale_init_value": 0.0},
        **_SQUARE,
    ),
    "beit_both": _make("BeitModel", use_shared_relative_position_bias=True, **{_BIASED: True}, **_SQUARE),
    "beit_tokens": _make("BeitModel", add_pooling_layer=False, use_mask_token=True, **_SQUARE),
    "data2vec": _make("Data2VecVisionForImageClassification", num_labels=5, **{_BIASED: True}, **_SQUARE),
    "data2vec_tokens": _make("Data2VecVisionModel", use_shared_relative_position_bias=True, **_SQUARE),
    "torchvision": lambda: VisionTransformer(24, 8, 3, 4, 32, 52, num_classes=5),
    "torchvision_deep_head": lambda: VisionTransformer(24, 8, 3, 4, 32, 52, num_classes=5, representation_size=12),
}
"""Every class that has a twin, with and without heads; "wide" images are not square."""


def build_original(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """One of `ORIGINALS` in evaluation mode, with random weights that make every part matter."""
    return randomise(ORIGINALS[kind]).to(dtype).eval()  # type: ignore[arg-type]


class Tower:
    """The image tower of an original with the face of a timm model: its `blocks`, and one output when it is called."""

    def __init__(self, module: Any, head: nn.Module | None = None) -> None:
        self.module = module
        self.head = head or nn.Identity()
        whole = getattr(module, "text_model", None) is not None
        self.tower = module.vision_model if whole else module
        lists = [part for part in self.tower.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
        self.blocks = next(part for part in lists if len(part) == 3)

    def outputs(self, images: Tensor) -> Any:
        """All that transformers gives, with its hidden states."""
        return self.tower(pixel_values=images, output_hidden_states=True)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """What `result` gives, through the head if there is one."""
        return self.head(self.result(images))

    def result(self, images: Tensor) -> Tensor:
        """Class scores; else embeddings, pooled features, or the class token or mean patch of the last tokens."""
        if isinstance(self.module, VisionTransformer):
            return self.module(images)
        given = self.outputs(images)
        if hasattr(self.module, "visual_projection") and self.tower is not self.module:
            return self.module.visual_projection(given.pooler_output)
        for name in ("logits", "image_embeds", "pooler_output"):
            if getattr(given, name, None) is not None:
                return getattr(given, name)
        tokens, kind = given.last_hidden_state, type(self.module).__name__
        if kind in ("ViTModel", "ViTMSNModel"):
            return tokens[:, 0]
        return tokens[:, 1 if kind in ("BeitModel", "Data2VecVisionModel") else 0 :].mean(1)
