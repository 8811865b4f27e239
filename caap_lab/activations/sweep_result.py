"""The result of a sweep over hook points: a metric of every image and cell, under its labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from caap_lab.errors import InputError
from caap_lab.labels import label_array
from caap_lab.statistics import standard_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXIS_LABELS = {"layer": "layer (block)"}


@dataclass(frozen=True, eq=False)
class SweepResult:
    """A metric for every image and cell, beside the unpatched runs. In Jupyter it shows itself as a plot."""

    data: xr.Dataset
    """`value` and `effect` with the axes image and those of the sweep, `baseline` with the axis image; coordinates are
    the labels, and the attributes say the `metric` and the `model`."""

    @classmethod
    def of(
        cls,
        axes: Mapping[str, Sequence[Any]],
        values: Float[np.ndarray, "image *axes"],
        baseline: Float[np.ndarray, " image"],
        *,
        metric: str,
        model_name: str,
    ) -> "SweepResult":
        """A result from its numbers.

        Args:
            axes: Axis name to its labels, in the order of the axes of `values`.
            values: The metric with the cell's patch.
            baseline: The metric of each image without any patch.
            metric: What the metric is.
            model_name: Of the model.
        """
        dims = ("image", *axes)
        effect = values - baseline.reshape(-1, *[1] * len(axes))
        return cls(
            xr.Dataset(
                {"baseline": ("image", baseline), "value": (dims, values), "effect": (dims, effect)},
                coords={"image": np.arange(len(baseline))} | {n: (n, label_array(a)) for n, a in axes.items()},
                attrs={"metric": metric, "model": model_name},
            )
        )

    @property
    def axes(self) -> dict[str, list[Any]]:
        """Axis name to its labels, in the order of the axes of `values`."""
        return {str(name): self.data[name].values.tolist() for name in self.data["value"].dims[1:]}

    @property
    def values(self) -> Float[np.ndarray, "image *axes"]:
        """The metric with the cell's patch."""
        return self.data["value"].values

    @property
    def baseline(self) -> Float[np.ndarray, " image"]:
        """The metric of each image without any patch."""
        return self.data["baseline"].values

    @property
    def effect(self) -> Float[np.ndarray, "image *axes"]:
        """Patched minus unpatched."""
        return self.data["effect"].values

    @property
    def metric(self) -> str:
        """What the metric is."""
        return str(self.data.attrs["metric"])

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self.data.attrs["model"])

    @property
    def mean(self) -> Float[np.ndarray, "*axes"]:
        """Mean effect over images."""
        return self.effect.mean(axis=0)

    @property
    def standard_error(self) -> Float[np.ndarray, "*axes"]:
        """Standard error of the mean effect over images (ddof 0); 0 for one image."""
        return np.asarray(standard_error(self.effect))

    def to_dataframe(self) -> pd.DataFrame:
        """One row per image and cell: model, image, the axes, baseline, value, effect."""
        labels = [self.data["image"].values, *self.axes.values()]
        index = pd.MultiIndex.from_product(labels, names=["image", *self.axes])
        frame = pd.DataFrame({"value": self.values.reshape(-1), "effect": self.effect.reshape(-1)}, index=index)
        frame = frame.reset_index()
        frame.insert(0, "model", self.model_name)
        frame.insert(frame.columns.get_loc("value"), "baseline", self.baseline[frame["image"]])
        return frame

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Mean effect over images: with standard errors over one axis, as a heat map over two.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            **at: Axis to a label, where there are more than two axes, or to look at one row of a heat map:
                `plot(head=3)`.

        Raises:
            InputError: there is no such label, or not one or two axes remain.
        """
        place = tuple(self._place(name, at) for name in self.axes) if self._known(at) else ()
        mean, error = self.mean[place], self.standard_error[place]
        axes = {name: labels for name, labels in self.axes.items() if name not in at}
        count = len(self.baseline)
        fixed = "".join(f", {name} {label}" for name, label in at.items())
        title = f"{self.model_name}, {count} image{'s' * (count != 1)}{fixed}"
        names = [_AXIS_LABELS.get(name, name) for name in axes]
        if len(axes) == 1:
            from caap_lab.plots.sweeps import plot_sweep

            (labels,) = axes.values()
            frame = pd.DataFrame({names[0]: pd.Series(labels), "mean": mean, "se": error})
            return plot_sweep(frame, names, ax, label=f"effect on {self.metric}", title=title)
        if len(axes) == 2:
            from caap_lab.plots.heat import plot_heat

            labelled = zip(names, axes.values(), strict=True)
            rows, cols = (pd.Index(label_array(labels), name=name) for name, labels in labelled)
            cells = pd.DataFrame(mean, index=rows, columns=cols)
            return plot_heat(cells, ax, label=f"mean effect on {self.metric}", signed=True, title=title)
        raise InputError(
            f"A plot shows one or two axes, not {len(axes)} ({', '.join(axes) or 'none'}). Give a label of each other "
            f"axis, such as plot({next(iter(self.axes))}={next(iter(self.axes.values()))[0]!r})."
        )

    def _known(self, at: Mapping[str, Any]) -> bool:
        for name in at:
            if name not in self.axes:
                raise InputError(f"There is no axis {name!r}; there are {', '.join(self.axes)}.")
        return True

    def _place(self, name: str, at: Mapping[str, Any]) -> int | slice:
        if name not in at:
            return slice(None)
        labels = self.axes[name]
        if at[name] not in labels:
            raise InputError(f"{name}={at[name]!r} was not swept; there are {', '.join(map(str, labels))}.")
        return labels.index(at[name])

    def __repr__(self) -> str:
        """Size and largest effect."""
        sizes = " x ".join(f"{len(labels)} {name}" for name, labels in self.axes.items())
        at = np.unravel_index(np.abs(self.mean).argmax(), self.mean.shape)
        where = ", ".join(f"{n}={labels[i]}" for (n, labels), i in zip(self.axes.items(), at, strict=True))
        return (
            f"SweepResult: {self.metric} of {self.model_name}, {len(self.baseline)} images x {sizes}; "
            f"largest mean effect {self.mean[at]:+.4g} at {where}"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        if len(self.axes) > 2:
            return {"text/plain": repr(self)}
        return {"text/plain": repr(self), "image/png": figure_png(cast("Figure", self.plot().figure))}
