"""Files of trained sparse autoencoders, as written by saev and overcomplete; code in them is never run.

saev (OSU-NLP-Group/saev, as of schema 5): a line of JSON, then a PyTorch file with W_enc [d_model, d_sae], b_enc, W_dec
[d_sae, d_model], b_dec, and for BatchTopK a threshold. The header names the activation function.

overcomplete (KempnerInstitute/overcomplete, version 0.3) does not have a file format. A `state_dict()`, as safetensors
or by torch.save, can be read safely: an encoder of one linear layer, with or without a norm, and a dictionary. It does
not contain the class that it belongs to, nor k and BatchTopK's running threshold.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.checks import check_choice, check_count, is_number
from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.checkpoint import check_file, read_tensors
from caap_lab.models.device_dtype import all_finite, widened

Rows = Float[Tensor, "row width"]
Codes = Float[Tensor, "row feature"]
ACTIVATIONS = ("relu", "topk", "jumprelu", "batchtopk")
NORMALISATIONS = ("l2", "max_l2", "l1", "max_l1", "identity")
"""Normalisations of overcomplete's dictionaries; its default is the first."""
_LONGEST_HEADER = 2**20
_SCHEMAS = (1, 2, 3, 4, 5)


class LinearAutoencoder(nn.Module):
    """A sparse autoencoder of two linear layers, as both libraries train them, with all steps between these."""

    weight: Float[Tensor, "feature width"]
    bias: Float[Tensor, " feature"]
    center: Float[Tensor, " width"] | None
    norm_scale: Float[Tensor, " feature"] | None
    norm_shift: Float[Tensor, " feature"] | None
    level: Float[Tensor, "*feature"] | None
    dictionary: Float[Tensor, "feature width"]
    decoder_bias: Float[Tensor, " width"] | None

    def __init__(
        self,
        kind: str,
        weight: Float[Tensor, "feature width"],
        bias: Float[Tensor, " feature"],
        dictionary: Float[Tensor, "feature width"],
        decoder_bias: Float[Tensor, " width"] | None = None,
        *,
        center: Float[Tensor, " width"] | None = None,
        norm: "Norm | None" = None,
        relu: bool = True,
        top_k: int | None = None,
        level: Float[Tensor, "*feature"] | None = None,
        includes_level: bool = False,
    ) -> None:
        """Build it from tensors.

        Args:
            kind: Library and activation function, as text.
            weight: Weight of the encoder.
            bias: Bias of the encoder.
            dictionary: The vector that a feature of 1 adds, one row per feature.
            decoder_bias: Bias of the decoder.
            center: Vector that is subtracted from the input.
            norm: Norm after the encoder's linear layer.
            relu: Set negative codes to 0.
            top_k: Keep only this many of the highest codes.
            level: Keep only codes above it.
            includes_level: Also keep codes that equal it.
        """
        super().__init__()
        self.kind, self.relu, self.top_k, self.includes_level = kind, relu, top_k, includes_level
        self.over_features = norm is not None and norm.over_features
        own = {"weight": weight, "bias": bias, "dictionary": dictionary, "decoder_bias": decoder_bias}
        own |= {"center": center, "level": level}
        own |= {"norm_scale": None if norm is None else norm.scale, "norm_shift": None if norm is None else norm.shift}
        for name, tensor in own.items():
            self.register_buffer(name, tensor)

    @property
    def width(self) -> int:
        """Number of values of an activation."""
        return int(self.weight.shape[1])

    def encode(self, rows: Rows) -> Codes:
        """Features of activations."""
        codes = F.linear(rows if self.center is None else rows - self.center, self.weight, self.bias)
        if self.over_features:
            codes = F.layer_norm(codes, codes.shape[-1:])
        if self.norm_scale is not None and self.norm_shift is not None:
            codes = codes * self.norm_scale + self.norm_shift
        codes = codes.relu() if self.relu else codes
        if self.top_k is not None:
            values, places = codes.topk(min(self.top_k, codes.shape[-1]), dim=-1)
            codes = torch.zeros_like(codes).scatter(-1, places, values)
        if self.level is not None:
            codes = torch.where(codes >= self.level if self.includes_level else codes > self.level, codes, 0)
        return codes

    def decode(self, codes: Codes) -> Rows:
        """Activations reconstructed from features."""
        rows = codes @ self.dictionary
        return rows if self.decoder_bias is None else rows + self.decoder_bias


@dataclass(frozen=True)
class Norm:
    """A norm as a scale and a shift, with or without standardisation over features before it."""

    scale: Float[Tensor, " feature"]
    shift: Float[Tensor, " feature"]
    over_features: bool


