"""Insertion and deletion: whether the score rises with a map's most important pixels, and falls without them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np
from jaxtyping import Float

from caap_lab.attribution.curve_values import normalised
from caap_lab.attribution.map import AttributionMap
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.metrics.changed_images import CheckedMaps, checked_maps, value_name
from caap_lab.metrics.curve_batches import CurveBatches, CurveJob, CurveScores
from caap_lab.metrics.metric import Metric, MetricColumn, MetricInput
from caap_lab.metrics.protocol import CurveProtocol, ProtocolChanges, curve_protocol
from caap_lab.models.base import KINDS, HookedModel, Images, check_kind
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.probability import resolved_probability
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Contrast, Direction, FunctionOfLogits, Logit, TargetLike
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
    chosen = _protocol(model, curve_protocol(protocol, **changes))
    given = checked_maps(model, images, maps, target)
    _check_scored(given, chosen)
    points = 2 * len(chosen.counts(model.preprocessing.image_size, given.maps[0].grid))
    curves = []
    with images_shown(WHAT, len(given.maps), 1, progress, "map", points) as bar:
        for found in CurveBatches(given.model, chosen, batch_size).run(_jobs(given)):
            curves.append(_curves(given.model, chosen, found))
            bar.update()
    return curves[0] if isinstance(maps, AttributionMap) else curves


def _protocol(model: HookedModel, protocol: CurveProtocol) -> CurveProtocol:
    """The protocol as curves record it."""
    if resolved_probability(protocol.probability, model.n_classes) == "sigmoid" and protocol.score != "logit":
        return replace(protocol, probability="sigmoid")
    return protocol


def _jobs(given: CheckedMaps) -> Iterator[CurveJob]:
    """The maps with their images; an image that is given several times in a row is preprocessed once."""
    last: Images | None = None
    for index, (m, target) in enumerate(zip(given.maps, given.targets, strict=True)):
        if index < len(given.images) and given.images[index] is not last:
            last = given.images[index]
            x = given.model.preprocess(last)
        yield CurveJob(m, x, target)


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


def _curves(model: HookedModel, protocol: CurveProtocol, found: CurveScores) -> PerturbationCurves:
    """One map's finished curves."""
    job = found.job
    insertion, deletion = found.scores.numpy()
    if protocol.normalise == "monotone":
        insertion = normalised(insertion, insertion[0], insertion[-1], falling=False)
        deletion = normalised(deletion, deletion[-1], deletion[0], falling=True)
    height, width = model.preprocessing.image_size
    return PerturbationCurves(
        shares=(found.counts.double() / (height * width)).numpy(),
        insertion_curve=insertion,
        deletion_curve=deletion,
        target=job.target.given,
        target_name=job.target.name,
        method=job.map.method,
        model_name=model.model_name,
        protocol=protocol,
        score_name=value_name(protocol.score, job.target),
    )


def _compute(given: MetricInput) -> dict[str, Any]:
    ((values, _),) = _compute_all([given])
    return values


def _compute_all(inputs: Iterable[MetricInput]) -> Iterator[tuple[dict[str, Any], float]]:
    """The values of each map of one model, in order, and its seconds; maps are taken when there is room in a batch."""
    several = iter(inputs)
    first = next(several, None)
    if first is None:
        return
    assert first.protocol is not None
    chosen = _protocol(first.model, first.protocol)
    check_kind(first.model, "insertion_deletion", tuple(KINDS))
    known = first.model.fingerprint

    def checked(one: MetricInput) -> CheckedMaps:
        given = checked_maps(one.model, one.image, one.map, None, known)
        _check_scored(given, chosen)
        return given

    whole = checked(first)

    def taken() -> Iterator[CurveJob]:
        yield CurveJob(first.map, first.image, whole.targets[0])
        for one in several:
            given = checked(one)
            if given.model is not whole.model:  # a direction's column of logits, which only its own model has
                raise InputError("Maps of directions cannot share batches; measure them one by one.")
            yield CurveJob(one.map, one.image, given.targets[0])

    for found in CurveBatches(whole.model, chosen, first.batch_size).run(taken()):
        curves = _curves(whole.model, chosen, found)
        yield {name: getattr(curves, name) for name in (*(c.name for c in COLUMNS), *_CURVES)}, found.seconds


COLUMNS = (
    MetricColumn("deletion", "Del", "deletion area", better="lower"),
    MetricColumn("insertion", "Ins", "insertion area"),
    MetricColumn("insdel", "InsDel", "insertion - deletion"),
)
_CURVES = ("shares", "insertion_curve", "deletion_curve")
FAITHFULNESS = Metric(
    "faithfulness",
    COLUMNS,
    _compute,
    reads_protocol=True,
    default=True,
    details=dict.fromkeys(_CURVES, "numbers"),
    compute_all=_compute_all,
)
