"""Do maps stay what they are under noise that nobody sees? Max-sensitivity, beside what the noise does to the score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.attribution.map import AttributionMap
from caap_lab.checks import check_count, check_seed, check_share
from caap_lab.labels import counted
from caap_lab.metrics.changed_images import target_scores, value_name
from caap_lab.metrics.method_runs import MethodRuns, from_zero, rank_correlation
from caap_lab.models.base import KINDS, HookedModel, Images, check_kind
from caap_lab.models.running import runs_model
from caap_lab.models.targets import TargetLike
from caap_lab.statistics import over_present
from caap_lab.tables.frame import Frame
from caap_lab.variant import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTITY = "max-sensitivity: largest change of the map, as a share of its norm"
RADIUS = 0.02
"""Five of 255 levels."""
_SAID = 6
"""Methods that the repr has numbers of."""


@dataclass(frozen=True, eq=False, repr=False)
class SensitivityCheck(LabelledResult):
    """How much maps change under small noise. In Jupyter it is displayed as a plot.

    `data` has, with the axes image and method, `max_sensitivity`, the largest norm of the change of a map over the
    noisy copies, as a share of the map's own norm; `score_change`, how far that same copy moved the target's score; and
    `correlation`, the lowest rank correlation of a noisy copy's map with the photo's. NaN where a map is all zeros, or
    constant. With the axis image it has the target's `score` for the photo, and `max_score_change`, the largest change
    over all copies.
    """

    main: ClassVar[str] = "max_sensitivity"
    signed: ClassVar[bool] = False

    @property
    def mean(self) -> Float[np.ndarray, " method"]:
        """Mean over the images whose maps are not all zeros."""
        return over_present(self.per_image).mean

    @property
    def standard_error(self) -> Float[np.ndarray, " method"]:
        """Standard error of that mean (ddof 0)."""
        return over_present(self.per_image).standard_error

    def summary(self) -> pd.DataFrame:
        """One row per method, the least sensitive first.

        Columns: max_sensitivity with its standard_error, the lowest rank correlation and the score's change under the
        same noise (means over images), and n, the images that have a number.
        """
        columns = {
            "max_sensitivity": self.mean,
            "standard_error": self.standard_error,
            "correlation": over_present(self.data["correlation"].values).mean,
            "score_change": over_present(self.data["score_change"].values).mean,
            "n": np.isfinite(self.per_image).sum(axis=0),
        }
        index = pd.Index(self.axes["method"], name="method")
        return Frame(pd.DataFrame(columns, index=index).sort_values("max_sensitivity", kind="stable"))

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Max-sensitivity of each method, the lowest on top.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            **at: Of which method alone.
        """
        from caap_lab.plots.points import plot_points
        from caap_lab.plots.style import new_axes

        self._at(at)
        rows = self.summary().reset_index().rename(columns={"max_sensitivity": "mean", "standard_error": "se"})
        rows = rows if "method" not in at else rows[rows["method"] == at["method"]]
        return plot_points(
            pd.DataFrame(rows),
            "method",
            ax=new_axes(ax, 4.8, max(2.4, 0.22 * len(rows) + 1.2)),
            horizontal=True,
            label="largest change of the map, relative to its norm",
            title=f"{self.model_name}, {self._counted}, {self._noise}",
        )

    def __repr__(self) -> str:
        """Noise, images, and the number of each method."""
        said = [f"{name} {value:.2f}" for name, value in zip(self.axes["method"], self.mean, strict=True)]
        more = f" and {len(said) - _SAID} more" * (len(said) > _SAID)
        change, score = self.data["max_score_change"].values.mean(), self.data.attrs["score"]
        return (
            f"SensitivityCheck of {self.model_name}, {self._counted}, {self._noise}: max-sensitivity "
            f"{', '.join(said[:_SAID])}{more}; the target's {score} moves by {change:.2g} at most, on average"
        )

    @property
    def _noise(self) -> str:
        samples = self.data.attrs["samples"]
        return f"{counted(samples, 'draw')} of noise up to {self.data.attrs['radius']:.3g}"

    @property
    def _counted(self) -> str:
        return counted(self.n_images, "image")


