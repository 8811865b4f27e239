"""BlackBoxModel: any image classifier, for the methods that need no tokens."""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.checkpoint import model_label
from caap_lab.models.classes import ClassNames
from caap_lab.models.image_sizes import as_image_size
from caap_lab.models.lock import locked
from caap_lab.models.names import nearest
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.probe import MapForm, Probed, logits_of, probe, why_no_gradient
from caap_lab.models.width import Measured

Found = TypeVar("Found")
Maps = Float[Tensor, "batch channel row col"]


class BlackBoxModel(HookedModel):
    """Any module that makes logits of images, with a grid of cells for the maps of methods.

    ```python
    model = cl.BlackBoxModel(module, grid=(8, 8), image_size=64)
    m = cl.attribute(model, x, "occlusion")
    ```

    Its inside is not known, so that there are two hook points, `hook_input` [batch, 3, height, width] and
    `hook_logits` [batch, class]. Methods that read pixels run, and those that read feature maps, at a layer of
    the module that has some. The module stays as it is, in `model.black_box`, and its own forward runs.
    """

    kind = "black_box"
    readable = HookedModel.readable | {"feature maps"}

    def __init__(
        self,
        model: nn.Module,
        *,
        grid: tuple[int, int],
        image_size: int | tuple[int, int] | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | ClassNames | None = None,
        name: str | None = None,
    ) -> None:
        """Wrap an image classifier; it is put into evaluation mode, and run on two images of random numbers.

        Args:
            model: A module of images [batch, 3, height, width] that gives logits [batch, class]: as a tensor, as
                `.logits` or under the key "logits", or as the only such tensor of a tuple.
            grid: Rows and columns of the maps' cells; they have to divide the image size.
            image_size: Pixels or (height, width), where they differ from those of `preprocessing`.
            preprocessing: How photos become tensors. By default that of the module's timm configuration; a module
                without one is taken for an ImageNet model: 224 pixels, and ImageNet's mean and deviation.
            class_names: One name per class; by default ImageNet-1k names for 1000 classes.
            name: What results call the model; by default timm's name, or the class of the module.

        Raises:
            InputError: the grid does not fit, the module does not run on such images, or it gives no logits.
        """
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(
                f"BlackBoxModel wraps a torch.nn.Module, not {type(model).__name__}; put a function into the forward "
                "of a module."
            )
        chosen = preprocessing or Preprocessing.from_timm(model)
        if image_size is not None:
            chosen = replace(chosen, image_size=as_image_size(image_size))
        self.preprocessing = chosen
        self._grid = _checked_grid(grid, chosen.image_size)
        self.model_name = name or model_label(model)
        self._probes: tuple[Measured[Probed], Measured[str]] = (Measured(), Measured())
        self.hook_input = HookPoint()
        self.hook_logits = HookPoint()
        self.setup()  # before the module is there, so that TransformerLens does not put a `name` on each of its parts
        self.black_box = model
        self.eval()
        self.class_names = class_names

    @property
    def n_classes(self) -> int:
        """Number of scores that the module gives, measured by running it."""
        return self.probed.n_classes

    @property
    def has_classifier(self) -> bool:
        """False for a timm model without a head."""
        return getattr(self.black_box, "num_classes", None) != 0

    @property
    def n_layers(self) -> int:
        """0: no blocks are known."""
        return 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells that maps are made of."""
        return self._grid

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels of one cell as (height, width)."""
        return (self.image_size[0] // self._grid[0], self.image_size[1] // self._grid[1])

    @property
    def channels(self) -> int:
        """Channels of the last maps that the module makes; 0 where it makes none."""
        return 0 if self.probed.last_maps is None else self.map_form(self.probed.last_maps).channels

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._like.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self._like.dtype

    @property
    def choices(self) -> dict[str, Any]:
        """The grid, on which maps depend and logits do not."""
        return {"grid": list(self._grid)}

    @property
    def probed(self) -> Probed:
        """What a forward pass told about the module; run again when its parts have changed."""
        return self._measured(self._probes[0], probe)

    @property
    def why_no_gradient(self) -> str:
        """What stands in the way of a gradient by pixels; empty if there is one."""
        return self._measured(self._probes[1], why_no_gradient)

    def gives(self, what: str) -> bool:
        """True if methods can read this of the model; feature maps only where the module makes some."""
        return super().gives(what) and (what != "feature maps" or self.probed.last_maps is not None)

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits [batch, class] of images.

        Raises:
            InputError: the module gives something else.
        """
        inputs = self.hook_input(self.preprocess(images))
        return self.hook_logits(logits_of(self.black_box(inputs), len(inputs)))

    # -- maps inside the module ------------------------------------------------------------------------------------

    def find_layer(self, layer: str | float | None = None) -> str:
        """The name of a layer whose maps can be read, such as "features.7"; None is the one that makes the last maps.

        A number counts as its text: modules in `nn.Sequential` are called "4" and, one deeper, "4.1".

        Raises:
            InputError: there is no such module, it makes no maps [batch, channel, row, col] (or with the channels
                last), or it runs more than once.
        """
        probed = self.probed
        able = [name for name, found in probed.outputs.items() if found.maps is not None and found.runs == 1]
        these = f"Maps are made by {', '.join(able[-6:])}{' and others' if len(able) > 6 else ''}."
        if layer is None:
            if probed.last_maps is None:
                raise InputError(f"No module of {self.model_name} makes maps [batch, channel, row, col].")
            return probed.last_maps
        layer = str(layer)
        if layer not in dict(self.black_box.named_modules()):
            known = f" {these}" if able else ""
            raise InputError(f"{self.model_name} has no layer {layer!r}.{nearest(layer, able)}{known}")
        found = probed.outputs.get(layer)
        if found is None:
            raise InputError(f"The layer {layer!r} of {self.model_name} does not run when the model does. {these}")
        if found.maps is None:
            raise InputError(
                f"The layer {layer!r} of {self.model_name} gives {found.text} for two images, and no maps [batch, "
                f"channel, row, col] (rows and columns in the proportion of the image's). {these if able else ''}"
            )
        if found.runs > 1:
            raise InputError(
                f"The layer {layer!r} of {self.model_name} runs {found.runs} times in a forward pass, so that its maps "
                f"are several. {these}"
            )
        return layer

    def map_form(self, layer: str) -> MapForm:
        """Form of the maps that a layer gives, for names from `find_layer`."""
        form = self.probed.outputs[layer].maps
        assert form is not None
        return form

    @contextmanager
    def edited_layer(self, layer: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within it, a layer's output is what `edit` makes of it.

        What `edit` returns is copied, so that it stays as it is where the next module works in place, as many ReLUs do.
        """
        with locked(self.body, self.model_name):
            handle = self.black_box.get_submodule(layer).register_forward_hook(
                lambda module, inputs, output: edit(output).clone()
            )
            try:
                yield
            finally:
                handle.remove()

    # --------------------------------------------------------------------------------------------------------------

    @property
    def _like(self) -> Tensor:
        """A tensor on the module's device and in its number format; float32 on the CPU if it has none."""
        for tensor in (*self.black_box.parameters(), *self.black_box.buffers()):
            if tensor.is_floating_point():
                return tensor
        return torch.empty(0, dtype=torch.float32, device="cpu")

    def _measured(
        self, kept: "Measured[Found]", measure: Callable[[nn.Module, Tensor, tuple[int, int]], Found]
    ) -> Found:
        like, size = self._like, self.image_size
        with locked(self.body, self.model_name), torch.autocast(like.device.type, enabled=False):
            return kept.of([self.black_box], [like.dtype, *size], lambda: measure(self.black_box, like, size))

    def _check_unchanged(self) -> None:
        """Nothing to check: the module's own forward runs, whatever was put in its place."""

    def __repr__(self) -> str:
        """Name and sizes, instead of torch's list of all modules (that is `print(model.black_box)`)."""
        (rows, cols), (height, width) = self.grid, self.patch_size
        return (
            f"BlackBoxModel({self.model_name}: grid {rows} x {cols} of {height} x {width} px cells, {self.n_classes} "
            f"classes, {self.dtype}, {self.device})"
        )


def _checked_grid(grid: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that divide an image size.

    Raises:
        InputError: they do not; with those near them that do.
    """
    given = tuple(grid) if isinstance(grid, (tuple, list)) else ()
    if len(given) != 2 or not all(type(count) is int and count > 0 for count in given):
        raise InputError(f"grid={grid!r} is not the (rows, columns) of the maps' cells, such as (14, 14).")
    for what, count, pixels in zip(("rows", "columns"), given, size, strict=True):
        if pixels % count:
            able = [n for n in range(1, pixels + 1) if pixels % n == 0]
            near = [str(n) for n in (*able[: bisect(able, count)][-1:], *able[bisect(able, count) :][:1])]
            raise InputError(
                f"grid={given} does not divide images of {size[0]} x {size[1]} pixels into equal cells: {count} {what} "
                f"do not go into {pixels} pixels; {' or '.join(near)} do."
            )
    return cast(tuple[int, int], given)
