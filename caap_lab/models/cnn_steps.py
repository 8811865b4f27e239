"""The modules of timm's CNNs in the order in which they run, split into stem, blocks, pooling and classifier."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from timm.models.densenet import DenseBlock, DenseLayer, DenseNet
from timm.models.resnet import ResNet
from timm.models.vgg import VGG
from torch import Tensor, nn

from caap_lab.errors import InputError

CNNS = (ResNet, DenseNet, VGG)
"""timm's classes that `HookedCNN` wraps."""

Steps = tuple[nn.Module, ...]


@dataclass(frozen=True)
class CNNSteps:
    """Modules in the order in which they run, for `run_steps`."""

    stem: Steps
    """The modules before block 0."""
    blocks: list[Steps]
    """One entry per block. Modules that lower the resolution between two blocks belong to the second."""
    pool: Steps
    """From the last block's maps to one vector per image."""
    classifier: Steps

    @property
    def all(self) -> Steps:
        """Every step, in order."""
        return (*self.stem, *(step for block in self.blocks for step in block), *self.pool, *self.classifier)


def read_steps(cnn: nn.Module) -> CNNSteps:
    """The steps of a timm CNN.

    - ResNet: a block is a residual block, after its addition; the stem ends with the first pooling.
    - DenseNet: a block is a dense layer, after its concatenation, which corresponds to a ResNet's addition. The last
      one ends with the final normalisation, so that its output is what the head pools.
    - VGG: the stem is the first convolution; a block is any other convolution, after its activation.

    Raises:
        InputError: the architecture is not supported; the message lists those that are.
    """
    net: Any = cnn
    if type(cnn) is ResNet:
        stages = (net.layer1, net.layer2, net.layer3, net.layer4)
        residual: list[Steps] = [(block,) for stage in stages for block in stage]
        return CNNSteps((net.conv1, net.bn1, net.act1, net.maxpool), residual, (net.global_pool,), (net.fc,))
    if type(cnn) is DenseNet:
        stem, dense = _dense_layers(net.features)
        return CNNSteps(stem, dense, (net.global_pool,), (net.head_drop, net.classifier))
    if type(cnn) is VGG:
        head = net.head
        stem, *convolutions, last_pool = _convolutions(net.features)
        pool = (*last_pool, net.pre_logits, head.global_pool)
        return CNNSteps(stem, convolutions, pool, (head.drop, head.fc, head.flatten))
    raise InputError(
        f"HookedCNN wraps timm's {', '.join(known.__name__ for known in CNNS[:-1])} and {CNNS[-1].__name__}, "
        f"not {type(cnn).__name__}."
    )


def run_steps(steps: Steps, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """The output of the steps, run one after the other; a dense layer appends its new maps to those that it reads."""
    for step in steps:
        x = torch.cat([x, step(x)], dim=1) if isinstance(step, DenseLayer) else step(x)
    return x


def _dense_layers(features: nn.Sequential) -> tuple[Steps, list[Steps]]:
    """The stem, and one entry per dense layer, with the transition before it."""
    blocks: list[Steps] = []
    waiting: Steps = ()
    stem: Steps = ()
    for part in features:
        if isinstance(part, DenseBlock):
            if not blocks:
                stem, waiting = waiting, ()
            for layer in part.values():
                blocks.append((*waiting, layer))
                waiting = ()
        else:
            waiting += (part,)
    blocks[-1] += waiting
    return stem, blocks


def _convolutions(features: nn.Sequential) -> list[Steps]:
    """One entry per convolution, with the pooling before it and the layers after it; then the last pooling."""
    groups: list[Steps] = []
    for part in features:
        opens = isinstance(part, nn.MaxPool2d) or (
            isinstance(part, nn.Conv2d) and not (groups and isinstance(groups[-1][-1], nn.MaxPool2d))
        )
        if opens:
            groups.append((part,))
        else:
            groups[-1] += (part,)
    return groups
