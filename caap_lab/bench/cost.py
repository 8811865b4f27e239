"""What a run costs: passes of each method and of the curves, and how long a pass takes on this machine."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import psutil
import timm
import torch
from torch import nn

from caap_lab.attribution.mda_blur import KERNELS
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.models.base import HookedModel
from caap_lab.models.cnn import cnn_grid
from caap_lab.models.cnn_steps import CNNS
from caap_lab.models.device_dtype import as_device, plain_defaults
from caap_lab.models.load import bundled_models, check_name, load_model
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.spec import read_spec
from caap_lab.variant import Variant

BACKWARD = 2
"""Forward passes that a backward pass counts as."""


@dataclass(frozen=True)
class Size:
    """What of an architecture decides how many passes a map takes."""

    kind: str
    """"vit" or "cnn"."""
    image_size: tuple[int, int]
    """Pixels as (height, width)."""
    grid: tuple[int, int]
    """Cells of a map as (rows, columns)."""
    channels: int
    """Of the maps that Score-CAM and ViT-CX read: the width of a ViT, or of a CNN's last block."""

    @property
    def n_patches(self) -> int:
        """Cells of a map, N."""
        return self.grid[0] * self.grid[1]

    @classmethod
    def of(cls, model: HookedModel) -> "Size":
        """The size of a hooked model."""
        body: nn.Module = model.vit if model.kind == "vit" else model.cnn  # type: ignore[assignment]
        return cls(model.kind, model.image_size, model.grid, int(body.num_features))  # type: ignore[arg-type]


def _mda(size: Size) -> float:
    """The search, the two curves of a step a row of patches' pixels, three ends, the blur, and the reference's."""
    tries = min(28, 2 * math.isqrt(size.n_patches))
    search = tries * size.n_patches - tries * (tries - 1) // 2  # the last steps have fewer patches left
    steps = size.image_size[0] // size.grid[0] * size.grid[0] - 1
    return search + 2 * steps + 3 + 1 + 21


PASSES: dict[str, tuple[float | Callable[[Size], float], float]] = {
    "caap": (lambda size: 4.2 if size.kind == "vit" else size.n_patches + 1, 0),
    "grad_cam": (1, 1),
    "rollout": (1, 0),
    "transformer_attribution": (2, 1),
    # A mask has about eight channels (on photos and ViTs of width 192, which is what could be measured).
    "vit_cx": (lambda size: 1 + 2 * size.channels / 8, 0),
    "tam": (21, 20),
    "ixg_plus": (1, 1),
    "libra_ixg_plus": (1, 1),
    "mda": (_mda, 21),
    "mutex": (1 + 54 / 2, 0),  # masks keep half of the patches; equal ones run once, so that it can be less
    "simple_insertion": (lambda size: size.n_patches, 0),
    "simple_deletion": (lambda size: size.n_patches, 0),
    "input_x_gradient": (1, 1),
    "integrated_gradients": (50, 50),
    "smoothgrad": (50, 50),
    "full_grad_plus": (1, 1),
    "grad_cam_plus_plus": (1, 1),
    "score_cam": (lambda size: 1 + size.channels, 0),
    "attcat": (1, 1),
    "grad_sam": (1, 1),
    "gen_att": (1, 1),
    "rise": (4000, 0),
    "tis": (1 + 1024 / 2, 0),  # as MUTEX's
    "atman": (lambda size: size.n_patches + 1, 0),
}
"""Forward and backward passes of a map with the default options, for a given target: `Method.forwards` and `backwards`
as numbers. Passes with half of the tokens count half. Counted by the tests."""


def map_passes(method: str, size: Size) -> float:
    """Cost of one map, in forward passes of the same model."""
    forwards, backwards = PASSES[method]
    return (forwards(size) if callable(forwards) else forwards) + BACKWARD * backwards


def curve_passes(protocol: CurveProtocol, size: Size) -> int:
    """Cost of one map's insertion and deletion, in forward passes: one for each point of both curves.

    A base that is searched for costs as many more as it may take.
    """
    searches = (protocol.insertion_base, protocol.deletion_base).count("mda_blur")
    return 2 * len(protocol.counts(size.image_size, size.grid)) + searches * len(KERNELS)


@plain_defaults()
def architecture(spec: Variant) -> tuple[nn.Module, Size]:
    """A model without weights, on PyTorch's "meta" device (but for bundled ones), and its size.

    Raises:
        InputError: there is no such model, or it is not supported.
    """
    check_name(spec.name)
    side = spec.options.get("image_size")
    chosen = None if side is None else tuple(side) if isinstance(side, list) else (side, side)
    if spec.name in bundled_models():
        model = load_model(spec.name, image_size=chosen)
        return model.vit if model.kind == "vit" else model.cnn, Size.of(model)  # type: ignore[return-value]
    with torch.device("meta"):
        body = timm.create_model(spec.name, pretrained=False)
        if isinstance(body, CNNS):
            pixels = chosen or Preprocessing.from_timm(body).image_size
            return body, Size("cnn", pixels, cnn_grid(body, pixels), int(body.num_features))
        if chosen is not None:
            body = timm.create_model(spec.name, pretrained=False, img_size=chosen)
    found = read_spec(body)
    return body, Size("vit", found.image_size, found.grid, found.d_model)


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
    found = math.inf
    with torch.inference_mode():
        for tensor in chain(body.parameters(), body.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0, 0.02)  # quicker than timm's own, and above what slows arithmetic down
        images = torch.rand(1 if place.type == "cpu" else 16, 3, *image_size, device=place, dtype=torch.float32)
        for _ in range(3):
            began = time.perf_counter()
            body(images).sum().item()  # waits for a GPU
            found = min(found, time.perf_counter() - began)
            if found > 1:
                break
    body.to("meta")
    return found / len(images)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
