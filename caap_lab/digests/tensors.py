"""Hashes of tensors by their values, on any device."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from caap_lab.digests.hashing import hex_digest

_ROW = 1021
"""Values per row of `checksum`. A prime, so that rows do not align with those of a layer."""


def as_bytes(tensor: Shaped[Tensor, "*shape"]) -> UInt8[Tensor, " byte"]:
    """A tensor's bytes in order, on its device, in any number format."""
    flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = flat.int_repr() if flat.is_quantized else flat
    return flat.detach().contiguous().view(-1).view(torch.uint8)


def raw_bytes(tensor: Shaped[Tensor, "*shape"]) -> memoryview:
    """A tensor's bytes in order, in any number format."""
    return as_bytes(tensor).cpu().numpy().data if tensor.numel() else memoryview(b"")


def shape_and_format(tensor: Shaped[Tensor, "*shape"]) -> str:
    """The prefix of a tensor's bytes in a hash, so that equal bytes of another shape have another hash."""
    return f"{tuple(tensor.shape)} {tensor.dtype}{_quantiser(tensor) if tensor.is_quantized else ''}\n"


def _quantiser(tensor: Shaped[Tensor, "*shape"]) -> str:
    """Scale and zero point of a quantised tensor."""
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return f" {tensor.q_scale()} {tensor.q_zero_point()}"
    scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return f" {tensor.q_per_channel_axis()} {scales.tolist()} {zeros.tolist()}"


def tensor_digest(tensor: Shaped[Tensor, "*shape"]) -> str:
    """Hash of a tensor, for example a model's input, as 16 hexadecimal digits."""
    return hex_digest(shape_and_format(tensor), raw_bytes(tensor), size=8)


def named_tensors_digest(text: str, tensors: Mapping[str, Tensor] | None = None) -> str:
    """Hash of a text and of named tensors, stored with them in a file to detect damage."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted((tensors or {}).items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


@torch.no_grad()
def checksum(tensors: Iterable[Tensor]) -> bytes:
    """A hash of weighted sums over the rows of tensors, with a different weight for each position in a row.

    It changes with the order of the values, and with any value that changes by more than the rounding of its row's sum
    (about 1e-8 in a float32 model). It costs as much as computing the tensors' norm.
    """
    sums: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    weights: dict[tuple[torch.device, torch.dtype], Tensor] = {}
    for tensor in tensors:
        flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).detach().reshape(-1)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32) if flat.is_floating_point() else torch.float64)
        kind = (flat.device, flat.dtype)
        parts = sums.setdefault(kind, [])
        if whole := len(flat) // _ROW * _ROW:
            if kind not in weights:
                weights[kind] = _weights(flat)
            parts.append(flat[:whole].view(-1, _ROW) @ weights[kind])
        parts.append(flat[whole:])
    digest = hashlib.blake2b(digest_size=16)
    for parts in sums.values():
        digest.update(raw_bytes(torch.cat(parts)))
    return digest.digest()


def _weights(like: Tensor) -> Tensor:
    """Distinct weights from 0.5 to 1.5, one per position in a row: fractional parts of golden-ratio multiples."""
    places = torch.arange(1, _ROW + 1, dtype=torch.float64, device="cpu")
    return ((places * (1 + 5**0.5) / 2).frac() + 0.5).to(like)