def read_sae(
    path: str | Path,
    *,
    activation: str | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    normalisation: str = "l2",
    subtract_bias: bool | None = None,
) -> LinearAutoencoder:
    """Read a file of saev or overcomplete; the arguments are those of `SparseAutoencoder.load`.

    Raises:
        CheckpointError: not a file of either, damaged, or with Python objects in it.
        InputError: an argument that the file needs is missing, or one that it does not accept was given.
    """
    path = Path(path)
    check_file(path)
    header = _header(path)
    if header is not None:
        given = {"activation": activation, "top_k": top_k, "threshold": threshold}
        for name, value in given.items():
            if value is not None:
                raise InputError(f"A saev file contains its activation function; omit {name}.")
        return _saev(path, *header, subtract_bias)
    if subtract_bias is not None:
        raise InputError("subtract_bias is for saev files; overcomplete's encoders have no such step.")
    return _overcomplete(path, activation, top_k, threshold, normalisation)


# -- saev -------------------------------------------------------------------------------------------------------------


def _header(path: Path) -> tuple[dict[str, Any], int] | None:
    """The first line's content and its length, if the file begins with a line of JSON."""
    with path.open("rb") as file:
        line = file.readline(_LONGEST_HEADER)
    if not line.startswith(b"{"):
        return None
    try:
        header = json.loads(line)
    except ValueError as error:
        raise CheckpointError(f"{path} begins like a saev file, but its first line is not JSON: {error}") from error
    return header, len(line)


