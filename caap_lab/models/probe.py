"""Probe an unknown classifier with one run: how many logits it returns, and which of its modules return maps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caap_lab.errors import InputError
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.width import evaluated

_NO_MAPS_OF_THEIR_OWN = (nn.Dropout, nn.Identity, nn.Softmax)
"""Never the last maps: they pass on what other modules computed, and attention patterns go through them."""
_MOST_DEPENDENCE = 0.05
"""Largest accepted relative influence of the other image of a batch on an image's logits. Models that quantise a
batch's activations together reach about 0.01; batch statistics and random numbers cause far more."""


@dataclass(frozen=True)
class MapForm:
    """Axis order of the maps that a module returns."""

    channels: int
    rows: int
    cols: int
    channels_last: bool
    """[batch, row, col, channel] instead of [batch, channel, row, col]."""

    def as_maps(self, x: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch channel row col"]:
        """The module's output with channels first."""
        return x.movedim(3, 1) if self.channels_last else x


@dataclass(frozen=True)
class ModuleOutput:
    """What a module returned in a forward pass of two images."""

    runs: int
    """How many times it ran."""
    text: str
    """Description of its last output, for error messages: a shape or a type."""
    maps: MapForm | None
    """None if it did not return maps."""


@dataclass(frozen=True)
class Probed:
    """The result of `probe`."""

    n_classes: int
    outputs: Mapping[str, ModuleOutput]
    """The output of every submodule that ran, by name, in the order in which they finished."""
    last_maps: str | None
    """The module with the last maps of more than one position, after which a network pools."""


def probe(model: nn.Module, like: Tensor, size: tuple[int, int]) -> Probed:
    """What a classifier does on two images of fixed random numbers.

    Args:
        model: The classifier.
        like: A tensor on its device, in its number format.
        size: Image size as (height, width) in pixels.

    Raises:
        InputError: it does not run on such images, returns no logits, or an image's logits depend on the other image.
    """
    seen: dict[str, ModuleOutput] = {}
    parts = {name: module for name, module in model.named_modules() if name}
    handles = [
        module.register_forward_hook(_note(seen, name, size))
        for name, module in parts.items()
        if not isinstance(module, torch.jit.ScriptModule)  # which does not support hooks
    ]
    images = probe_images(like, size)
    try:
        with torch.no_grad(), evaluated([model]):
            output = _run(model, images)
            for handle in handles:
                handle.remove()
            logits = logits_of(output, len(images))
            alone = logits_of(_run(model, images[:1]), 1)
    finally:
        for handle in handles:
            handle.remove()
    _check_logits(logits.double(), alone.double())
    last = None
    for name, found in seen.items():
        spatial = found.maps is not None and found.maps.rows * found.maps.cols > 1
        if spatial and found.runs == 1 and not isinstance(parts[name], _NO_MAPS_OF_THEIR_OWN):
            last = name
    return Probed(logits.shape[1], seen, last)


def probe_images(like: Tensor, size: tuple[int, int]) -> Float[Tensor, "2 3 height width"]:
    """Two images of normally distributed random numbers, the same each time."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randn(2, 3, *size, generator=generator, dtype=torch.float32, device="cpu").to(like.device, like.dtype)


def why_no_gradient(model: nn.Module, like: Tensor, size: tuple[int, int]) -> str:
    """Why the logits have no gradient with respect to pixels; empty if they have one."""
    with torch.inference_mode(False), torch.enable_grad(), evaluated([model]):
        images = probe_images(like, size)[:1].clone().requires_grad_()
        try:
            logits = logits_of(model(images), 1)
            if not logits.requires_grad:
                return "its forward pass keeps no graph, as under torch.no_grad()"
            gradient = torch.autograd.grad(logits.sum(), images, allow_unused=True)[0]
        except Exception as error:  # user code may raise anything
            return str(error).splitlines()[0] if str(error) else type(error).__name__
    return "" if gradient is not None else "its forward pass detaches the logits from the pixels"


def logits_of(output: Any, count: int) -> Float[Tensor, "batch classes"]:
    """The logits in the output of a classifier for `count` images.

    The output is a tensor; or has them as `output.logits`, as `output["logits"]`, as the only entry of a mapping, or as
    the only tensor [batch, class] of a tuple or list.

    Raises:
        InputError: there is no such tensor, or more than one.
    """
    found = _entry(output)
    if isinstance(found, Tensor) and found.ndim == 2 and len(found) == count and found.shape[1]:
        if not found.is_floating_point():
            raise InputError(f"The model returns {found.dtype}; expected floating-point logits [batch, class].")
        return found
    one = ", [batch, 1] for one output" if isinstance(found, Tensor) and found.ndim < 2 else ""
    raise InputError(
        f"The model returns {describe(output)} for {count} images; expected logits [batch, class]{one}. Wrap it in a "
        "module whose forward returns them."
    )


def describe(output: Any) -> str:
    """A description of an output, for error messages."""
    if isinstance(output, Tensor):
        return str(list(output.shape))
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with {', '.join(f'{key}: {describe(value)}' for key, value in output.items())}"
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__} of {', '.join(map(describe, output))}"
    return type(output).__name__


def _entry(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if named is not None:
        return named
    if isinstance(output, Mapping):
        return next(iter(output.values())) if len(output) == 1 else None
    if isinstance(output, (tuple, list)):
        flat = [value for value in output if isinstance(value, Tensor) and value.ndim == 2]
        return flat[0] if len(flat) == 1 else None
    return None


def _run(model: nn.Module, images: Float[Tensor, "batch 3 height width"]) -> Any:
    try:
        return model(images)
    except Exception as error:  # user code may raise anything
        raise InputError(
            f"{type(model).__name__} does not run on images {list(images.shape)} ({type(error).__name__}: {error}). "
            "Give its image size as image_size=... or preprocessing=..."
        ) from error


def _check_logits(logits: Float[Tensor, "2 classes"], alone: Float[Tensor, "1 classes"]) -> None:
    if not all_finite(logits):
        raise InputError("The model returns NaN or infinity on random images; check its weights for such values.")
    if logits.shape != (2, alone.shape[1]) or (logits[:1] - alone).abs().max() > _MOST_DEPENDENCE * alone.abs().max():
        raise InputError(
            "The model's logits for an image depend on the rest of the batch: it uses batch statistics, or draws "
            "random numbers in evaluation mode. Maps would depend on other images."
        )
    if logits.shape[1] > 1 and logits.min() >= 0 and (logits.sum(dim=1) - 1).abs().max() < 1e-3:
        raise InputError(
            "The model returns probabilities, which sum to 1, but methods need logits: remove its softmax."
        )


def _note(seen: dict[str, ModuleOutput], name: str, size: tuple[int, int]) -> Any:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        before = seen.pop(name, None)  # re-inserted at the end
        maps = _map_form(output.shape, size) if isinstance(output, Tensor) else None
        seen[name] = ModuleOutput(1 if before is None else before.runs + 1, describe(output), maps)

    return note


def _map_form(shape: Iterable[int], size: tuple[int, int]) -> MapForm | None:
    """The axis order of maps of two images in a tensor of this shape, with rows and columns in proportion to the image.

    None if there is none, for example for a tensor of tokens or of attention windows.
    """
    batch, *rest = shape
    if batch != 2 or len(rest) != 3:
        return None
    for channels_last in (False, True):
        rows, cols, channels = rest if channels_last else (*rest[1:], rest[0])
        # Rounding or padding may add or remove one row or column.
        alike = abs(rows * size[1] - cols * size[0]) <= size[0] + size[1]
        if alike and 0 < rows <= size[0] and 0 < cols <= size[1]:
            return MapForm(channels, rows, cols, channels_last)
    return None
