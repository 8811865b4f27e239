"""HookedCNN: a timm ResNet, DenseNet or VGG with TransformerLens hook points after its blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.checkpoint import model_label
from caap_lab.models.classes import ClassNames
from caap_lab.models.cnn_steps import CNNSteps, read_steps, run_steps
from caap_lab.models.image_sizes import as_image_size, check_whole_patches
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.watched import is_watched
from caap_lab.models.width import passes_on


class CNNBlockPoints(nn.Module):
    """Hook point of one block, named as in a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_post = HookPoint()


class HookedCNN(HookedModel):
    """A timm ResNet, DenseNet or VGG that can be read and edited after its stem and after every block.

    ```python
    model = cl.load_model("demo-cnn")
    cl.caap(model, image), cl.attribute(model, image, "grad_cam")
    ```

    Hook points: `hook_embed` (the stem's output) and `blocks.{l}.hook_resid_post`, both [batch, channel, height,
    width]; `hook_pooled` [batch, channel]; `hook_logits` [batch, class]. `cnn_steps.read_steps` defines the blocks. The
    timm model is kept unchanged as `model.cnn`; logits are bit-equal to its own.
    """

    kind = "cnn"
    readable = HookedModel.readable | {"feature maps", "patched contexts"}

    def __init__(
        self,
        cnn: nn.Module,
        *,
        grid: tuple[int, int] | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | ClassNames | None = None,
        name: str | None = None,
    ) -> None:
        """Wrap a timm CNN, trained or not; it is set to evaluation mode.

        Args:
            cnn: A timm ResNet, DenseNet or VGG.
            grid: Rows and columns of the maps that methods compute; they have to divide the image size. By default the
                resolution of the second to last stage, 14 x 14 for an ImageNet model at 224 px.
            preprocessing: How photos become tensors; by default the model's own timm configuration.
            class_names: One name per class; by default ImageNet-1k names for 1000 classes.
            name: What results call the model; by default timm's name.

        Raises:
            InputError: the architecture or the image size is not supported.
        """
        super().__init__()
        steps = read_steps(cnn)  # raises InputError for other architectures
        if not getattr(steps.pool[-1], "pool_type", ""):
            raise InputError(f"This {type(cnn).__name__} has no pooling, so it has no class scores.")
        self.cnn = cnn
        self.preprocessing = preprocessing or Preprocessing.from_timm(cnn)
        self._grid = cnn_grid(cnn, self.preprocessing.image_size, grid)
        self.model_name = name or model_label(cnn)
        self.class_names = class_names
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(CNNBlockPoints() for _ in steps.blocks)
        self.hook_pooled = HookPoint()
        self.hook_logits = HookPoint()
        self.setup()
        self.eval()

    def at_image_size(self, image_size: int | tuple[int, int]) -> "HookedCNN":
        """This model for images of another size, with its own hook points; this one is unchanged.

        Both share all weights. The grid is the default one for that size; a custom grid grows with the image, so that
        its cells keep their size in pixels.

        Args:
            image_size: Pixels, or (height, width).

        Raises:
            InputError: the size is too small, or is not a whole number of cells.
        """
        size = as_image_size(image_size)
        default = self._grid == cnn_grid(self.cnn, self.image_size)
        if not default:
            check_whole_patches(size, self.patch_size, self.model_name, "cells")
        cells = (size[0] // self.patch_size[0], size[1] // self.patch_size[1])
        return HookedCNN(
            self.cnn,
            grid=None if default else cells,
            preprocessing=replace(self.preprocessing, image_size=size),
            class_names=self._given_names,
            name=self.model_name,
        )

    @property
    def has_classifier(self) -> bool:
        """False for a model that ends with its features."""
        return not all(passes_on(step) for step in self._steps.classifier)

    @property
    def classifiers(self) -> Sequence[nn.Module]:
        """The classifier after the pooling; an Identity if there is none."""
        steps = self._steps.classifier
        working = [step for step in steps if not passes_on(step)]
        return (working or [step for step in steps if isinstance(step, nn.Identity)])[-1:]

    @property
    def n_classes(self) -> int:
        """Number of scores that the head outputs, measured by running it."""
        steps, cnn = self._steps, cast(Any, self.cnn)
        return self._outputs(steps.classifier, cnn.head_hidden_size * cast(Any, steps.pool[-1]).feat_mult())

    @property
    def n_layers(self) -> int:
        """Number of blocks, over all stages."""
        return len(self.blocks)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the cells of maps."""
        return self._grid

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels of one cell as (height, width)."""
        return (self.image_size[0] // self._grid[0], self.image_size[1] // self._grid[1])

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits [batch, class] of images.

        Raises:
            InputError: a torch hook is on a module that contains others, where it would not run.
        """
        for name, module in self._stepped_through():
            if is_watched(module):
                raise InputError(
                    f"A torch hook on {name} would not run: the hooked model runs its blocks one by one. Use a hook "
                    "point, such as blocks.{l}.hook_resid_post, or hook a module inside it."
                )
        x = self.embed(self.preprocess(images))
        for layer in range(self.n_layers):
            x = self.run_block(layer, x)
        return self.unembed(x)

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channel row col"]:
        """The stem's output, which enters block 0."""
        return self.hook_embed(run_steps(self._steps.stem, images))

    def run_block(
        self, layer: int, x: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch channels_out rows_out cols_out"]:
        """One block, through its hook point."""
        return cast(CNNBlockPoints, self.blocks[layer]).hook_resid_post(run_steps(self._steps.blocks[layer], x))

    def unembed(self, x: Float[Tensor, "batch channel row col"]) -> Float[Tensor, "batch classes"]:
        """Logits from the maps leaving the last block."""
        steps = self._steps
        return self._through_hook_logits(run_steps(steps.classifier, self.hook_pooled(run_steps(steps.pool, x))))

    def _stepped_through(self) -> Iterator[tuple[str, nn.Module]]:
        steps = {module for step in self._steps.all for module in step.modules()}
        return ((name, m) for name, m in self.cnn.named_modules(prefix="model.cnn") if m not in steps)

    @property
    def _steps(self) -> CNNSteps:
        return read_steps(self.cnn)  # read again each time, so that a module replaced in model.cnn counts

    def __repr__(self) -> str:
        """Name and sizes, instead of torch's list of all modules (that is `print(model.cnn)`)."""
        rows, cols = self.grid
        return (
            f"HookedCNN({self.model_name}: {self.n_layers} blocks, grid {rows} x {cols} of {self.patch_size[0]} px "
            f"cells, {self.n_classes} classes, {self.dtype}, {self.device})"
        )


def cnn_grid(cnn: nn.Module, size: tuple[int, int], grid: tuple[int, int] | None = None) -> tuple[int, int]:
    """Rows and columns of maps for an image size in pixels (height, width); see `HookedCNN`.

    Raises:
        InputError: cells would not have a whole number of pixels, or the image is too small for the network.
    """
    stages: Any = cnn.feature_info
    stride, whole = stages[-2]["reduction"], stages[-1]["reduction"]
    if min(size) < whole:
        raise InputError(
            f"Images of {size[0]} x {size[1]} pixels are too small for {model_label(cnn)}, whose last stage has cells "
            f"of {whole} pixels."
        )
    rows, cols = grid or (size[0] // stride, size[1] // stride)
    if grid is not None and (min(grid) < 1 or size[0] % rows or size[1] % cols):
        raise InputError(f"grid={grid} does not divide images of {size[0]} x {size[1]} pixels into equal cells.")
    if grid is None and (size[0] % stride or size[1] % stride):
        raise InputError(
            f"Images of {size[0]} x {size[1]} pixels are not a whole number of {model_label(cnn)}'s cells of "
            f"{stride} x {stride} pixels; use another image size, or HookedCNN(..., grid=(rows, columns))."
        )
    return rows, cols
