"""Common helpers for the Vision Transformers of transformers: where their parts are, and how they run."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from timm.layers import GELUTanh, QuickGELU
from torch import Tensor, nn

from caap_lab.errors import InputError
from caap_lab.models.image_sizes import check_whole_patches
from caap_lab.models.twins.blueprint import Blueprint, Outputs

ACTIVATIONS: dict[str, type[nn.Module]] = {
    **dict.fromkeys(("gelu", "gelu_python"), nn.GELU),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), GELUTanh),
    "quick_gelu": QuickGELU,
    **dict.fromkeys(("silu", "swish"), nn.SiLU),
    "relu": nn.ReLU,
}
"""The functions for transformers' names; five of them are the same tanh approximation of GELU."""

# Paths of a block's parts in each of transformers' layouts, newer ones first.
_PARTS = {
    "norm1": ("layernorm_before", "norm1", "layer_norm1"),
    "query": ("attention.q_proj", "self_attn.q_proj", "attention.attention.query"),
    "key": ("attention.k_proj", "self_attn.k_proj", "attention.attention.key"),
    "value": ("attention.v_proj", "self_attn.v_proj", "attention.attention.value"),
    "out": ("attention.o_proj", "self_attn.out_proj", "attention.output.dense"),
    "norm2": ("layernorm_after", "norm2", "layer_norm2"),
    "gate": ("mlp.gate_proj",),
    "first": ("mlp.fc1", "mlp.up_proj", "intermediate.dense"),
    "second": ("mlp.fc2", "mlp.down_proj", "output.dense"),
    "scale1": ("layer_scale1.lambda1", "lambda_1"),
    "scale2": ("layer_scale2.lambda1", "lambda_2"),
}


def part(module: nn.Module, *paths: str) -> Any:
    """The attribute at the first existing one of some dotted paths; None if none exists."""
    for path in paths:
        found: Any = module
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None


def need(module: nn.Module, *paths: str) -> Any:
    """The attribute at the first existing one of some dotted paths.

    Raises:
        InputError: none exists.
    """
    found = part(module, *paths)
    if found is None:
        raise InputError(
            f"{type(module).__name__} has no {paths[0]}: its structure is not that of a supported version of "
            "transformers. Build it with the installed transformers, unchanged."
        )
    return found


def activation(name: Any) -> type[nn.Module]:
    """The timm or torch class for an activation function of transformers.

    Raises:
        InputError: the function is not supported.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"hidden_act={name!r} is not supported; choose one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def size_pair(size: Any) -> tuple[int, int]:
    """A size in a configuration, one number or two, as (height, width)."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def blocks_of(base: nn.Module) -> Sequence[Any]:
    """A model's blocks, in order."""
    return list(need(base, "layers", "encoder.layers", "encoder.layer", "model.layer"))


def sizes(base: nn.Module, config: Any, image_size: tuple[int, int] | None) -> dict[str, Any]:
    """The arguments that all of timm's Vision Transformers share, read from the modules themselves.

    Raises:
        InputError: patches overlap, an image size is not a whole number of patches, or the heads do not split d_model
            evenly.
    """
    projection = patch_projection(base)
    if tuple(projection.stride) != tuple(projection.kernel_size):
        raise InputError(f"Patches of {projection.kernel_size} pixels every {projection.stride} overlap or leave gaps.")
    # at its own size a model may ignore pixels at the edge, like SigLIP with patches of 14 on 384 pixels
    if image_size not in (None, size_pair(config.image_size)):
        check_whole_patches(image_size, tuple(projection.kernel_size), type(base).__name__)
    block = blocks_of(base)[0]
    query, first = need(block, *_PARTS["query"]), need(block, *_PARTS["first"])
    d_model, n_heads = len(projection.weight), config.num_attention_heads
    if len(query.weight) != d_model:
        raise InputError(
            f"{n_heads} heads have {len(query.weight)} values in total, but d_model is {d_model}; only heads that "
            "split d_model are supported."
        )
    return {
        "img_size": image_size or size_pair(config.image_size),
        "patch_size": tuple(projection.kernel_size),
        "in_chans": projection.in_channels,
        "embed_dim": d_model,
        "depth": len(blocks_of(base)),
        "num_heads": n_heads,
        # timm rounds the product down; without the 0.5, rounding of the quotient could lose one unit
        "mlp_ratio": (len(first.weight) + 0.5) / d_model,
        "qkv_bias": True,
        "num_classes": 0,
    }


