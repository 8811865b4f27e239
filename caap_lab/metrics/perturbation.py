"""Insertion and deletion: whether the score rises with a map's most important pixels, and falls without them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caap_lab.attribution.curve_values import normalised
from caap_lab.attribution.map import AttributionMap
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.metrics.bases import base_image
from caap_lab.metrics.changed_images import (
    CheckedMaps,
    change_order,
    checked_maps,
    read_scores,
    scores_under_way,
    value_name,
)
from caap_lab.metrics.metric import Metric, MetricColumn, MetricInput
from caap_lab.metrics.protocol import CurveProtocol, ProtocolChanges, curve_protocol
from caap_lab.models.base import KINDS, HookedModel, Images, check_kind
from caap_lab.models.later import Later, handed_over
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.probability import resolved_probability
from caap_lab.models.quantised import images_at_once
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Contrast, Direction, FunctionOfLogits, Logit, Target, TargetLike
from caap_lab.signatures import shows_options

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Float[np.ndarray, " point"]
WHAT = "insertion and deletion"
"""Label of the progress bar."""


@dataclass(frozen=True, eq=False)
class PerturbationCurves:
    """Insertion and deletion curves of one map: the score by fraction of changed pixels, highest score first."""

    shares: Curve
    """Fractions of changed pixels."""
    insertion_curve: Curve
    deletion_curve: Curve
    target: int | Contrast | Logit | Direction | FunctionOfLogits
    """The scored target: a class index, or the given target with classes as indices."""
    target_name: str
    method: str
    model_name: str
    protocol: CurveProtocol
    score_name: str = "probability"
    """The score of the target: its "probability", "logit" and so on."""

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
        """Axes with both curves; see `caap_lab.plots.curves.plot_curves`."""
        from caap_lab.plots.curves import plot_curves

        return plot_curves(
            self.shares,
            {
                f"insertion, area {self.insertion:z.3f}": self.insertion_curve,
                f"deletion, area {self.deletion:z.3f}": self.deletion_curve,
            },
            ax,
            ylabel=f"'{self.target_name}': {self.score_name}",
            title=f"{self.method} of {self.model_name}, InsDel {self.insdel:z.3f}",
        )

    def __repr__(self) -> str:
        """The three numbers and the protocol."""
        index = f" ({self.target})" if isinstance(self.target, int) else ""
        return (
            f"PerturbationCurves: {self.method} of {self.model_name} for {self.target_name!r}{index}: "
            f"insertion {self.insertion:z.4f}, deletion {self.deletion:z.4f}, InsDel {self.insdel:z.4f} "
            f"(protocol {self.protocol.name}, {len(self.shares) - 1} steps)"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(cast("Figure", self.plot().figure))}


@shows_options(otherwise="the protocol's")
@runs_model
def insertion_deletion(
    model: HookedModel,
    images: Images,
    maps: AttributionMap | Sequence[AttributionMap],
    *,
    target: TargetLike | None = None,
    protocol: str | CurveProtocol = "rise",
    batch_size: int = 64,
    progress: bool = True,
    **changes: Unpack[ProtocolChanges],
) -> PerturbationCurves | list[PerturbationCurves]:
    """Insertion and deletion curves of maps (RISE, Petsiuk et al. 2018), for the target of each map.

    ```python
    curves = cl.insertion_deletion(model, image, m, protocol="patches")
    curves.insertion, curves.deletion, curves.plot()
    ```

    The score of a contrast of two classes is p(a) / (p(a) + p(b)), that of one against the mean of all classes the
    class's own probability; directions and functions of the logits have no probability, and their score is their value.

    Args:
        model: The model whose score is read.
        images: The images that the maps are of; one image for several maps of it.
        maps: A map, or several.
        target: The target to score, for all maps, see `cl.contrast`; by default that of each map.
        protocol: A name from `caap_lab.metrics.protocol.PROTOCOLS`, or a `CurveProtocol`.
        batch_size: Changed images run at once, of any maps; limits memory.
        progress: Show a progress bar, for one map if it takes more than a second.
        **changes: Settings that differ from the protocol's: `deletion_base="black"`, `step="patch"`, `score="logit"`.

    Returns:
        Curves of one map, or a list of curves.

    Raises:
        InputError: an argument is invalid; raised before anything runs.
    """
    check_kind(model, "insertion_deletion", tuple(KINDS))
    check_count("batch_size", batch_size)
    chosen = curve_protocol(protocol, **changes)
    if resolved_probability(chosen.probability, model.n_classes) == "sigmoid" and chosen.score != "logit":
        chosen = replace(chosen, probability="sigmoid")  # the curves record it
    given = checked_maps(model, images, maps, target)
    _check_scored(given, chosen)
    curves = _Curves(given, chosen)
    with (
        torch.no_grad(),
        images_shown(WHAT, len(given.maps), 1, progress, "map", 2 * len(curves.counts[0])) as bar,
    ):
        curves.run(batch_size, bar)
    return curves.of(0) if isinstance(maps, AttributionMap) else [curves.of(i) for i in range(len(given.maps))]


def _check_scored(given: CheckedMaps, protocol: CurveProtocol) -> None:
    """Raise InputError if a protocol needs a class or a probability that the target does not have."""
    bases = {protocol.insertion_base, protocol.deletion_base}
    asks = "score='top1'" if protocol.score == "top1" else "the base 'mda_blur'" if "mda_blur" in bases else ""
    for target in given.targets:
        if asks and not target.has_probability:
            raise InputError(
                f"{asks} of the protocol {protocol.name!r} needs a class or a contrast of classes, but the target is "
                f"{target.name}, which has no probability. Use another protocol, or target=... for the curves."
            )


class _Piece(NamedTuple):
    """Some points of one curve."""

    curve: Tensor
    """The tensor for their scores."""
    counts: Int[Tensor, " point"]
    order: Int[Tensor, "height width"]
    front: Float[Tensor, "3 height width"]
    """The image shown at changed pixels."""
    back: Float[Tensor, "3 height width"]
    target: Target


class _Curves:
    """The curves of several maps while they are computed; points of different maps share a batch."""

    def __init__(self, given: CheckedMaps, protocol: CurveProtocol) -> None:
        self.model, self.images, self.maps, self.targets = given.model, given.images, given.maps, given.targets
        self.protocol = protocol
        self._later = Later(self.model.device)
        self._under_way: list[tuple[list[_Piece], tuple[Tensor, Tensor], torch.cuda.Event | None]] = []
        size = self.model.preprocessing.image_size
        self.counts = [torch.tensor(protocol.counts(size, m.grid), dtype=torch.int64, device="cpu") for m in self.maps]
        self.scores = [torch.zeros(2, len(counts), dtype=torch.float64, device="cpu") for counts in self.counts]

    def run(self, batch_size: int, bar: Any) -> None:
        """Compute all curves, `batch_size` changed images at a time."""
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
        self._read(0)

    def _pieces(self, bar: Any) -> Iterator[_Piece]:
        model, protocol = self.model, self.protocol
        for index, m in enumerate(self.maps):
            if index < len(self.images):
                image = model.preprocess(self.images[index])
            target = self.targets[index]
            if index < len(self.images) or target != self.targets[index - 1]:
                start, fill = (
                    base_image(name, image, model, target, protocol.probability)
                    for name in (protocol.insertion_base, protocol.deletion_base)
                )
            order = handed_over(change_order(m, protocol.upsampling), model.device)
            counts = self.counts[index].to(model.device)
            insertion, deletion = self.scores[index]
            yield _Piece(insertion, counts, order, image[0], start[0], target)
            yield _Piece(deletion, counts, order, fill[0], image[0], target)
            bar.update()

    def _score(self, batch: Tensor, pieces: list[_Piece]) -> None:
        """Start a batch; on a GPU, the scores of the previous batch are read meanwhile."""
        targets = [piece.target for piece in pieces for _ in piece.counts]
        begun = scores_under_way(self.model, batch, targets, self.protocol.score, self.protocol.probability)
        self._under_way.append((pieces, begun, self._later.mark()))
        self._read(self._later.ahead)

    def _read(self, left: int) -> None:
        """Read the scores of all batches except the last `left`."""
        while len(self._under_way) > left:
            pieces, begun, mark = self._under_way.pop(0)
            with self._later.reading(mark):
                scores = read_scores(*begun)
            for piece, values in zip(pieces, scores.split([len(piece.counts) for piece in pieces]), strict=True):
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
            target=self.targets[index].given,
            target_name=self.targets[index].name,
            method=m.method,
            model_name=self.model.model_name,
            protocol=self.protocol,
            score_name=value_name(self.protocol.score, self.targets[index]),
        )


def _compute(given: MetricInput) -> dict[str, Any]:
    assert given.protocol is not None
    curves = insertion_deletion(
        given.model, given.image, given.map, protocol=given.protocol, batch_size=given.batch_size, progress=False
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
