"""Insertion and deletion: does the score rise with the pixels that a map calls important, and fall without them?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from caap_lab.attribution.curve_values import normalised
from caap_lab.attribution.enlarge import enlarged
from caap_lab.attribution.map import AttributionMap
from caap_lab.checks import check_count
from caap_lab.digests.fingerprint import same_model
from caap_lab.digests.tensors import tensor_digest
from caap_lab.errors import InputError
from caap_lab.metrics.bases import base_image
from caap_lab.metrics.metric import Metric, MetricColumn, MetricInput
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.models.base import KINDS, HookedModel, Images, check_kind
from caap_lab.models.batches import check_images
from caap_lab.models.probability import probabilities, resolved_probability
from caap_lab.models.quantised import images_at_once
from caap_lab.models.running import runs_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Float[np.ndarray, " point"]
_SCORES = {"prob": "probability", "logit": "logit", "top1": "is the model's answer"}


@dataclass(frozen=True, eq=False)
class PerturbationCurves:
    """Insertion and deletion of one map: the target's score over the share of pixels changed, highest score first."""

    shares: Curve
    """Of the image's pixels."""
    insertion_curve: Curve
    deletion_curve: Curve
    target: int
    target_name: str
    method: str
    model_name: str
    protocol: CurveProtocol

    @property
    def insertion(self) -> float:
        """Area under the insertion curve (trapezoids), over the range of shares; higher is better."""
        return self._area(self.insertion_curve)

    @property
    def deletion(self) -> float:
        """Area under the deletion curve; lower is better."""
        return self._area(self.deletion_curve)

    @property
    def insdel(self) -> float:
        """Insertion minus deletion; higher is better."""
        return self.insertion - self.deletion

    def _area(self, curve: Curve) -> float:
        return float(np.trapezoid(curve, self.shares) / (self.shares[-1] - self.shares[0]))

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Both curves; see `caap_lab.plots.curves.plot_curves`."""
        from caap_lab.plots.curves import plot_curves

        return plot_curves(
            self.shares,
            {
                f"insertion, area {self.insertion:.3f}": self.insertion_curve,
                f"deletion, area {self.deletion:.3f}": self.deletion_curve,
            },
            ax,
            ylabel=f"'{self.target_name}': {_SCORES[self.protocol.score]}",
            title=f"{self.method} of {self.model_name}, InsDel {self.insdel:.3f}",
        )

    def __repr__(self) -> str:
        """The three numbers and the protocol."""
        return (
            f"PerturbationCurves: {self.method} of {self.model_name} for {self.target_name!r} ({self.target}): "
            f"insertion {self.insertion:.4f}, deletion {self.deletion:.4f}, InsDel {self.insdel:.4f} "
            f"(protocol {self.protocol.name}, {len(self.shares) - 1} steps)"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(cast("Figure", self.plot().figure))}


@runs_model
def insertion_deletion(
    model: HookedModel,
    images: Images,
    maps: AttributionMap | Sequence[AttributionMap],
    *,
    protocol: str | CurveProtocol = "rise",
    batch_size: int = 64,
    progress: bool = True,
    **changes: Any,
) -> PerturbationCurves | list[PerturbationCurves]:
    """Insertion and deletion curves of maps (RISE, Petsiuk et al. 2018), for the class that each map explains.

    Args:
        model: The model whose score is read.
        images: The images that the maps are of; one image for several maps of it.
        maps: A map, or several.
        protocol: A name from `caap_lab.metrics.protocol.PROTOCOLS`, or a `CurveProtocol`.
        batch_size: Changed images run at once, whatever map they belong to; bounds memory.
        progress: Show a progress bar for more than one map.
        **changes: Choices that differ from the protocol's: `deletion_base="black"`, `step="patch"`, `score="logit"`.

    Returns:
        Curves of one map, or a list of curves.

    Raises:
        InputError: something given does not fit, before anything runs.
    """
    check_kind(model, "insertion_deletion", tuple(KINDS))
    check_count("batch_size", batch_size)
    chosen = curve_protocol(protocol, **changes)
    if resolved_probability(chosen.probability, model.n_classes) == "sigmoid" and chosen.score != "logit":
        chosen = replace(chosen, probability="sigmoid")  # the curves say so
    several = [maps] if isinstance(maps, AttributionMap) else list(maps)
    singles = check_images(images)
    if not several or not all(isinstance(m, AttributionMap) for m in several):
        raise InputError("Expected attribution maps, as cl.attribute gives them.")
    if len(singles) not in (1, len(several)):
        raise InputError(f"{len(several)} maps need as many images, or one for all; {len(singles)} were given.")
    for m in several:
        if m.target >= model.n_classes or tuple(m.image.shape[:2]) != model.preprocessing.image_size:
            raise InputError(f"The map of {m.method} was made for another model: {m.model_name}.")
    _check_origin(model, singles, several)
    curves = _Curves(model, singles, several, chosen)
    with (
        torch.no_grad(),
        tqdm(total=len(several), unit="map", disable=not progress or len(several) == 1) as bar,
    ):
        curves.run(batch_size, bar)
    return curves.of(0) if isinstance(maps, AttributionMap) else [curves.of(i) for i in range(len(several))]


def _check_origin(model: HookedModel, images: list[Images], maps: list[AttributionMap]) -> None:
    """Refuse maps of another model or of another image; what a map does not know of itself is not checked."""
    known = model.fingerprint
    digest = ""
    for index, m in enumerate(maps):
        if m.fingerprint and not same_model(m.fingerprint, known):
            raise InputError(
                f"Map {index} was made by another model: {m.model_name} {m.fingerprint}, and this is "
                f"{model.model_name} {known} (hashes of weights and of structure). Make the map with this model, or "
                "give the one that made it."
            )
        if index < len(images):  # one image may be given for all maps
            digest = tensor_digest(model.preprocess(images[index])[0])
        if m.image_digest and m.image_digest != digest:
            raise InputError(
                f"Map {index} was made for another image: what the model sees of the image given here is not what it "
                "saw when the map was made. Give the maps' own images, in their order."
            )


def change_order(m: AttributionMap, upsampling: str) -> Int[Tensor, "height width"]:
    """Each pixel's place in the order of change, 0 for the highest score.

    Pixels of equal score come in reading order; which are equal is decided without rounding, see `enlarged`. With
    "nearest-exact" whole cells come one after the other, cells of equal score in reading order.
    """
    scores = m.scores
    if upsampling == "nearest-exact":
        cells = scores.flatten().argsort(descending=True, stable=True).argsort()
        scores = -cells.reshape(scores.shape).double()
    pixels = enlarged(scores, (m.image.shape[0], m.image.shape[1]), upsampling)
    return pixels.flatten().argsort(descending=True, stable=True).argsort().reshape(pixels.shape)


def _highest(logits: Float[Tensor, "image classes"]) -> Bool[Tensor, "image classes"]:
    """True for each image's highest class; of equal ones, the first."""
    return F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()


