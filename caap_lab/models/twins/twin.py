"""The timm model that computes what a Hugging Face or torchvision model computes."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Twin:
    """A timm model with another model's weights, and what that model says of its classes.

    `HookedViT(twin.model, head=twin.head, class_names=twin.class_names, name=twin.name)` wraps it.
    """

    model: nn.Module
    """timm's model, in evaluation mode, on the original's device and in its number format."""
    head: nn.Module | None
    """The head to give to `HookedViT` where timm has no such head of its own (DINOv2's classifier); else None."""
    class_names: tuple[str, ...] | None
    """The names in the original's configuration, if it has a classifier and they are not just numbered."""
    name: str
    """What results call the model: the checkpoint's name or folder if the original knows it, else its class."""


def timm_twin(module: nn.Module) -> Twin | None:
    """A model's twin; None if its class is not among those that have one.

    The twin is a snapshot: its weights are copies, and later changes of the original are not seen.

    Args:
        module: A Vision Transformer of transformers or torchvision, as it is after loading.

    Raises:
        InputError: the class is known, and this model has something that timm's model does not do; or both were run on
            a random batch, and what they give differs by more than 1e-4 of the largest value.
    """
    return None
