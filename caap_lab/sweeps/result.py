"""The result of a sweep: maps and metrics of every image and setting, with labels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.bench.map_rows import row_to_map
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.metrics.catalogue import metric_column, parse_metric
from caap_lab.metrics.metric import MetricColumn
from caap_lab.models.vit import HookedViT
from caap_lab.statistics import paired_statistics
from caap_lab.sweeps.dataset import dataset_to_rows
from caap_lab.sweeps.sweep_settings import Label
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class CaapSweep:
    """CAAP over images x settings. In Jupyter it is displayed as a plot.

    ```python
    sweep = cl.sweep_cutoffs(model, images, cutoffs=[2, 5])
    sweep.plot(), sweep.summary(), sweep.map(0, 5)
    ```
    """

    data: xr.Dataset = field(repr=False)
    """Every column of the benchmark's rows with the axes image and setting: metrics, `target`, `error` and so on.

    Maps are `scores` with row and col, curves have step. The axis of settings has their name, such as "cutoff"; it is
    "setting" with the levels start and cutoff if labels are pairs.
    """
    default: Label | None
    """The default setting of `caap`, if it is among them."""
    metrics: tuple[str, ...]
    """Metrics that were computed, by name."""
    passes: float
    """Cost of the maps of an image in forward passes: tokens x blocks, without metrics and the runs on the blanks."""
    model: HookedViT = field(repr=False)
    readers: tuple[Callable[[], Float[Tensor, "1 3 height width"]], ...] = field(repr=False)
    """Each image as the model's input."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of a setting's label: one name, such as "cutoff", or "start" and "cutoff"."""
        return tuple(str(name) for name in self._settings.names)

    @property
    def labels(self) -> tuple[Label, ...]:
        """Labels of the settings; pairs if there are two axes."""
        return tuple(self._settings.tolist())

    @property
    def images(self) -> tuple[str, ...]:
        """Names; for images that are not a data set, they end in a hash of the content."""
        return tuple(self.data["image"].values.tolist())

    @property
    def rows(self) -> pd.DataFrame:
        """Rows as benchmarks store them: for each image, one row per setting."""
        return dataset_to_rows(self.data)

    @property
    def _settings(self) -> pd.Index:
        return self.data.indexes[self.data["scores"].dims[1]]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metrics of this sweep."""
        return tuple(column.name for column in self._columns)

    @property
    def _columns(self) -> tuple[MetricColumn, ...]:
        return tuple(column for text in self.metrics for column in parse_metric(text)[0].columns)

    def values(self, metric: str) -> Float[np.ndarray, "image setting"]:
        """A metric of every image and setting; NaN if it failed.

        Raises:
            InputError: the metric was not computed.
        """
        if metric not in self.metric_names:
            known = ", ".join(self.metric_names) or "none, because it was computed with metrics=()"
            raise InputError(f"This sweep has no metric {metric!r}; it has {known}.")
        return self.data[metric].values.astype(float)

    @property
    def maps(self) -> Float[np.ndarray, "image setting row col"]:
        """Scores of every image and setting; NaN if it failed."""
        return self.data["scores"].values

    def map(self, image: int, label: Label) -> AttributionMap:
        """One map as `caap` returns it, displayed over its image; without the scores of other classes.

        Raises:
            InputError: there is no such image or setting, or its map failed.
        """
        if label not in self.labels or not 0 <= image < len(self.images):
            labels = ", ".join(map(str, self.labels))
            raise InputError(f"No map of image {image} at {label!r}: images 0 to {len(self.images) - 1}, at {labels}.")
        place = {"image": [image], str(self.data["scores"].dims[1]): [self.labels.index(label)]}
        row = dataset_to_rows(self.data.isel(place)).iloc[0]
        if row["scores"] is None:
            raise InputError(f"This map failed: {row['error']}")
        return row_to_map(row, self.model, self.readers[image]()[0])

    def to_dataframe(self) -> pd.DataFrame:
        """One row per image and setting: image, the axes, class, metrics, settings, map; no empty columns."""
        head = pd.DataFrame(
            [
                (image, *(label if isinstance(label, tuple) else (label,)))
                for image in self.images
                for label in self.labels
            ],
            columns=["image", *self.axes],
        )
        rest = self.rows.drop(columns=["model", "method", "data", "image"]).dropna(axis=1, how="all")
        return Frame(pd.concat([head, rest], axis=1))

    @property
    def failed(self) -> pd.DataFrame:
        """Failed trials: image, the axes, error."""
        error = self.rows["error"]
        frame = self.to_dataframe()[["image", *self.axes]].assign(error=error)
        return frame[error.notna()].reset_index(drop=True)

    def summary(self) -> pd.DataFrame:
        """Mean over images and standard error (ddof 0) of every metric in its unit, and the paired difference.

        Columns: the axes, metric, n (images), mean, se; difference, difference_se and difference_n compare with the
        default setting, over the images that both have.
        """
        lines = []
        for column in self._columns:
            values = self.values(column.name)
            for index, label in enumerate(self.labels):
                reference = None
                if self.default is not None and label != self.default:
                    reference = values[:, self.labels.index(self.default)]
                place = label if isinstance(label, tuple) else (label,)
                named = {**dict(zip(self.axes, place, strict=True)), "metric": column.name}
                lines.append({**named, **paired_statistics(values[:, index], reference, column.factor)})
        columns = [*self.axes, "metric", "n", "mean", "se", "difference", "difference_se", "difference_n"]
        found = Frame(pd.DataFrame(lines).reindex(columns=columns))
        return found.saying(difference="default") if self.default in self.labels else found

    def rank_correlation(self) -> pd.DataFrame:
        """Spearman correlation of the maps of any two settings, mean over images; NaN with constant maps.

        An image counts for a pair only if neither of its two maps is constant or failed.
        """
        maps = self.maps.reshape(len(self.images), len(self.labels), -1).astype(float)
        ranks = rankdata(maps, axis=-1)
        ranks -= ranks.mean(axis=-1, keepdims=True)
        length = np.sqrt((ranks**2).sum(axis=-1, keepdims=True))
        ranks = np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)
        pairs = np.einsum("isp,itp->ist", ranks, ranks)
        count = (~np.isnan(pairs)).sum(axis=0)
        mean = np.divide(np.nansum(pairs, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)
        return Frame(mean, index=self._settings, columns=self._settings)

    def plot(self, ax: "Axes | None" = None, metric: str = "insdel") -> "Axes":
        """Means over images: a line with its standard error over cutoffs, points over names, a heat map over ranges.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            metric: One of `metric_names`.

        Raises:
            InputError: the metric was not computed.
        """
        from caap_lab.plots.sweeps import plot_sweep

        self.values(metric)  # its message lists the metrics if there is no such metric
        summary = self.summary()
        count = counted(len(self.images), "image")
        column = metric_column(metric)
        return plot_sweep(
            summary[summary["metric"] == metric],
            self.axes,
            ax,
            default=self.default,
            label=column.title_with_unit,
            title=f"{self.model.model_name}, {count}, {column.better} is better",
        )

    def __repr__(self) -> str:
        """Size, cost and failures."""
        n_failed = int(self.data["error"].notnull().sum())
        failed = f"; {n_failed} failed, see .failed" if n_failed else ""
        images = counted(len(self.images), "image")
        return (
            f"CaapSweep: {images} x {len(self.labels)} settings of {' and '.join(self.axes)}, "
            f"{self.model.model_name}; an image's maps cost {self.passes:.1f} forward passes{failed}"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        if not self.metrics:
            return {"text/plain": repr(self)}
        metric = "insdel" if "insdel" in self.metric_names else self.metric_names[0]
        figure = cast("Figure", self.plot(metric=metric).figure)
        return {"text/plain": repr(self), "image/png": figure_png(figure)}
