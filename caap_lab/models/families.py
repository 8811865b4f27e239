"""The families of Vision Transformers that the package knows."""

from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.architecture import Architecture
from caap_lab.models.beit import BeitViT
from caap_lab.models.cnn_steps import CNNS
from caap_lab.models.eva import EvaViT
from caap_lab.models.plain_vit import PlainViT
from caap_lab.models.spec import ViTSpec
from caap_lab.models.supported import refusal_of
from caap_lab.models.unwrap import way_into

FAMILIES: list[type[Architecture]] = [PlainViT, EvaViT, BeitViT]
"""In the order in which `fits` is called."""


def architecture_of(vit: nn.Module) -> Architecture:
    """The `Architecture` of a model.

    Raises:
        InputError: the architecture is not supported; the message lists those that are.
    """
    for family in FAMILIES:
        if family.fits(vit):
            return family(vit)
    kind = type(vit).__name__
    if isinstance(vit, CNNS):
        raise InputError(f"{kind} is a CNN, which HookedViT does not support; wrap it with HookedCNN.")
    raise InputError(way_into(vit) or refusal_of(vit))


def read_spec(vit: nn.Module) -> ViTSpec:
    """Sizes and token roles of a timm ViT.

    Raises:
        InputError: the architecture is not supported.
    """
    return architecture_of(vit).spec()
