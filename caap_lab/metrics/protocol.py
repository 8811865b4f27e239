"""Protocols of insertion and deletion curves: all settings by name, and the conventions of published evaluations."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypedDict, Unpack

from caap_lab.attribution.enlarge import MODES as UPSAMPLINGS
from caap_lab.errors import InputError
from caap_lab.metrics.bases import BASES
from caap_lab.models.names import nearest
from caap_lab.models.probability import PROBABILITIES

SCORES = ("prob", "logit", "top1")
NORMALISATIONS = ("none", "monotone")
STEPS = ("row", "8 rows", "patch")
ROUNDINGS = ("nearest", "down")


@dataclass(frozen=True)
class CurveProtocol:
    """All settings on which insertion and deletion depend, apart from the model, the image and the map.

    ```python
    mine = cl.CurveProtocol("mine", step="patch", deletion_base="black")
    cl.insertion_deletion(model, image, m, protocol=mine)
    ```

    Raises:
        InputError: a value is unknown; the message lists the known ones.
    """

    name: str
    step: int | str | tuple[float, ...] = "row"
    """Pixels changed per step: a number; "row" (as many as in a row), "8 rows", "patch" (as many as in a cell of the
    map); or the fractions of changed pixels themselves, ascending."""
    insertion_base: str = "rise_blur"
    """Image from which insertion starts; see `caap_lab.metrics.bases.BASES`."""
    deletion_base: str = "zero"
    """Image whose pixels replace deleted ones."""
    score: str = "prob"
    """Score of the map's target: "prob", "logit", or "top1" (1 if it is the model's prediction, otherwise 0)."""
    upsampling: str = "bilinear"
    """Interpolation from the map's grid to pixels. Equal pixels change in reading order, with "nearest-exact" by
    cells."""
    normalise: str = "none"
    """"monotone": (score - score of the base) / |score of the image - score of the base|, clipped to 0..1, made
    monotone by a running maximum (insertion) or minimum (deletion). The steps must go from the base to the image."""
    probability: str = "auto"
    """Meaning of "prob": "softmax"; "sigmoid", for a multi-label head, where "top1" is whether it is above one half; or
    "auto", a sigmoid for a head with one output and a softmax for any other. Curves record a sigmoid."""
    rounding: str = "nearest"
    """How a fraction of the pixels becomes a number of pixels: rounded to the "nearest", or "down"."""

    def __post_init__(self) -> None:
        for field, known in (
            ("insertion_base", tuple(BASES)),
            ("deletion_base", tuple(BASES)),
            ("score", SCORES),
            ("upsampling", UPSAMPLINGS),
            ("normalise", NORMALISATIONS),
            ("probability", PROBABILITIES),
            ("rounding", ROUNDINGS),
        ):
            if getattr(self, field) not in known:
                raise InputError(f"{field}={getattr(self, field)!r} is not known; use one of {', '.join(known)}.")
        if isinstance(self.step, list):
            object.__setattr__(self, "step", tuple(self.step))
        if not _is_step(self.step):
            raise InputError(
                f"step={self.step!r} is not a number of pixels, one of {', '.join(STEPS)}, or an ascending list "
                "of fractions from 0 to 1."
            )
        if self.normalise != "none" and isinstance(self.step, tuple) and (self.step[0], self.step[-1]) != (0, 1):
            raise InputError(
                f"normalise={self.normalise!r} needs the scores of the base and of the complete image, so the "
                f"fractions in step must go from 0 to 1; these go from {self.step[0]} to {self.step[-1]}."
            )

    def counts(self, size: tuple[int, int], grid: tuple[int, int]) -> list[int]:
        """Number of changed pixels at each point of a curve."""
        pixels = size[0] * size[1]
        if isinstance(self.step, tuple):
            whole = int if self.rounding == "down" else round
            return [whole(share * pixels) for share in self.step]
        known = {"row": size[1], "8 rows": 8 * size[1], "patch": max(1, pixels // (grid[0] * grid[1]))}
        step = known[self.step] if isinstance(self.step, str) else self.step
        return [*range(0, pixels, step), pixels]

    def to_dict(self) -> dict[str, Any]:
        """All settings, as results record them; `probability` and `rounding` only if they are not the default."""
        choices = asdict(self)
        for field, default in (("probability", "auto"), ("rounding", "nearest")):
            if choices[field] == default:  # missing in keys of older results
                del choices[field]
        return choices


class ProtocolChanges(TypedDict, total=False):
    """The same settings as keyword arguments that override those of a protocol."""

    step: int | str | Sequence[float]
    insertion_base: str
    deletion_base: str
    score: str
    upsampling: str
    normalise: str
    probability: str
    rounding: str


def _is_step(step: Any) -> bool:
    if isinstance(step, tuple):
        numbers = all(isinstance(share, (int, float)) for share in step)
        return numbers and len(step) > 1 and step[0] >= 0 and step[-1] <= 1 and sorted(set(step)) == list(step)
    if isinstance(step, str):
        return step in STEPS
    return isinstance(step, int) and not isinstance(step, bool) and step >= 1


_TENTHS = tuple(i / 10 for i in range(11))

PROTOCOLS: dict[str, CurveProtocol] = {
    protocol.name: protocol
    for protocol in (
        CurveProtocol("rise"),
        CurveProtocol("rise-28", step="8 rows"),
        CurveProtocol("patches", step="patch", upsampling="nearest-exact"),
        CurveProtocol("tis", insertion_base="gaussian_blur", deletion_base="gaussian_blur"),
        CurveProtocol("chefer", _TENTHS[1:10], "black", "black", "top1", rounding="down"),
        CurveProtocol("mutex", (0.01, 0.05, *_TENTHS[1:]), "zero", "zero", upsampling="nearest-exact", rounding="down"),
        CurveProtocol("xplique", _TENTHS, "zero", rounding="down"),
        CurveProtocol("mda", insertion_base="mda_blur", normalise="monotone"),
    )
}
"""Conventions by name, with what follows the authors (their paper or public code) and what is our choice.