class _Piece(NamedTuple):
    """Some points of one curve."""

    curve: Tensor
    """Where their scores go."""
    counts: Int[Tensor, " point"]
    order: Int[Tensor, "height width"]
    front: Float[Tensor, "3 height width"]
    """Shown where a pixel is changed."""
    back: Float[Tensor, "3 height width"]
    target: int


class _Curves:
    """The curves of several maps while they fill up; points of different maps share a batch."""

    def __init__(
        self, model: HookedModel, images: list[Images], maps: list[AttributionMap], protocol: CurveProtocol
    ) -> None:
        self.model, self.images, self.maps, self.protocol = model, images, maps, protocol
        size = model.preprocessing.image_size
        self.counts = [torch.tensor(protocol.counts(size, m.grid), dtype=torch.int64, device="cpu") for m in maps]
        self.scores = [torch.zeros(2, len(counts), dtype=torch.float64, device="cpu") for counts in self.counts]

    def run(self, batch_size: int, bar: Any) -> None:
        """Fill all curves, `batch_size` changed images at a time."""
        model = self.model
        batch_size = images_at_once(model.body, batch_size)
        batch = torch.empty(batch_size, 3, *model.preprocessing.image_size, device=model.device, dtype=model.dtype)
        waiting: list[_Piece] = []
        filled = 0
        for piece in self._pieces(bar):
            while len(piece.counts):
                now = piece._replace(
                    counts=piece.counts[: batch_size - filled], curve=piece.curve[: batch_size - filled]
                )
                piece = piece._replace(counts=piece.counts[len(now.counts) :], curve=piece.curve[len(now.counts) :])
                part = batch[filled : filled + len(now.counts)]
                changed: Bool[Tensor, "point 1 height width"] = now.order < now.counts[:, None, None, None]
                torch.where(changed, now.front, now.back, out=part)
                waiting.append(now)
                filled += len(now.counts)
                if filled == batch_size:
                    self._score(batch, waiting)
                    waiting, filled = [], 0
        if filled:
            self._score(batch[:filled], waiting)

    def _pieces(self, bar: Any) -> Iterator[_Piece]:
        model, protocol = self.model, self.protocol
        for index, m in enumerate(self.maps):
            if index < len(self.images):
                image = model.preprocess(self.images[index])
            if index < len(self.images) or m.target != self.maps[index - 1].target:
                start, fill = (
                    base_image(name, image, model, m.target, protocol.probability)
                    for name in (protocol.insertion_base, protocol.deletion_base)
                )
            order = change_order(m, protocol.upsampling).to(model.device)
            counts = self.counts[index].to(model.device)
            insertion, deletion = self.scores[index]
            yield _Piece(insertion, counts, order, image[0], start[0], m.target)
            yield _Piece(deletion, counts, order, fill[0], image[0], m.target)
            bar.update()

    def _score(self, batch: Tensor, pieces: list[_Piece]) -> None:
        logits = self.model(batch)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not logits.isfinite().all():
            raise InputError(
                "The model gives NaN or infinity on a changed image: look for such values in its weights, or use "
                "dtype='float32' instead of float16."
            )
        targets = torch.tensor([p.target for p in pieces for _ in p.counts], dtype=torch.int64, device=logits.device)
        if self.protocol.score == "top1":
            answers = logits > 0 if self.protocol.probability == "sigmoid" else _highest(logits)
            target_scores = answers.gather(1, targets[:, None])[:, 0].double()
        else:
            scores = logits if self.protocol.score == "logit" else probabilities(logits, self.protocol.probability)
            target_scores = scores.gather(1, targets[:, None])[:, 0].double()
        for piece, values in zip(pieces, target_scores.cpu().split([len(p.counts) for p in pieces]), strict=True):
            piece.curve.copy_(values)

    def of(self, index: int) -> PerturbationCurves:
        """One map's finished curves."""
        m, counts = self.maps[index], self.counts[index]
        insertion, deletion = self.scores[index].numpy()
        if self.protocol.normalise == "monotone":
            insertion = normalised(insertion, insertion[0], insertion[-1], falling=False)
            deletion = normalised(deletion, deletion[-1], deletion[0], falling=True)
        height, width = self.model.preprocessing.image_size
        return PerturbationCurves(
            shares=(counts.double() / (height * width)).numpy(),
            insertion_curve=insertion,
            deletion_curve=deletion,
            target=m.target,
            target_name=m.target_name,
            method=m.method,
            model_name=self.model.model_name,
            protocol=self.protocol,
        )


def _compute(given: MetricInput) -> dict[str, Any]:
    assert given.protocol is not None
    curves = insertion_deletion(
        given.model, given.image, given.map, protocol=given.protocol, batch_size=given.batch_size
    )
    assert not isinstance(curves, list)
    return {name: getattr(curves, name) for name in (*(column.name for column in COLUMNS), *_CURVES)}


COLUMNS = (
    MetricColumn("deletion", "Del", "deletion area", better="lower"),
    MetricColumn("insertion", "Ins", "insertion area"),
    MetricColumn("insdel", "InsDel", "insertion - deletion"),
)
_CURVES = ("shares", "insertion_curve", "deletion_curve")
FAITHFULNESS = Metric(
    "faithfulness", COLUMNS, _compute, reads_protocol=True, default=True, details=dict.fromkeys(_CURVES, "numbers")
)
