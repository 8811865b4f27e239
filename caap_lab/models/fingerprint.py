"""Identity of models and images: hashes that are the same in every process.

A model's is a hash of every weight, and one of everything else that decides its outputs.
"""

import hashlib
from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn

from caap_lab.models.structure import read_structure

_ROW = 1021
"""Numbers in a row of `checksum`. Prime, so that rows are no multiple of a layer's own."""


def fingerprint(model: nn.Module) -> str:
    """Two hashes in hex, as "weights-structure".

    The first is 16 digits over the names, shapes, formats and bytes of all parameters and buffers in the state; the
    second 8 digits over what `read_structure` finds.
    """
    weights = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        weights.update(_bytes(tensor).cpu().numpy().data)
    text, tensors = read_structure(model)
    structure = hashlib.blake2b(text.encode(), digest_size=4)
    for tensor in tensors:
        structure.update(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
        structure.update(_bytes(tensor).cpu().numpy().data)
    return f"{weights.hexdigest()}-{structure.hexdigest()}"


def same_model(one: str, other: str) -> bool:
    """True if two fingerprints are of the same model.

    Fingerprints in files of earlier versions are of the weights alone, and are compared by them.
    """
    if "-" in one and "-" in other:
        return one == other
    return weights_of(one) == weights_of(other)


def weights_of(found: str) -> str:
    """The part of a fingerprint that is of the weights."""
    return found.partition("-")[0]


def state_of(model: nn.Module) -> bytes:
    """A hash that changes with the fingerprint and takes a small share of a forward pass.

    Edits through `.data` leave no trace in a tensor's version, so the numbers are looked at as well.
    """
    text, others = read_structure(model)
    tensors = [tensor.detach() for tensor in chain(model.parameters(), model.buffers(), others)]
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for tensor in tensors:
        version = None if tensor.is_inference() else tensor._version
        digest.update(f"{tensor.data_ptr()} {version} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(checksum(tensors))
    return digest.digest()


@torch.no_grad()
def checksum(tensors: Iterable[Tensor]) -> bytes:
    """A hash of sums over a tensor's numbers, row by row, in which every place of a row has a weight of its own.

    It changes with the numbers' order, and with any number that changes by more than the rounding of its row's sum
    (about 1e-8 in a float32 model). Reading it costs as much as reading the tensor's norm.
    """
    sums: dict[torch.device, list[Tensor]] = {}
    weights: dict[tuple[torch.device, torch.dtype], Tensor] = {}
    for tensor in tensors:
        flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).detach().reshape(-1)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32) if flat.is_floating_point() else torch.float64)
        rows = flat[: len(flat) // _ROW * _ROW].view(-1, _ROW)
        kind = (flat.device, flat.dtype)
        if kind not in weights:
            weights[kind] = _weights(flat)
        sums.setdefault(flat.device, []).extend([rows @ weights[kind], flat[rows.numel() :]])
    digest = hashlib.blake2b(digest_size=16)
    for parts in sums.values():
        digest.update(torch.cat([_bytes(part) for part in parts]).cpu().numpy().data)
    return digest.digest()


def image_digest(image: Tensor) -> str:
    """16 hex digits that tell a tensor from any other, wherever it lies: a model's input, for example."""
    digest = hashlib.blake2b(f"{tuple(image.shape)} {image.dtype}\n".encode(), digest_size=8)
    digest.update(_bytes(image).cpu().numpy().data)
    return digest.hexdigest()


def _weights(like: Tensor) -> Tensor:
    """One for each place of a row, from 0.5 to 1.5, no two alike: the fractions of the golden ratio's multiples."""
    places = torch.arange(1, _ROW + 1, dtype=torch.float64, device="cpu")
    return ((places * (1 + 5**0.5) / 2).frac() + 0.5).to(like)


def _bytes(tensor: Tensor) -> Tensor:
    """A tensor's bytes in order, as a flat uint8 tensor."""
    flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return flat.detach().contiguous().view(-1).view(torch.uint8)