Ours in all of them: curves are of the map's own target; pixels of equal score change in reading order, which the
authors' sorting does not define; an area is divided by the range of fractions, of the pixels actually changed.

- "rise": Petsiuk et al. 2018, arXiv 1806.07421, for single images; 224 steps at 224 pixels. All of it is the authors'.
  The default, and our reading of CAAP's evaluation, which cites RISE and gives no further detail.
- "rise-28": RISE's batch runs, 28 steps at 224 pixels. All of it is the authors'.
- "patches": ours; one cell of the map per step, a cheap form of "rise" for maps on the patch grid.
- "tis": Transformer Input Sampling, Englebert et al. 2023. Theirs are the steps and the weaker blur on both sides.
- "chefer": Chefer et al. 2021, arXiv 2012.09838. Theirs is the deletion ("positive perturbation"): 10 to 90 % of the
  pixels, cut off to whole ones, are set to 0 before normalisation, which is black, and the top-1 answer is compared
  with the target (theirs is the image's label or the prediction). They have no insertion: ours is their "negative
  perturbation", which deletes the lowest pixels, read from the other end.
- "mutex": Marchetti et al. 2025. Theirs are the shares of 1, 5, 10, 20, 30 ... 100 %, cut off to whole pixels; the
  base, which their code calls black and is zero after normalisation; and whole cells. Their areas are sums over
  percentages, on a scale of 0 to 100, and that of the deletion begins with a score of 0 at 0 %; ours are means.
- "xplique": the defaults of the Xplique library: ten steps, cut off to whole pixels, and zeros. Ours is the softmax,
  because the library uses the model's output as it is.
- "mda": Walker et al. 2025. Theirs are RISE's steps, the blur that is widened until the target's probability is at most
  1 %, zeros for deletion, and curves made monotone between base and image. They leave out images for which no blur
  suffices, the model's confidence is below 60 %, or its prediction is wrong; ours keeps them, with the widest blur.
"""


def curve_protocol(protocol: str | CurveProtocol = "rise", **changes: Unpack[ProtocolChanges]) -> CurveProtocol:
    """A protocol by name, with some settings changed: `curve_protocol("rise", deletion_base="black")`.

    Raises:
        InputError: there is no such protocol or setting.
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
    changed = ", ".join(f"{field}={value}" for field, value in changes.items())
    fresh: dict[str, Any] = {"name": f"{protocol.name} with {changed}", **changes}
    return replace(protocol, **fresh)
