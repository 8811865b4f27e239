"""How insertion and deletion curves are made: every choice by name, and the conventions of published evaluations."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from caap_lab.blur import rise_blur
from caap_lab.errors import InputError
from caap_lab.hooked.base import HookedModel
from caap_lab.hooked.names import nearest
from caap_lab.hooked.preprocess import Preprocessing
from caap_lab.hooked.probability import PROBABILITIES

SCORES = ("prob", "logit", "top1")
UPSAMPLINGS = ("bilinear", "nearest-exact", "bicubic")
NORMALISATIONS = ("none", "monotone")
STEPS = ("row", "8 rows", "patch")

Pixels = Float[Tensor, "batch 3 height width"]


def _pixel_value(value: float) -> Callable[[Pixels, Preprocessing], Pixels]:
    def base(images: Pixels, preprocessing: Preprocessing) -> Pixels:
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
        return ((value - mean) / std).expand_as(images)

    return base


BASES: dict[str, Callable[[Pixels, Preprocessing], Pixels]] = {
    "zero": lambda images, preprocessing: torch.zeros_like(images),
    "black": _pixel_value(0.0),
    "white": _pixel_value(1.0),
    "rise_blur": lambda images, preprocessing: rise_blur(images),
    "gaussian_blur": lambda images, preprocessing: gaussian_blur(images, [11, 11], [5.0, 5.0]),
}
"""What stands where the image does not. "zero" is zero in normalised space, the grey of the data set's mean;
"rise_blur" is RISE's kernel, nearly a box of 11 pixels, with zero padding; "gaussian_blur" is torchvision's of the same
size and sigma 5, a weaker blur with reflected borders."""


@dataclass(frozen=True)
class CurveProtocol:
    """Everything that an insertion or deletion number depends on, besides the model, the image and the map.

    Raises:
        InputError: a value is not known; the message lists those that are.
    """

    name: str
    step: int | str | tuple[float, ...] = "row"
    """Pixels changed a step: a number; "row" (as many as a row has), "8 rows", "patch" (as many as a cell of the map
    has); or the shares of changed pixels themselves, rising from 0."""
    insertion_base: str = "rise_blur"
    """What insertion starts from, see `BASES`."""
    deletion_base: str = "zero"
    """What deletion puts in the place of pixels."""
    score: str = "prob"
    """Of the map's target: "prob", "logit", or "top1" (1 where it is the model's answer, else 0)."""
    upsampling: str = "bilinear"
    """From the map's grid to pixels. Equal pixels change in reading order, for "nearest-exact" after whole cells."""
    normalise: str = "none"
    """"monotone": (score - score of the base) / |score of the image - score of the base|, cut to 0..1, made monotone by
    a running maximum (insertion) or minimum (deletion)."""
    probability: str = "auto"
    """What "prob" is: "softmax"; "sigmoid", for a multi-label head, where "top1" asks whether it is above a half; or
    "auto", a sigmoid for a head with one output and a softmax for any other. Curves say where it was a sigmoid."""

    def __post_init__(self) -> None:
        for field, known in (
            ("insertion_base", tuple(BASES)),
            ("deletion_base", tuple(BASES)),
            ("score", SCORES),
            ("upsampling", UPSAMPLINGS),
            ("normalise", NORMALISATIONS),
            ("probability", PROBABILITIES),
        ):
            if getattr(self, field) not in known:
                raise InputError(f"{field}={getattr(self, field)!r} is not known; use one of {', '.join(known)}.")
        if isinstance(self.step, list):
            object.__setattr__(self, "step", tuple(self.step))
        if not _is_step(self.step):
            raise InputError(
                f"step={self.step!r} is not a number of pixels, one of {', '.join(STEPS)}, nor a list of shares "
                "rising from 0 to at most 1."
            )

    def counts(self, size: tuple[int, int], grid: tuple[int, int]) -> list[int]:
        """Pixels that are changed at each point of a curve, from 0."""
        pixels = size[0] * size[1]
        if isinstance(self.step, tuple):
            return [round(share * pixels) for share in self.step]
        known = {"row": size[1], "8 rows": 8 * size[1], "patch": max(1, pixels // (grid[0] * grid[1]))}
        step = known[self.step] if isinstance(self.step, str) else self.step
        return [*range(0, pixels, step), pixels]

    def to_dict(self) -> dict[str, Any]:
        """All choices, as results keep them; `probability` only where it is not "auto"."""
        choices = asdict(self)
        if self.probability == "auto":  # keys of older results did not have it
            del choices["probability"]
        return choices


def _is_step(step: Any) -> bool:
    if isinstance(step, tuple):
        numbers = all(isinstance(share, (int, float)) for share in step)
        return numbers and len(step) > 1 and step[0] == 0 and step[-1] <= 1 and sorted(set(step)) == list(step)
    if isinstance(step, str):
        return step in STEPS
    return isinstance(step, int) and not isinstance(step, bool) and step >= 1


PROTOCOLS: dict[str, CurveProtocol] = {
    protocol.name: protocol
    for protocol in (
        CurveProtocol("rise"),
        CurveProtocol("rise-28", step="8 rows"),
        CurveProtocol("patches", step="patch", upsampling="nearest-exact"),
        CurveProtocol("tis", insertion_base="gaussian_blur", deletion_base="gaussian_blur"),
        CurveProtocol("chefer", step=tuple(i / 10 for i in range(10)), insertion_base="zero", score="top1"),
        CurveProtocol("mutex", (0, 0.01, *(i / 20 for i in range(1, 21))), "zero", "zero", upsampling="nearest-exact"),
        CurveProtocol("xplique", step=tuple(i / 10 for i in range(11)), insertion_base="zero"),
        CurveProtocol("mda", normalise="monotone"),
    )
}
"""Conventions by name.

- "rise": Petsiuk et al. 2018, arXiv 1806.07421, for single images; 224 steps at 224 pixels. The default, and the
  reading of CAAP's evaluation (which cites RISE and gives no further detail).
- "rise-28": RISE's batch runs; 28 steps at 224 pixels.
- "patches": one cell of the map a step; a cheap form for maps on the patch grid.
- "tis": Transformer Input Sampling, Englebert et al. 2023; a weaker blur on both sides.
- "chefer": Chefer et al. 2021, arXiv 2012.09838, "positive perturbation" in its deletion: 0 to 90 % of the pixels go,
  top-1 accuracy for the target.
- "mutex": Marchetti et al. 2025; at 1, 5, 10, 15 ... 100 %. The base that its code calls black is zero after
  normalisation. Its published areas are on the scale of percentages, 0 to 100.
- "xplique": the defaults of the Xplique library; ten steps, zeros.
- "mda": Walker et al. 2025; RISE's steps, curves made monotone between base and image.
"""


def curve_protocol(protocol: str | CurveProtocol = "rise", **changes: Any) -> CurveProtocol:
    """A protocol by name, with some of its choices changed: `curve_protocol("rise", deletion_base="black")`.

    Raises:
        InputError: there is no such protocol or choice.
    """
    if not isinstance(protocol, CurveProtocol):
        if protocol not in PROTOCOLS:
            hint = nearest(str(protocol), list(PROTOCOLS))
            raise InputError(f"There is no protocol {protocol!r}.{hint} There are {', '.join(PROTOCOLS)}.")
        protocol = PROTOCOLS[protocol]
    known = [field.name for field in fields(protocol) if field.name != "name"]
    for field in changes:
        if field not in known:
            raise InputError(f"A protocol has no {field!r}.{nearest(field, known)} It has {', '.join(known)}.")
    if not changes:
        return protocol
    told = ", ".join(f"{field}={value}" for field, value in changes.items())
    return replace(protocol, **{"name": f"{protocol.name} with {told}", **changes})


def base_images(name: str, images: Pixels, model: HookedModel) -> Pixels:
    """What stands in the place of the images' pixels, see `BASES`."""
    return BASES[name](images, model.preprocessing)
