"""Classification heads that timm's checkpoints do not include: DINOv2's linear heads, zero-shot text heads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.errors import CheckpointError, InputError
from caap_lab.files import atomic_path, save_tensors
from caap_lab.models.checkpoint import read_state_dict
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.name_containers import ordered_names
from caap_lab.models.width import output_width

Prompts = Any
"""Text embeddings by prompt: {"a photo of a cat": tensor [width], ...}."""


class ClassAndMeanHead(nn.Module):
    """Linear head on the class tokens of the last 1 or 4 blocks and the mean of the last block's patches.

    The two public DINOv2 classifiers (Oquab et al. 2023, arXiv 2304.07193); every token passes the final LayerNorm.
    """

    def __init__(self, weight: Float[Tensor, "classes width"], bias: Float[Tensor, " classes"], d_model: int) -> None:
        super().__init__()
        self.class_layers = weight.shape[1] // d_model - 1
        """Number of blocks whose class tokens the head reads."""
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=torch.float32)
        self.linear.load_state_dict({"weight": weight, "bias": bias})

    def pool(
        self,
        normalized: Float[Tensor, "batch token d_model"],
        earlier: Sequence[Float[Tensor, "batch d_model"]],
        n_prefix: int,
    ) -> Float[Tensor, "batch d_pooled"]:
        """Class tokens, oldest block first, then the mean patch; `earlier` are those of the blocks before the last."""
        return torch.cat([*earlier, normalized[:, 0], normalized[:, n_prefix:].mean(dim=1)], dim=-1)

    def forward(self, pooled: Float[Tensor, "batch d_pooled"]) -> Float[Tensor, "batch classes"]:
        """Logits [batch, class]."""
        return self.linear(pooled)


class ZeroShotHead(nn.Module):
    """CLIP's zero-shot head: scaled cosine of the image embedding with one text embedding per class."""

    text_embeddings: Float[Tensor, "classes width"]
    logit_scale: Float[Tensor, ""]

    def __init__(self, text_embeddings: Float[Tensor, "classes width"], logit_scale: float) -> None:
        super().__init__()
        self.register_buffer("text_embeddings", F.normalize(text_embeddings.float(), dim=-1))
        # A buffer, so that it is part of the model's fingerprint.
        self.register_buffer("logit_scale", torch.tensor(float(logit_scale), dtype=torch.float32, device="cpu"))

    def forward(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch classes"]:
        """Logits [batch, class]."""
        return self.logit_scale * F.normalize(features, dim=-1) @ self.text_embeddings.T


def save_zero_shot_head(
    path: str | Path,
    text_embeddings: Float[Tensor, "classes width"],
    names: Sequence[str],
    logit_scale: float = 100.0,
) -> None:
    """Save text embeddings and class names as a safetensors file for `load_model(head=...)`.

    ```python
    cl.save_zero_shot_head("head.safetensors", text_embeddings, ["a photo of a cat", "a photo of a dog"])
    # model = cl.load_model("vit_base_patch16_clip_224", head="head.safetensors")
    ```

    Args:
        path: File to write.
        text_embeddings: One row per class; they are normalised when read.
        names: Class names in the same order.
        logit_scale: CLIP's learned temperature, about 100.
    """
    if len(names) != len(text_embeddings):
        raise InputError(f"{len(names)} names were given for {len(text_embeddings)} text embeddings; give one each.")
    tensors = {
        "text_embeddings": text_embeddings,
        "logit_scale": torch.tensor(float(logit_scale), dtype=torch.float32, device="cpu"),
    }
    with atomic_path(Path(path)) as part:
        save_tensors(tensors, part, {"class_names": json.dumps(ordered_names(names))})


def prompt_head(prompts: Prompts, vit: nn.Module, logit_scale: float = 100.0) -> ZeroShotHead:
    """A zero-shot head from text embeddings by prompt.

    Raises:
        InputError: there are no prompts, or an embedding does not fit this image tower.
    """
    if not isinstance(prompts, Mapping) or not prompts:
        raise InputError("Give prompts with their text embeddings: {'a photo of a cat': embedding, ...}.")
    width = embedding_width(vit)
    for prompt, text in prompts.items():
        if not isinstance(text, Tensor) or not text.is_floating_point() or text.shape != (width,):
            given = f"{text.dtype} {list(text.shape)}" if isinstance(text, Tensor) else type(text).__name__
            raise InputError(
                f"The text embedding of {prompt!r} is {given}; this model's image embedding has {width} values, so "
                f"give a floating-point tensor [{width}] from the text encoder of the same CLIP model."
            )
        if not all_finite(text) or not bool(text.any()):
            raise InputError(f"The text embedding of {prompt!r} is zero, or holds NaN or infinity.")
    return ZeroShotHead(torch.stack([text.detach().float().cpu() for text in prompts.values()]), float(logit_scale))


def embedding_width(vit: nn.Module) -> int:
    """Width of a timm ViT's image embedding: that of its projection, or d_model without one."""
    parts: Any = vit
    return output_width([parts.fc_norm, parts.head], parts.embed_dim, next(vit.parameters()))


def read_head(path: str | Path, vit: nn.Module) -> tuple[nn.Module | None, tuple[str, ...] | None]:
    """Read a head from a file made for a timm ViT.

    Args:
        path: A file with "text_embeddings" (zero-shot; see `save_zero_shot_head`), or with the "weight" and "bias" of a
            linear layer with d_model (an ordinary head, loaded into timm's model), 2 d_model or 5 d_model inputs
            (DINOv2).
        vit: The timm model; changed only if the file holds an ordinary head.

    Returns:
        The head, or None if it was loaded into timm's model, and class names if the file has them.
    """
    state = read_state_dict(path)
    d_model = int(vit.embed_dim)  # type: ignore[arg-type]
    if "text_embeddings" in state:
        return _zero_shot(Path(path), state, vit)
    linear = {key.rsplit(".", 1)[-1]: value for key, value in state.items()}
    if set(linear) != {"weight", "bias"} or linear["weight"].ndim != 2:
        raise CheckpointError(
            f"{path} is not a head file: expected text_embeddings, or the weight and bias of one linear layer; "
            f"found {', '.join(list(state)[:5])}."
        )
    weight, bias = linear["weight"].float(), linear["bias"].float()
    width = weight.shape[1]
    if width == d_model:
        layer = nn.Linear(width, weight.shape[0], device=weight.device, dtype=torch.float32)
        layer.load_state_dict({"weight": weight, "bias": bias})
        vit.head = layer
        vit.num_classes = weight.shape[0]  # type: ignore[assignment]
        return None, None
    if width in (2 * d_model, 5 * d_model):
        if isinstance(vit.norm, nn.Identity) or not vit.has_class_token:
            raise CheckpointError("A DINOv2 head needs a model with a class token and a final LayerNorm.")
        return ClassAndMeanHead(weight, bias, d_model), None
    raise CheckpointError(
        f"{path} reads {width} features; this model has {d_model} (own head), {2 * d_model} "
        f"(class token and mean patch) or {5 * d_model} (last four class tokens and mean patch)."
    )


def _zero_shot(path: Path, state: dict[str, Tensor], vit: nn.Module) -> tuple[nn.Module, tuple[str, ...] | None]:
    texts = state["text_embeddings"]
    width = embedding_width(vit)
    if texts.ndim != 2 or texts.shape[1] != width:
        raise CheckpointError(
            f"{path} holds text embeddings of shape {tuple(texts.shape)}; this model's image embedding has {width} "
            f"values, so the shape must be [classes, {width}]."
        )
    names = None
    try:
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get("class_names")
        names = tuple(json.loads(stored)) if stored else None
    except SafetensorError:
        pass  # a .pth file has no names
    if names is not None and len(names) != len(texts):
        raise CheckpointError(f"{path} has {len(texts)} text embeddings but {len(names)} names.")
    return ZeroShotHead(texts, float(state["logit_scale"]) if "logit_scale" in state else 100.0), names
