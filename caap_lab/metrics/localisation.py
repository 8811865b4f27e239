"""Agreement of a map with an object's mask: AUPR, mAP, the pointing game, and the mass inside the object."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from caap_lab.attribution.enlarge import enlarged
from caap_lab.attribution.map import AttributionMap
from caap_lab.checks import check_choice
from caap_lab.errors import InputError
from caap_lab.metrics.average_precision import average_precision
from caap_lab.metrics.metric import Metric, MetricColumn, MetricInput
from caap_lab.metrics.protocol import UPSAMPLINGS


@dataclass(frozen=True)
class Localisation:
    """How well a map finds an object. All values are from 0 to 1; chance is `prevalence` unless stated otherwise."""

    aupr1: float
    """Average precision of the map for the object's pixels."""
    aupr0: float
    """Average precision of the negated map for the other pixels; chance is 1 - prevalence."""
    pooled_ap: float
    """The AP that segmentation papers average over images to "mAP" (Chefer et al. 2021): that of s for the object and
    of 1 - s for the rest, with all 2 x pixels in one ranking; s is the map scaled to 0..1. 1/2 for a constant map.
    Unlike AUPR it depends on the scores themselves, not only on their order."""
    pointing: float
    """1 if the highest pixel, the first in reading order, lies in the object, otherwise 0; 0 for a constant map."""
    pointing_expected: float
    """Fraction of the highest pixels that lie in the object; equal to `pointing` if there is one highest pixel."""
    mass_inside: float
    """Fraction of the map, shifted so that its lowest score is 0, that lies in the object; prevalence if constant."""
    prevalence: float
    """Fraction of pixels that belong to the object."""
    upsampling: str
    tolerance: float

    def __repr__(self) -> str:
        """The values, with chance levels."""
        return (
            f"Localisation: AUPR1 {self.aupr1:.4f} (chance {self.prevalence:.4f}), AUPR0 {self.aupr0:.4f} (chance "
            f"{1 - self.prevalence:.4f}), pooled AP {self.pooled_ap:.4f}, pointing {self.pointing:g} (expected "
            f"{self.pointing_expected:.3g}), mass inside {self.mass_inside:.4f}"
        )


def localisation(
    m: AttributionMap,
    mask: Bool[Tensor, "height width"] | Bool[np.ndarray, "height width"],
    *,
    ignored: Bool[Tensor, "height width"] | Bool[np.ndarray, "height width"] | None = None,
    upsampling: str = "bilinear",
    tolerance: float = 0.0,
) -> Localisation:
    """AUPR1, AUPR0, mAP and the pointing game of a map against a mask, at pixel resolution.

    ```python
    found = cl.localisation(m, model.preprocessing.mask(mask))
    found.aupr1, found.pointing
    ```

    AUPR is the average precision sum_n (R_n - R_{n-1}) P_n; it depends only on the order of pixels, so that normalising
    the map has no effect. `pooled_ap` is the same over object and rest together, as in the segmentation test of Chefer
    et al. 2021, arXiv 2012.09838. Pixels that should be equal are equal; see `caap_lab.attribution.enlarge`. The
    pointing game is Zhang et al. 2016, arXiv 1608.00507.

    Args:
        m: The map.
        mask: The object's pixels in the model's input: `model.preprocessing.mask(photo_mask)`.
        ignored: Pixels that all metrics ignore, such as ImageNet-S's 1000.
        upsampling: Interpolation from the map's grid to pixels: "bilinear", "nearest-exact" or "bicubic".
        tolerance: The pointing game also counts a hit within this many pixels of the object (originally 15; here 0).

    Raises:
        InputError: the mask does not match the map, or has no pixel inside or outside the object.
    """
    if not isinstance(m, AttributionMap):
        raise InputError(
            f"localisation takes one attribution map and its mask, not {type(m).__name__}; for several, call it for "
            "each: [cl.localisation(m, mask) for m, mask in zip(maps, masks)]."
        )
    check_choice("upsampling", upsampling, UPSAMPLINGS)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < np.inf:
        raise InputError(f"tolerance={tolerance!r} must be a number of pixels of at least 0.")
    inside = _checked("mask", mask, m)
    kept = np.ones_like(inside) if ignored is None else ~_checked("ignored", ignored, m)
    scores = enlarged(m.scores, (m.image.shape[0], m.image.shape[1]), upsampling).numpy()
    near = inside if tolerance == 0 else distance_transform_edt(~inside) <= tolerance
    values, labels, hits = scores[kept], inside[kept], near[kept]
    refuse_one_sided(labels)
    prevalence = float(labels.mean())
    highest = values == values.max()
    above = values - values.min()
    constant = bool(highest.all())
    share = np.full_like(above, 0.5) if constant else above / above.max()
    return Localisation(
        aupr1=average_precision(labels, values),
        aupr0=average_precision(~labels, -values),
        pooled_ap=average_precision(np.append(labels, ~labels), np.append(share, 1 - share)),
        pointing=0.0 if constant else float(hits[highest.argmax()]),
        pointing_expected=float(hits[highest].mean()),
        mass_inside=prevalence if constant else float(above[labels].sum() / above.sum()),
        prevalence=prevalence,
        upsampling=upsampling,
        tolerance=float(tolerance),
    )


def refuse_one_sided(labels: Bool[np.ndarray, "..."]) -> None:
    """Raise InputError if all pixels belong to the object, or none.

    Raises:
        InputError: the message says which.
    """
    if not labels.any() or labels.all():
        where = "no pixel" if not labels.any() else "every pixel"
        raise InputError(f"The mask contains {where} of the model's input, so the map cannot be evaluated.")


def _compute(given: MetricInput, *, upsampling: str = "bilinear", tolerance: float = 0.0) -> dict[str, Any]:
    assert given.mask is not None
    result = localisation(given.map, given.mask, ignored=given.ignored, upsampling=upsampling, tolerance=tolerance)
    return {name: getattr(result, name) for name in (*(column.name for column in COLUMNS), "prevalence")}


COLUMNS = (
    MetricColumn("aupr1", "AUPR1", "AUPR of the object"),
    MetricColumn("aupr0", "AUPR0", "AUPR of the rest"),
    MetricColumn("pooled_ap", "mAP", "mAP of object and rest"),
    MetricColumn("pointing", "PG", "pointing game hits"),
    MetricColumn("pointing_expected", "PG ties", "pointing game hits, ties shared"),
    MetricColumn("mass_inside", "Mass", "map inside the object"),
)
LOCALISATION = Metric(
    "localisation", COLUMNS, _compute, needs_masks=True, default=True, details={"prevalence": "number"}
)


def _checked(name: str, mask: Any, m: AttributionMap) -> Bool[np.ndarray, "height width"]:
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    size = tuple(m.image.shape[:2])
    if not isinstance(array, np.ndarray) or array.dtype != bool or array.shape != size:
        kind = type(mask).__name__ if not isinstance(array, np.ndarray) else f"{array.dtype} {list(array.shape)}"
        raise InputError(
            f"{name} must be bool {list(size)}, the pixels of the model's input; this is {kind}. "
            "model.preprocessing.mask(...) makes one from a mask of the photo."
        )
    return array
