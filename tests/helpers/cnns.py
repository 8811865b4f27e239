"""Small random CNNs."""

from collections.abc import Callable

import torch
from torch import nn

from caap_lab import HookedCNN, Preprocessing  # isort: skip  # before timm, for a CPU-only torch
import timm
from timm.models.densenet import DenseNet
from timm.models.vgg import VGG

VGG_WIDTHS = [8, "M", 12, "M", 16, 16, "M", 16, 20, "M", 20, 24, "M"]


def small_vgg(norm_layer: type[nn.Module] | None = None) -> VGG:
    net = VGG(VGG_WIDTHS, num_classes=7, mlp_ratio=0.01, norm_layer=norm_layer)
    net.pretrained_cfg = timm.get_pretrained_cfg("vgg11").to_dict()
    return net


SMALL: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: timm.create_model("resnet18", channels=(16, 16, 24, 32), num_classes=7),
    "resnet26d": lambda: timm.create_model("resnet26d", channels=(16, 16, 24, 32), num_classes=7),
    "resnet50": lambda: timm.create_model("resnet50", channels=(16, 16, 24, 32), num_classes=7),
    "densenet": lambda: DenseNet(8, (2, 3, 2, 2), num_classes=7),
    "densenet_deep": lambda: DenseNet(8, (2, 1, 2, 2), num_classes=7, stem_type="deep"),
    "vgg": small_vgg,
    "vgg_bn": lambda: small_vgg(nn.BatchNorm2d),
}
THREE = ("resnet18", "densenet", "vgg_bn")


def feature_grid(name: str) -> tuple[int, int]:
    """Rows and columns of the last feature maps, for images of 64 pixels; a VGG's last pooling comes after them."""
    return (4, 4) if name.startswith("vgg") else (2, 2)


def small_cnn(name: str, dtype: torch.dtype = torch.float32, grid: tuple[int, int] | None = None) -> HookedCNN:
    """A small random CNN for images of 64 pixels, as if trained: every part and every statistic matters."""
    torch.manual_seed(0)
    cnn = SMALL[name]()
    for module in cnn.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    preprocessing = Preprocessing((64, 64), (0.5,) * 3, (0.5,) * 3)
    return HookedCNN(cnn, grid=grid, preprocessing=preprocessing, name=name).to(dtype)