def has_gate(base: nn.Module) -> bool:
    """Whether the MLPs are gated (SwiGLU)."""
    return part(blocks_of(base)[0], *_PARTS["gate"]) is not None


def has_layer_scale(base: nn.Module) -> bool:
    """Whether the outputs of attention and MLP are scaled before they are added."""
    return isinstance(part(blocks_of(base)[0], *_PARTS["scale1"]), Tensor)


def patch_projection(base: nn.Module) -> Any:
    """The convolution that embeds patches."""
    embeddings = need(base, "embeddings")
    return need(embeddings, "patch_embeddings.projection", "patch_embeddings", "patch_embedding")


def take_blocks(blueprint: Blueprint, scales: tuple[str, str] = ("ls1.gamma", "ls2.gamma")) -> None:
    """Take the weights of all blocks.

    Args:
        blueprint: The blueprint to fill in, from its `blocks`.
        scales: timm's names for the LayerScale of attention and MLP.
    """
    for index, block in enumerate(blueprint.blocks):
        name, found = f"blocks.{index}", {role: part(block, *paths) for role, paths in _PARTS.items()}
        for role in ("norm1", "query", "key", "value", "out", "norm2", "first", "second"):
            need(block, *_PARTS[role])
        blueprint.layer(f"{name}.norm1", found["norm1"])
        blueprint.fused(f"{name}.attn.qkv", [found["query"], found["key"], found["value"]])
        blueprint.layer(f"{name}.attn.proj", found["out"])
        blueprint.layer(f"{name}.norm2", found["norm2"])
        if found["gate"] is None:
            blueprint.layer(f"{name}.mlp.fc1", found["first"])
        else:
            blueprint.layer(f"{name}.mlp.fc1_g", found["gate"])
            blueprint.layer(f"{name}.mlp.fc1_x", found["first"])
        blueprint.layer(f"{name}.mlp.fc2", found["second"])
        for scale, role in zip(scales, ("scale1", "scale2"), strict=True):
            if isinstance(found[role], Tensor):
                blueprint.tensors[f"{name}.{scale}"] = found[role]


def positions(
    base: nn.Module, config: Any, image_size: tuple[int, int] | None, *, always_resampled: bool = False
) -> Float[Tensor, "1 token d_model"]:
    """The positions that the original adds to its tokens.

    Args:
        base: The model without its classifier.
        config: Its configuration.
        image_size: A size other than the configured one, for which the original's resampling is used.
        always_resampled: Whether the class resamples at any size.

    Raises:
        InputError: the original cannot resample them.
    """
    embeddings = need(base, "embeddings")
    table = part(embeddings, "position_embeddings", "position_embedding.weight")
    table = table[None] if table.ndim == 2 else table
    native = size_pair(config.image_size)
    size = image_size or native
    if size == native and not always_resampled:
        return table
    patch = patch_projection(base).kernel_size
    at_native, at_size = ((side[0] // patch[0]) * (side[1] // patch[1]) for side in (native, size))
    n_prefix = table.shape[1] - at_native
    try:
        return embeddings.interpolate_pos_encoding(table.new_empty(1, n_prefix + at_size, table.shape[-1]), *size)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InputError(
            f"{type(base).__name__} itself cannot resample its positions, made for images of {list(native)} pixels, "
            f"to {list(size)}: {error}"
        ) from error


def run(module: nn.Module, images: Float[Tensor, "batch channel height width"], **options: Any) -> Outputs:
    """The output that users of transformers read: class scores, embeddings, or pooled features."""
    given = module(pixel_values=images, return_dict=True, **options)
    for name in ("logits", "image_embeds", "pooler_output"):
        result = getattr(given, name, None)
        if result is not None:
            return Outputs(result)
    return Outputs(None, given.last_hidden_state)


def resampling(config: Any, image_size: tuple[int, int] | None) -> dict[str, Any]:
    """The option that makes transformers resample positions, if the size is not the configured one."""
    native = size_pair(config.image_size)
    return {} if image_size in (None, native) else {"interpolate_pos_encoding": True}
