"""Models whose layers torch has quantised: they run forwards only.

Dynamic quantisation scales a layer's input by the smallest and largest number in it, so that every row of a batch is
rounded by what the others hold.
"""

from torch import nn

from caap_lab.digests.packed import packed_weights


def is_quantised(model: nn.Module) -> bool:
    """True if a layer is."""
    return any(True for _ in packed_weights(model))


def why_no_gradient(model: nn.Module) -> str:
    """What stands in the way of a gradient by pixels; empty if no layer is quantised."""
    name = next((name for name, _ in packed_weights(model)), None)
    return "" if name is None else f"{name} is quantised, and torch takes no gradient through its kernels"
