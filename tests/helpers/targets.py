"""What is explained, for calls of a method's own function."""

from collections.abc import Iterable

from torch import Tensor

from caap_lab.models.targets import Target, Targets


def of_classes(indices: Tensor | Iterable[int], n_classes: int = 7) -> Targets:
    """The logits of classes, one for each image."""
    return Targets(tuple(Target(int(index), f"class {int(index)}", n_classes) for index in indices))
