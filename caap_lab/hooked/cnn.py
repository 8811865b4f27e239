"""HookedCNN: a timm ResNet with TransformerLens hook points behind its residual blocks."""

from collections.abc import Sequence
from typing import Any, cast

from timm.models.resnet import ResNet
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.errors import InputError
from caap_lab.hooked.base import HookedModel, Images, as_class_names, is_watched
from caap_lab.hooked.checkpoint import model_label
from caap_lab.hooked.classes import ClassNames
from caap_lab.hooked.preprocess import Preprocessing


class CNNBlockPoints(nn.Module):
    """Hook point of one residual block, named as in a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_post = HookPoint()


class HookedCNN(HookedModel):
    """A timm ResNet that can be read and edited behind its stem and every residual block.

    Hook points: `hook_embed` (the stem's output) and `blocks.{l}.hook_resid_post`, both [batch, channel, height,
    width]; `hook_pooled` [batch, channel]; `hook_logits` [batch, class]. The timm model stays as it is, in `model.cnn`;
    logits are bit-equal to its own.
    """

    kind = "cnn"

    def __init__(
        self,
        cnn: nn.Module,
        *,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | ClassNames | None = None,
        name: str | None = None,
    ) -> None:
        """Wrap a timm ResNet, trained or not; it is put into evaluation mode.

        Args:
            cnn: A timm ResNet.
            preprocessing: How photos become tensors; by default the model's own timm configuration.
            class_names: One name a class; by default ImageNet-1k names for 1000 classes.
            name: What results call the model; by default timm's name.

        Raises:
            InputError: the model is not a timm ResNet.
        """
        super().__init__()
        if type(cnn) is not ResNet:
            raise InputError(f"HookedCNN wraps timm's ResNet, not {type(cnn).__name__}.")
        self.cnn = cnn
        self.preprocessing = preprocessing or Preprocessing.from_timm(cnn)
        self.model_name = name or model_label(cnn)
        self.class_names = as_class_names(class_names, self.n_classes)
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(CNNBlockPoints() for _ in range(self.n_layers))
        self.hook_pooled = HookPoint()
        self.hook_logits = HookPoint()
        self.setup()
        self.eval()

    @property
    def n_classes(self) -> int:
        """Number of scores that the head gives."""
        return self.cnn.num_classes or self.cnn.num_features

    @property
    def n_layers(self) -> int:
        """Number of residual blocks, over all stages."""
        return sum(len(stage) for stage in self._stages)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells that maps are made of."""
        height, width = self.preprocessing.image_size
        return (height // 16, width // 16)

    @property
    def _stages(self) -> list[nn.Sequential]:
        return [cast(nn.Sequential, getattr(self.cnn, f"layer{i}")) for i in range(1, 5)]

    def forward(self, images: Images) -> Tensor:
        """Logits [batch, class] of images.

        Raises:
            InputError: a torch hook sits on a whole stage, where it would not be run.
        """
        cnn: Any = self.cnn
        for index, stage in enumerate(self._stages, start=1):
            if is_watched(stage):
                raise InputError(
                    f"A torch hook on model.cnn.layer{index} would not run: the hooked model takes its blocks one by "
                    "one. Use the hook point blocks.{l}.hook_resid_post, or hook a block."
                )
        x = cnn.act1(cnn.bn1(cnn.conv1(self.preprocess(images))))
        x = self.hook_embed(cnn.maxpool(x))
        blocks = [block for stage in self._stages for block in stage]
        for block, points in zip(blocks, self.blocks, strict=True):
            x = cast(CNNBlockPoints, points).hook_resid_post(block(x))
        return self.hook_logits(cnn.fc(self.hook_pooled(cnn.global_pool(x))))

    def __repr__(self) -> str:
        """Name and sizes, instead of torch's list of all modules (that is `print(model.cnn)`)."""
        return (
            f"HookedCNN({self.model_name}: {self.n_layers} residual blocks, {self.n_classes} classes, "
            f"{self.dtype}, {self.device})"
        )
