"""What a run costs: passes of the curves, and how long a pass takes on this machine."""

import math
import time
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
from caap_lab.models.device_dtype import as_device, plain_defaults
from caap_lab.models.families import read_spec
from caap_lab.models.hugging_face.folder import names_folder
from caap_lab.models.load import bundled_models, check_name, load_model
from caap_lab.models.preprocess import Preprocessing
from caap_lab.variant import Variant


def curve_passes(protocol: CurveProtocol, size: ModelSize) -> int:
    """Cost of one map's insertion and deletion, in forward passes: one for each point of both curves.

    A base that is searched for costs as many more as it may take.
    """
    searches = (protocol.insertion_base, protocol.deletion_base).count("mda_blur")
    return 2 * len(protocol.counts(size.image_size, size.grid)) + searches * len(KERNELS)


@plain_defaults()
def architecture(spec: Variant) -> tuple[nn.Module, ModelSize]:
    """A model without weights, on PyTorch's "meta" device (but for bundled ones and folders), and its size.

    Raises:
        InputError: there is no such model, or it is not supported.
    """
    check_name(spec.name)
    side = spec.options.get("image_size")
    chosen = None if side is None else tuple(side) if isinstance(side, list) else (side, side)
    if spec.name in bundled_models() or names_folder(spec.name):
        whole = names_folder(spec.name)  # the options go with it or not; where it runs comes later
        others = {name: value for name, value in spec.options.items() if whole and name not in ("device", "dtype")}
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


def seconds_per_pass(body: nn.Module, image_size: tuple[int, int], device: str = "cpu") -> float | None:
    """Seconds that an image's forward pass takes, with weights that mean nothing; their memory is freed again.

    Args:
        body: What `architecture` made; it is changed.
        image_size: Pixels as (height, width).
        device: Where to measure. A GPU gets 16 images at once, as it would be idle with one.

    Returns:
        The quickest of up to three runs; one run where it takes more than a second, or None where the weights do not
        fit into the free memory.
    """
    place = as_device(device)
    needed = sum(t.numel() * t.element_size() for t in chain(body.parameters(), body.buffers()))
    if 1.5 * needed > _free_memory(place):
        return None
    body = body.to_empty(device=place).eval()
    quickest = math.inf
    with torch.inference_mode():
        for tensor in chain(body.parameters(), body.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0, 0.02)  # quicker than timm's own, and above what slows arithmetic down
        images = torch.rand(1 if place.type == "cpu" else 16, 3, *image_size, device=place, dtype=torch.float32)
        for _ in range(3):
            began = time.perf_counter()
            body(images).sum().item()  # waits for a GPU
            quickest = min(quickest, time.perf_counter() - began)
            if quickest > 1:
                break
    body.to("meta")
    return quickest / len(images)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
