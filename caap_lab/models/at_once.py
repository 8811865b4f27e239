"""How many images, or rows of images, run at once; on a CPU, as many as need no new memory from the system.

glibc hands freed memory to the next tensor, but not without end: blocks of more than 32 MiB come from the system anew
each time, and so does what is free beyond twice the largest block that it has seen freed, 64 MiB at most. New memory is
cleared page by page, which took up to a quarter of the time of maps. Larger batches gain less than that.
"""

import torch

from caap_lab.models.base import HookedModel
from caap_lab.models.quantised import first_quantised
from caap_lab.models.spec import ViTSpec

LARGEST = 16 * 2**20
"""Bytes of the largest tensor of a batch on a CPU; three of them fit into what glibc keeps."""

# glibc keeps 64 MiB only once it has seen a block of nearly 32 MiB freed. This one is never touched.
torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


def images_at_once(model: HookedModel, batch_size: int) -> int:
    """Number of images per run, at most `batch_size`.

    It is 1 for a quantised model, which rounds a batch together; on a CPU, as many as `at_most` says.
    """
    if first_quantised(model.body) is not None:
        return 1
    spec = getattr(model, "spec", None)
    if not isinstance(spec, ViTSpec):
        return batch_size
    return at_most(batch_size, spec.n_tokens * widest_layer(spec) * model.dtype.itemsize, model.device)


def at_most(count: int, bytes_each: float, device: torch.device) -> int:
    """`count`, or on a CPU as many as keep a tensor with so many bytes for each below `LARGEST`; at least 1."""
    return count if device.type != "cpu" else max(1, min(count, int(LARGEST // max(1, bytes_each))))


def widest_layer(spec: ViTSpec) -> int:
    """Values per token in the widest layer of a block, which is the MLP's first."""
    return max(spec.d_mlp * (2 if spec.gated_mlp else 1), 3 * spec.n_heads * spec.d_head)
