"""Fingerprint of a model: a hash of all weights, and one of everything else that determines its outputs."""

import hashlib

from torch import Tensor, nn

from caap_lab.digests.packed import packed_serials
from caap_lab.digests.structure import read_structure
from caap_lab.digests.tensors import checksum, raw_bytes, shape_and_format
from caap_lab.modules import named_modules, tensors


def fingerprint(model: nn.Module) -> str:
    """Two hexadecimal hashes, as "weights-structure".

    The first is 16 digits over the names, shapes, formats and bytes of all parameters and buffers in the state; the
    second 8 digits over what `read_structure` finds.
    """
    weights = hashlib.blake2b(digest_size=8)
    for name, value in sorted(model.state_dict().items(), key=lambda item: item[0]):
        for part in value if isinstance(value, tuple) else (value,):  # packed weights are a tuple with their format
            is_tensor = isinstance(part, Tensor)
            weights.update(f"{name} {shape_and_format(part) if is_tensor else part}".encode())
            weights.update(raw_bytes(part) if is_tensor else b"")
    text, others = read_structure(model, list(named_modules(model)))
    structure = hashlib.blake2b(text.encode(), digest_size=4)
    for tensor in others:
        structure.update(shape_and_format(tensor).encode())
        structure.update(raw_bytes(tensor))
    return f"{weights.hexdigest()}-{structure.hexdigest()}"


def same_model(one: str, other: str) -> bool:
    """True if two fingerprints belong to the same model.

    Fingerprints in files of earlier versions only cover the weights, and are compared by these.
    """
    if "-" in one and "-" in other:
        return one == other
    return weights_of(one) == weights_of(other)


def weights_of(fingerprint: str) -> str:
    """The part of a fingerprint that covers the weights."""
    return fingerprint.partition("-")[0]


def state_of(model: nn.Module) -> bytes:
    """A hash that changes with the fingerprint but costs a small fraction of a forward pass.

    Edits through `.data` do not change a tensor's version, so the values are checked as well.
    """
    parts = list(named_modules(model))
    text, others = read_structure(model, parts)
    read = [tensor.detach() for tensor in (*tensors(module for _, module in parts), *others)]
    digest = hashlib.blake2b(
        f"{text}{''.join(f' {serial}' for serial in packed_serials(parts))}".encode(), digest_size=16
    )
    for tensor in read:
        version = None if tensor.is_inference() else tensor._version
        digest.update(f"{tensor.data_ptr()} {version} {shape_and_format(tensor)}".encode())
    digest.update(checksum(read))
    return digest.digest()