@runs_model
def sensitivity_check(
    model: HookedModel,
    images: Images,
    methods: str | Variant | Sequence[str | Variant],
    target: TargetLike | Sequence[TargetLike] | None = None,
    *,
    radius: float = RADIUS,
    samples: int = 10,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> SensitivityCheck:
    """How much the maps of some methods change under noise too small to see.

    ```python
    found = cl.sensitivity_check(model, image, ["caap", "input_x_gradient"], samples=3)
    found.summary(), found.plot()
    ```

    Max-sensitivity (Yeh et al. 2019, arXiv 1901.09392, eq 4), estimated as they do by random draws: the largest
    ||map(x + noise) - map(x)|| over the draws, here as a share of ||map(x)||, so that methods with scores of different
    units compare. The noise of a pixel is uniform from -radius to radius in each channel, and what is explained stays
    the same: what the model predicts for the photo, if no target is given. A map that follows a score that has changed
    is no worse for it: so the change of the target's score under the same noise stands beside the map's.

    Scores whose level means nothing (CAAP's) are counted from the map's lowest one. Noise is added to the model's input
    without cutting it to the range of a photo.

    Args:
        model: The model.
        images: One image, or several.
        methods: Names as `cl.attribute` takes them, with options ("caap:cutoff=3") and a label ("mine=caap:cutoff=3").
        target: What is explained of the photo and its noisy copies; by default the model's prediction for the photo.
        radius: Largest change of a pixel's value, on the scale from 0 (black) to 1 (white).
        samples: Noisy copies of each image; more can only raise the number.
        seed: Of the noise, which is the same for all images and methods.
        batch_size: Images run at once; by default each method's own choice. It changes no result.
        progress: Show a progress bar.

    Returns:
        Numbers by image and method: 1 + samples maps of each method and image were made.

    Raises:
        InputError: something given does not fit, before anything runs.
    """
    check_kind(model, "sensitivity_check", tuple(KINDS))
    check_share("radius", radius, zero=False)
    check_count("samples", samples)
    check_seed(seed)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    runs = MethodRuns.of(model, images, methods, target)
    noise = pixel_noise(model, radius, samples, seed)
    numbers = {
        name: np.empty((len(runs), len(runs.methods))) for name in ("max_sensitivity", "score_change", "correlation")
    }
    per_image = {name: np.empty(len(runs)) for name in ("score", "max_score_change")}
    with tqdm(total=len(runs) * len(runs.methods), desc="noisy copies", disable=not progress) as bar:
        for image, photo in enumerate(runs.inputs):
            copies = torch.cat([photo[None], photo + noise.to(photo)])
            moved = _score_changes(runs, image, copies, per_image)
            for column, label in enumerate(runs.methods):
                given = [runs.given(image)] * len(copies)
                first, *others = runs.maps(model, label, list(copies), given, batch_size)
                changes = np.array([_change(first, other) for other in others])
                largest = int(np.argmax(changes))
                numbers["max_sensitivity"][image, column] = changes[largest]
                numbers["score_change"][image, column] = moved[largest]
                alike = [rank_correlation(first.scores, other.scores) for other in others]
                numbers["correlation"][image, column] = min(alike, key=lambda one: (not np.isnan(one), one))
                bar.update()
    data = labelled_dataset(
        {"method": list(runs.methods)},
        numbers,
        per_image=per_image,
        model=model.model_name,
        quantity=QUANTITY,
        target=runs.targets.name,
        radius=radius,
        samples=samples,
        seed=seed,
        score=value_name("prob", runs.targets[0]),
    )
    return SensitivityCheck(data)


def pixel_noise(model: HookedModel, radius: float, samples: int, seed: int) -> Float[Tensor, "sample 3 height width"]:
    """Noise in the model's input whose values lie within a radius on the scale of pixels, 0 to 1."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    shape = (3, *model.image_size)
    # One at a time: what a generator draws depends on how many numbers are asked for.
    drawn = [torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") for _ in range(samples)]
    std = torch.tensor(model.preprocessing.std, dtype=torch.float32, device="cpu").view(3, 1, 1)
    return (2 * torch.stack(drawn) - 1) * radius / std


def _change(a: AttributionMap, b: AttributionMap) -> float:
    """Norm of the difference of two maps, as a share of the first one's norm; NaN where that is 0."""
    before, after = from_zero(a), from_zero(b)
    norm = float(before.norm())
    return float((after - before).norm()) / norm if norm else float("nan")


@torch.no_grad()
def _score_changes(
    runs: MethodRuns, image: int, copies: Float[Tensor, "copy 3 height width"], per_image: dict[str, Any]
) -> Float[np.ndarray, " sample"]:
    """How far each noisy copy moves the target's score."""
    target = runs.targets[image]
    scores = torch.cat([target_scores(runs.model, one[None], [target], "prob") for one in copies]).numpy()
    moved = np.abs(scores[1:] - scores[0])
    per_image["score"][image], per_image["max_score_change"][image] = scores[0], moved.max()
    return moved