def _saev(path: Path, header: dict[str, Any], start: int, subtract_bias: bool | None) -> LinearAutoencoder:
    schema = header.get("schema")
    if schema is not None and schema not in _SCHEMAS:
        raise CheckpointError(f"{path} has saev's schema {schema!r}; this version reads up to schema {_SCHEMAS[-1]}.")
    tensors = read_tensors(path, start)
    w_enc, b_enc, w_dec, b_dec = (_weight(path, tensors, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    width, features = w_enc.shape if w_enc.ndim == 2 else (0, 0)
    _check_shapes(
        path, {"W_dec": (w_dec, (features, width)), "b_enc": (b_enc, (features,)), "b_dec": (b_dec, (width,))}
    )
    name, parameters = _saev_activation(path, header)
    stored = tensors.get("activation.threshold")
    threshold = None if stored is None else float(stored)
    # BatchTopK: versions without a stored threshold keep the top k of each row.
    if name == "BatchTopK":
        name = "TopK" if threshold is None else "Relu" if threshold <= 0 else "JumpReLU"
    top_k = parameters.get("top_k", 32)
    if name == "TopK":
        check_count(f"top_k in {path}", top_k)
    # The first versions subtracted the decoder's bias from the input; their files have no schema.
    centred = schema is None if subtract_bias is None else subtract_bias
    words = {"Relu": "ReLU", "TopK": f"TopK {top_k}", "JumpReLU": f"BatchTopK with threshold {threshold or 0:.4g}"}
    return LinearAutoencoder(
        f"saev, {words[name]}",
        w_enc.mT.contiguous(),
        b_enc,
        w_dec,
        b_dec,
        center=b_dec.clone() if centred else None,
        relu=name == "Relu",
        top_k=top_k if name == "TopK" else None,
        level=stored if name == "JumpReLU" else None,
    )


def _saev_activation(path: Path, header: dict[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Class name and parameters of the activation function."""
    cfg = header.get("cfg", {})
    own = cfg.get("activation") if isinstance(cfg, dict) else None
    if isinstance(own, dict):
        name, parameters = own.get("cls"), own.get("params", {})
    elif header.get("schema") == 1 and header.get("cls") in ("Relu", "TopK", "BatchTopK"):
        name, parameters = header["cls"], cfg
    elif header.get("schema") in (None, 1):
        name, parameters = "Relu", {}
    else:
        name, parameters = None, {}
    if name not in ("Relu", "TopK", "BatchTopK") or not isinstance(parameters, dict):
        raise CheckpointError(
            f"The activation function {name!r} of {path} is not known; saev's Relu, TopK and BatchTopK are. A "
            "function of the whole batch, such as AbsBatchTopK, has no features of single tokens."
        )
    return name, parameters


# -- overcomplete -----------------------------------------------------------------------------------------------------


def _overcomplete(
    path: Path, activation: str | None, top_k: int | None, threshold: float | None, normalisation: str
) -> LinearAutoencoder:
    check_choice("normalisation", normalisation, NORMALISATIONS)
    tensors = read_tensors(path)
    if "encoder.final_block.0.weight" not in tensors:
        raise CheckpointError(
            f"{path} is not a known kind of sparse autoencoder: neither saev's line of JSON nor overcomplete's "
            f"encoder.final_block.0.weight is in it; found {', '.join(list(tensors)[:5])}. Build its model and pass "
            "it: cl.SparseAutoencoder.of(model, width=...)."
        )
    if any(name.startswith("encoder.mlp_blocks.") for name in tensors):
        raise CheckpointError(
            f"{path} contains an encoder of several blocks, but not how they are joined. Build it with "
            "overcomplete and pass the model: cl.SparseAutoencoder.of(model, width=...)."
        )
    weight = _weight(path, tensors, "encoder.final_block.0.weight")
    bias = _weight(path, tensors, "encoder.final_block.0.bias")
    features, width = weight.shape if weight.ndim == 2 else (0, 0)
    dictionary = _dictionary(path, tensors, normalisation)
    _check_shapes(path, {"the dictionary": (dictionary, (features, width)), "the bias": (bias, (features,))})
    words, kept = _overcomplete_activation(path, tensors, activation, top_k, threshold)
    norm = _norm_of(path, tensors)
    return LinearAutoencoder(f"overcomplete, {words}", weight, bias, dictionary, norm=norm, includes_level=True, **kept)


def _overcomplete_activation(
    path: Path, tensors: Mapping[str, Tensor], activation: str | None, top_k: int | None, threshold: float | None
) -> tuple[str, dict[str, Any]]:
    """The activation function as text, and which codes it keeps after the ReLU."""
    if "thresholds" in tensors:
        if activation not in (None, "jumprelu"):
            raise InputError(f"{path} has a threshold for each feature, as JumpReLU has; omit activation.")
        return "JumpReLU", {"level": _weight(path, tensors, "thresholds").exp()}
    if activation is None:
        raise InputError(
            f"{path} does not name the autoencoder class of overcomplete. Give activation='relu' (SAE), "
            "activation='topk' with top_k=... (TopKSAE), or activation='batchtopk' with threshold=... (BatchTopKSAE's "
            "running_threshold)."
        )
    check_choice("activation", activation, ACTIVATIONS)
    if activation == "jumprelu":
        raise CheckpointError(f"{path} has no thresholds, which a JumpReLU needs.")
    if activation == "topk":
        if top_k is None:
            raise InputError("activation='topk' needs top_k=..., which overcomplete's files do not contain.")
        check_count("top_k", top_k)
        return f"TopK {top_k}", {"top_k": int(top_k)}
    if activation == "batchtopk":
        if not is_number(threshold):
            raise InputError("activation='batchtopk' needs threshold=..., the running_threshold of the trained model.")
        level = torch.tensor(float(threshold), dtype=torch.float32, device="cpu")  # type: ignore[arg-type]
        return f"BatchTopK with threshold {float(level):.4g}", {"level": level}
    return "ReLU", {}


def _dictionary(path: Path, tensors: Mapping[str, Tensor], normalisation: str) -> Float[Tensor, "feature width"]:
    if "dictionary.W" in tensors:  # relaxed archetypal: mixtures of points, and their offsets
        mix, points, moved, scale = (
            _weight(path, tensors, f"dictionary.{part}") for part in ("W", "C", "Relax", "multiplier")
        )
        mix = mix.relu()
        return (mix / (mix.sum(-1, keepdim=True) + 1e-8) @ points + moved) * scale.exp()
    rows = _weight(path, tensors, "dictionary._weights")
    if normalisation == "identity":
        return rows
    size = rows.norm(p=int(normalisation[-1]), dim=1, keepdim=True)
    return rows / (size.amax() if normalisation.startswith("max") else size + 1e-8)


def _norm_of(path: Path, tensors: Mapping[str, Tensor]) -> Norm | None:
    own = "encoder.final_block.1."
    if own + "weight" not in tensors:
        return None
    scale, shift = (_weight(path, tensors, own + part) for part in ("weight", "bias"))
    if own + "running_mean" not in tensors:
        return Norm(scale, shift, over_features=True)
    mean, var = (_weight(path, tensors, own + part) for part in ("running_mean", "running_var"))
    scale = scale / (var + 1e-5).sqrt()
    return Norm(scale, shift - mean * scale, over_features=False)


def _weight(path: Path, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    value = tensors.get(name)
    if value is None or not value.is_floating_point() or not all_finite(value):
        raise CheckpointError(f"{path} has no {name} of finite floating-point numbers.")
    return widened(value)


def _check_shapes(path: Path, expected: Mapping[str, tuple[Tensor, tuple[int, ...]]]) -> None:
    for name, (value, shape) in expected.items():
        if tuple(value.shape) != shape or 0 in shape:
            raise CheckpointError(f"In {path} {name} has shape {list(value.shape)}; {list(shape)} was expected.")
