"""Cost of a run: passes of the curves, and the time of a pass on this machine."""

import math
import time
from dataclasses import dataclass
from itertools import chain

import psutil
import timm
import torch
from torch import nn

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.mda_blur import KERNELS
from caap_lab.errors import InputError
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.models.cnn import cnn_grid
from caap_lab.models.cnn_steps import CNNS
from caap_lab.models.device_dtype import as_device, as_dtype, plain_defaults
from caap_lab.models.families import read_spec
from caap_lab.models.hugging_face.folder import names_folder
from caap_lab.models.load import bundled_models, check_name, load_model
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.products import TF32, check_tf32, products
from caap_lab.variant import Variant


def curve_passes(protocol: CurveProtocol, size: ModelSize) -> int:
    """Cost of one map's insertion and deletion, in forward passes: one per point of both curves.

    A base image that is searched for adds the maximum number of passes of the search.
    """
    searches = (protocol.insertion_base, protocol.deletion_base).count("mda_blur")
    return 2 * len(protocol.counts(size.image_size, size.grid)) + searches * len(KERNELS)


@plain_defaults()
def architecture(spec: Variant) -> tuple[nn.Module, ModelSize]:
    """A model without weights, on PyTorch's "meta" device (except bundled ones and folders), and its size.

    Raises:
        InputError: there is no such model, or it is not supported.
    """
    check_name(spec.name)
    side = spec.options.get("image_size")
    chosen = None if side is None else tuple(side) if isinstance(side, list) else (side, side)
    if spec.name in bundled_models() or names_folder(spec.name):
        whole = names_folder(spec.name)  # options are checked here, those that depend on the device later
        later = ("device", "dtype", "compile")
        others = {name: value for name, value in spec.options.items() if whole and name not in later}
        model = load_model(spec.name, **{**others, "image_size": chosen})
        if model.kind == "mixer":
            raise InputError(f"{spec.text} is an MLP-Mixer, for which costs are not known.")
        return model.vit if model.kind == "vit" else model.cnn, ModelSize.of(model)  # type: ignore[return-value]
    with torch.device("meta"):
        body = timm.create_model(spec.name, pretrained=False)
        if isinstance(body, CNNS):
            pixels = chosen or Preprocessing.from_timm(body).image_size
            return body, ModelSize("cnn", pixels, cnn_grid(body, pixels), int(body.num_features))
        if chosen is not None:
            body = timm.create_model(spec.name, pretrained=False, img_size=chosen)
    hooked_spec = read_spec(body)
    return body, ModelSize("vit", hooked_spec.image_size, hooked_spec.grid, hooked_spec.d_model)


_SECONDS = 0.5
"""How long a timed run on a CPU takes, about."""


@dataclass(frozen=True)
class Measured:
    """Measurements of a model on a device, in a number format."""

    seconds: float
    """Time of one image's forward pass."""
    weights_bytes: int
    bytes_per_image: int | None
    """Memory of activations per image that runs at once; None if it is unknown, as on a CPU."""


def measured(
    body: nn.Module,
    image_size: tuple[int, int],
    device: str = "cpu",
    precision: str = "float32",
    batch_size: int = 64,
) -> Measured | None:
    """Time and memory of one image's forward pass, with random weights; their memory is freed again.

    A pass is timed as a run makes it, with many images at once: alone, an image of a small model takes several times
    as long.

    Args:
        body: The module from `architecture`; it is changed.
        image_size: Pixels as (height, width).
        device: Device of the measurement. A GPU runs 16 images at once, because one would leave it idle.
        precision: Number format, as in `cl.load_model`.
        batch_size: Largest number of images that run at once on a CPU: as many as take about half a second.

    Returns:
        The time of the fastest of up to three runs, or of one run if it takes more than a second; None if the weights
        do not fit into the free memory.

    Raises:
        InputError: the device does not support the number format.
    """
    place = as_device(device)
    if precision == TF32:
        check_tf32(place)
    dtype = as_dtype("float32" if precision == TF32 else precision)
    body = body.to("meta", dtype).eval()
    needed = sum(t.numel() * t.element_size() for t in chain(body.parameters(), body.buffers()))
    if 1.5 * needed > free_memory(place):
        return None
    on_gpu, quickest = place.type == "cuda", math.inf
    body = body.to_empty(device=place)
    with torch.inference_mode(), products(tf32=precision == TF32):
        for tensor in chain(body.parameters(), body.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0, 0.02)  # faster than timm's own, and without slow denormal numbers
        count = 16 if on_gpu else _images_at_once(body, image_size, place, dtype, batch_size)
        images = torch.rand(count, 3, *image_size, device=place, dtype=dtype)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(place)
        before = torch.cuda.memory_allocated(place) if on_gpu else 0
        for _ in range(3):
            quickest = min(quickest, _run_seconds(body, images))
            if quickest > 1:
                break
        each = (torch.cuda.max_memory_allocated(place) - before) // len(images) if on_gpu else None
    body.to("meta")
    return Measured(quickest / len(images), needed, each)


def _images_at_once(
    body: nn.Module, image_size: tuple[int, int], device: torch.device, dtype: torch.dtype, batch_size: int
) -> int:
    """As many images as take about half a second, at least one and at most `batch_size`."""
    image = torch.rand(1, 3, *image_size, device=device, dtype=dtype)
    alone = min(_run_seconds(body, image) for _ in range(2))  # the first run also prepares what later ones use
    return max(1, min(batch_size, int(_SECONDS / alone)))


def _run_seconds(body: nn.Module, images: torch.Tensor) -> float:
    began = time.perf_counter()
    body(images).sum().item()  # waits for a GPU
    return time.perf_counter() - began


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
