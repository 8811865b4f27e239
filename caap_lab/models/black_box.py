"""BlackBoxModel: any image classifier, for methods that do not need tokens."""

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
    """Any module that maps images to logits, with a grid of cells for the maps of methods.

    ```python
    model = cl.BlackBoxModel(module, grid=(8, 8), image_size=64)
    m = cl.attribute(model, x, "occlusion")
    ```

    The internals are not known, so there are two hook points only: `hook_input` [batch, 3, height, width] and
    `hook_logits` [batch, class]. Methods that read pixels run on it, and those that read feature maps if a layer of
    the module produces some. The module is kept unchanged as `model.black_box`, and its own forward runs.
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
        """Wrap an image classifier; it is set to evaluation mode and run once on two random images.

        Args:
            model: A module that takes images [batch, 3, height, width] and returns logits [batch, class]: as a tensor,
                as `.logits`, under the key "logits", or as the only such tensor of a tuple.
            grid: Rows and columns of the cells of maps; they have to divide the image size.
            image_size: Pixels or (height, width), if different from the size in `preprocessing`.
            preprocessing: How photos become tensors. By default taken from the module's timm configuration; without
                one, ImageNet's: 224 pixels, and ImageNet's mean and standard deviation.
            class_names: One name per class; by default ImageNet-1k names for 1000 classes.
            name: What results call the model; by default timm's name, or the class of the module.

        Raises:
            InputError: the grid does not divide the image size, the module does not run on such images, or it returns
                no logits.
        """
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(
                f"BlackBoxModel wraps a torch.nn.Module, not {type(model).__name__}; call a function in the forward of "
                "a module."
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
        self.setup()  # before the module is set, so that TransformerLens does not add a `name` to its submodules
        self.black_box = model
        self.eval()
        self.class_names = class_names

    @property
    def n_classes(self) -> int:
        """Number of scores that the module outputs, measured by running it."""
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
        """Rows and columns of the cells of maps."""
        return self._grid

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels of one cell as (height, width)."""
        return (self.image_size[0] // self._grid[0], self.image_size[1] // self._grid[1])

    @property
    def channels(self) -> int:
        """Channels of the last feature maps in the module; 0 if there are none."""
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
        """The grid, which changes maps but not logits."""
        return {"grid": list(self._grid)}

    @property
    def probed(self) -> Probed:
        """What a forward pass showed about the module; repeated when its submodules have changed."""
        return self._measured(self._probes[0], probe)

    @property
    def why_no_gradient(self) -> str:
        """Why there is no gradient with respect to pixels; empty if there is one."""
        return self._measured(self._probes[1], why_no_gradient)

    def gives(self, what: str) -> bool:
        """True if methods can read `what` from the model; feature maps only if the module produces some."""
        return super().gives(what) and (what != "feature maps" or self.probed.last_maps is not None)

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits [batch, class] of images.

        Raises:
            InputError: the module returns something else.
        """
        inputs = self.hook_input(self.preprocess(images))
        return self.hook_logits(logits_of(self.black_box(inputs), len(inputs)))

    # -- maps inside the module ------------------------------------------------------------------------------------

    def find_layer(self, layer: str | float | None = None) -> str:
        """The name of a layer whose maps can be read, such as "features.7"; None means the layer with the last maps.

        A number is read as text: modules in `nn.Sequential` are named "4" and, one level deeper, "4.1".

        Raises:
            InputError: there is no such module, it does not return maps [batch, channel, row, col] (or channels last),
                or it runs more than once.
        """
        probed = self.probed
        able = [name for name, found in probed.outputs.items() if found.maps is not None and found.runs == 1]
        these = f"Layers with maps: {', '.join(able[-6:])}{' and others' if len(able) > 6 else ''}."
        if layer is None:
            if probed.last_maps is None:
                raise InputError(f"No module of {self.model_name} returns maps [batch, channel, row, col].")
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
                f"The layer {layer!r} of {self.model_name} returns {found.text} for two images, which are not maps "
                f"[batch, channel, row, col] with the aspect ratio of the image. {these if able else ''}"
            )
        if found.runs > 1:
            raise InputError(
                f"The layer {layer!r} of {self.model_name} runs {found.runs} times in a forward pass, so it is not "
                f"clear which of its maps to read. {these}"
            )
        return layer

    def map_form(self, layer: str) -> MapForm:
        """Axis order of the maps of a layer, for names from `find_layer`."""
        form = self.probed.outputs[layer].maps
        assert form is not None
        return form

    @contextmanager
    def edited_layer(self, layer: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Context in which a layer's output is replaced by `edit(output)`.

        The returned tensor is copied, so that a following in-place module, such as many ReLUs, does not change it.
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
        """Nothing to check: the module's own forward runs, also if it was replaced."""

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
        InputError: they do not; the message gives the nearest ones that do.
    """
    given = tuple(grid) if isinstance(grid, (tuple, list)) else ()
    if len(given) != 2 or not all(type(count) is int and count > 0 for count in given):
        raise InputError(f"grid={grid!r} is not a pair (rows, columns) of cells, such as (14, 14).")
    for what, count, pixels in zip(("rows", "columns"), given, size, strict=True):
        if pixels % count:
            able = [n for n in range(1, pixels + 1) if pixels % n == 0]
            near = [str(n) for n in (*able[: bisect(able, count)][-1:], *able[bisect(able, count) :][:1])]
            raise InputError(
                f"grid={given} does not divide images of {size[0]} x {size[1]} pixels into equal cells: {count} {what} "
                f"do not divide {pixels} pixels; {' or '.join(near)} do."
            )
    return cast(tuple[int, int], given)
