"""The classes that have a timm twin, and those of the same families without one."""

from collections.abc import Callable

from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.twins.beit import beit
from caap_lab.models.twins.blueprint import Blueprint
from caap_lab.models.twins.clip import clip
from caap_lab.models.twins.dinov2 import dinov2
from caap_lab.models.twins.dinov3 import dinov3
from caap_lab.models.twins.siglip import siglip
from caap_lab.models.twins.torchvision_vit import torchvision_vit
from caap_lab.models.twins.vit import vit

Family = Callable[[nn.Module, tuple[int, int] | None], Blueprint]
"""Makes the blueprint of a model, for images of its own size or another."""

_TRANSFORMERS: dict[str, Family] = {
    **dict.fromkeys(("ViTModel", "ViTForImageClassification"), vit),
    **dict.fromkeys(("DeiTModel", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"), vit),
    **dict.fromkeys(("ViTMSNModel", "ViTMSNForImageClassification"), vit),
    **dict.fromkeys(("IJepaModel", "IJepaForImageClassification"), vit),
    **dict.fromkeys(("Dinov2Model", "Dinov2ForImageClassification"), dinov2),
    **dict.fromkeys(("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"), dinov2),
    "DINOv3ViTModel": dinov3,
    **dict.fromkeys(("CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection"), clip),
    "CLIPForImageClassification": clip,
    **dict.fromkeys(("MetaClip2Model", "MetaClip2VisionModel", "MetaClip2VisionModelWithProjection"), clip),
    "MetaClip2ForImageClassification": clip,
    **dict.fromkeys(("AltCLIPModel", "AltCLIPVisionModel", "ChineseCLIPModel", "ChineseCLIPVisionModel"), clip),
    **dict.fromkeys(("SiglipModel", "SiglipVisionModel", "SiglipForImageClassification"), siglip),
    **dict.fromkeys(("BeitModel", "BeitForImageClassification"), beit),
    **dict.fromkeys(("Data2VecVisionModel", "Data2VecVisionForImageClassification"), beit),
}
_TORCHVISION: dict[str, Family] = {"VisionTransformer": torchvision_vit}

_NAFLEX = "it reads images as lists of patches of any number (NaFlex), so it has no grid"
_PIXELS = "it predicts masked patches and has no class scores; load its image model or a classifier"
_BACKBONE = "it gives feature maps of several blocks and no class scores; load the model, or a classifier"
_LABEL_MAPS = "it labels pixels, not images"
_REFUSED = {
    **dict.fromkeys(("Siglip2Model", "Siglip2VisionModel", "Siglip2ForImageClassification"), _NAFLEX),
    **dict.fromkeys(("ViTForMaskedImageModeling", "DeiTForMaskedImageModeling", "BeitForMaskedImageModeling"), _PIXELS),
    **dict.fromkeys(("ViTMAEForPreTraining", "ViTMAEModel"), "it drops patches at random; load it as ViTModel"),
    **dict.fromkeys(("Dinov2Backbone", "Dinov2WithRegistersBackbone", "DINOv3ViTBackbone", "BeitBackbone"), _BACKBONE),
    **dict.fromkeys(("BeitForSemanticSegmentation", "Data2VecVisionForSemanticSegmentation"), _LABEL_MAPS),
}


def family_of_class(cls: type) -> Family | None:
    """The function that makes blueprints for a class or its base classes; None if there is none.

    Raises:
        InputError: the class is known to have no twin.
    """
    for kind in cls.__mro__:
        library = kind.__module__.split(".")[0]
        if library == "torchvision" and kind.__name__ in _TORCHVISION:
            return _TORCHVISION[kind.__name__]
        if library != "transformers":
            continue
        if kind.__name__ in _TRANSFORMERS:
            return _TRANSFORMERS[kind.__name__]
        if kind.__name__ in _REFUSED:
            raise InputError(f"{kind.__name__} of transformers has no timm twin: {_REFUSED[kind.__name__]}.")
    return None
