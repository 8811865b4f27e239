"""Identity of a model: a hash of its architecture and every weight."""

import hashlib

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """16 hex digits of BLAKE2b over the names, shapes, formats and bytes of all parameters and buffers."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
