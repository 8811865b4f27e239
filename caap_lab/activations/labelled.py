"""Labelled results over images and cells: means, standard errors, intervals, comparisons, tables, plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from caap_lab.errors import InputError
from caap_lab.labels import counted, label_array
from caap_lab.statistics import bootstrap_interval, sign_flip_p, standard_error
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXIS_LABELS = {"layer": "layer (block)"}
_CHOICES = ("target", "point")
"""Axes for which a plot shows only one label if there are more than two axes."""
_LABEL_WIDTH = 44
"""Characters of an axis label that fit at the usual height."""


class Interval(NamedTuple):
    """Bounds of a confidence interval at every cell."""

    low: Float[np.ndarray, "*axes"]
    high: Float[np.ndarray, "*axes"]


@dataclass(frozen=True, eq=False, repr=False)
class LabelledResult:
    """A number for every image and cell, displayed in Jupyter as a plot if it has one or two axes."""

    data: xr.Dataset
    """Variables whose first axis is `image`; coordinates are the labels. Attributes: `model`, and `quantity`, which
    describes the main variable with its unit."""
    main: ClassVar[str] = "value"
    """The variable for means, tables and plots."""
    signed: ClassVar[bool] = True
    """Whether 0 is the middle of a heat map's colours."""
    counts: ClassVar[str] = "image"
    """What is counted along its first axis."""

    @property
    def axes(self) -> dict[str, list[Any]]:
        """Axis name to its labels, in the order of the axes of the main variable."""
        return {str(name): self.data[name].values.tolist() for name in self.data[self.main].dims[1:]}

    @property
    def n_images(self) -> int:
        """Number of images."""
        return self.data.sizes["image"]

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self.data.attrs["model"])

    @property
    def quantity(self) -> str:
        """Description of the main variable, with its unit."""
        return str(self.data.attrs["quantity"])

    @property
    def condition(self) -> str:
        """What was done to the model, for titles and texts; empty by default."""
        return ""

    @property
    def per_image(self) -> Float[np.ndarray, "image *axes"]:
        """The main variable."""
        return self.data[self.main].values

    @property
    def mean(self) -> Float[np.ndarray, "*axes"]:
        """Mean over images."""
        return self.per_image.mean(axis=0)

    @property
    def standard_error(self) -> Float[np.ndarray, "*axes"]:
        """Standard error of the mean over images (ddof 0); NaN for one image, which does not show it."""
        return np.asarray(standard_error(self.per_image))

    def interval(self, level: float = 0.95, *, samples: int = 2000, seed: int = 0) -> Interval:
        """Confidence interval of the mean at every cell, by the percentile bootstrap over images; NaN for one image.

        Args:
            level: Confidence level, between 0 and 1.
            samples: Number of bootstrap samples of the images.
            seed: Seed of the samples.
        """
        return Interval(*bootstrap_interval(self.per_image, level, samples=samples, seed=seed))

    def difference(
        self, other: "LabelledResult", *, level: float = 0.95, samples: int = 10_000, seed: int = 0
    ) -> pd.DataFrame:
        """A table of this result minus another condition on the same images, one row per cell.

        Args:
            other: A result with the same axes and labels, for the same images in the same order.
            level: Confidence level of the bootstrap interval.
            samples: Number of sign flips and of bootstrap samples. With up to 12 images all sign flips are used.
            seed: Seed of both.

        Returns:
            The labels, then mean `difference`, its `standard_error`, the interval from `low` to `high`, and `p`: the
            two-sided p-value of a paired permutation test (signs of the images' differences flipped).

        Raises:
            InputError: the two do not have the same images or cells.
        """
        if self.axes != other.axes or self.n_images != other.n_images:
            raise InputError(
                f"These results do not match: {self._sizes} and {other._sizes}. Compare results with the same labels "
                "for the same images."
            )
        paired = self.per_image - other.per_image
        low, high = bootstrap_interval(paired, level, samples=samples, seed=seed)
        frame = pd.DataFrame(index=self._cells()).reset_index()
        columns = {
            "difference": paired.mean(axis=0),
            "standard_error": np.asarray(standard_error(paired)),
            "low": low,
            "high": high,
            "p": sign_flip_p(paired, samples=samples, seed=seed),
        }
        return Frame(frame.assign(**{name: numbers.reshape(-1) for name, numbers in columns.items()}))

    def to_dataframe(self) -> pd.DataFrame:
        """One row per image and cell: model, image, the axes, and every variable."""
        variables = cast("Mapping[str, xr.DataArray]", self.data.data_vars)
        full = xr.Dataset({name: variable.broadcast_like(self.data[self.main]) for name, variable in variables.items()})
        labels = [self.data["image"].values, *self.axes.values()]
        index = pd.MultiIndex.from_product(labels, names=["image", *self.axes])
        dims = self.data[self.main].dims
        flat = {name: full[name].transpose(*dims).values.reshape(-1) for name in variables}
        frame = pd.DataFrame(flat, index=index).reset_index()
        frame.insert(0, "model", self.model_name)
        return Frame(frame)

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Axes with the mean over images: a curve with standard errors for one axis, a heat map for two.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            **at: Label per axis, to reduce more than two axes, or to plot one row of a heat map: `plot(head=3)`.

        Raises:
            InputError: there is no such label, or more than two axes or none remain.
        """
        place = self._at(at)
        mean, error = self.mean[place], self.standard_error[place]
        axes = {name: labels for name, labels in self.axes.items() if name not in at}
        title = self._heading(at)
        names = [_AXIS_LABELS.get(name, name) for name in axes]
        label = self.quantity if self.n_images == 1 else f"mean {self.quantity}"
        if len(axes) == 1:
            from caap_lab.plots.style import new_axes
            from caap_lab.plots.sweeps import plot_sweep
            from caap_lab.plots.wrapping import wrapped

            (labels,) = axes.values()
            table = self._table(labels, mean)
            if table is not None:
                from caap_lab.plots.heat import plot_heat

                ax = new_axes(ax, max(4.8, 0.27 * table.shape[1] + 1.6), max(3.2, 0.19 * len(table) + 1.2))
                return plot_heat(table, ax, label=label, title=title, **self._colours(table.to_numpy(float)))
            frame = pd.DataFrame({names[0]: pd.Series(labels), "mean": mean, "se": error})
            return plot_sweep(frame, names, ax, label=wrapped(self.quantity, _LABEL_WIDTH), title=title)
        if len(axes) == 2:
            from caap_lab.plots.heat import plot_heat

            labelled = zip(names, axes.values(), strict=True)
            rows, cols = (pd.Index(label_array(labels), name=name) for name, labels in labelled)
            cells = pd.DataFrame(mean, index=rows, columns=cols)
            return plot_heat(cells, ax, label=label, title=title, **self._colours(mean))
        raise InputError(
            f"A plot shows one or two axes, not {len(axes)} ({', '.join(axes) or 'none'}). Give a label of each other "
            f"axis, such as plot({next(iter(self.axes))}={next(iter(self.axes.values()))[0]!r})."
        )

    def _heading(self, at: Mapping[str, Any]) -> str:
        """Title of a plot with these labels."""
        fixed = "".join(f", {name} {label}" for name, label in at.items())
        title = f"{self.model_name}, {counted(self.n_images, self.counts)}{fixed}"
        return title + f"\n{self.condition}" * bool(self.condition)

    def _table(self, labels: Sequence[Any], values: Float[np.ndarray, " label"]) -> pd.DataFrame | None:
        """Numbers along one axis as a table, for a heat map instead of a curve; None for a curve."""
        return None

    def _colours(self, mean: Float[np.ndarray, "row col"]) -> dict[str, Any]:
        """Options of `plot_heat` for the colours of a heat map."""
        return {"signed": self.signed}

    def _at(self, at: Mapping[str, Any]) -> tuple[int | slice, ...]:
        """Index of the cells with some labels."""
        for name in at:
            if name not in self.axes:
                raise InputError(f"There is no axis {name!r}; there are {', '.join(self.axes)}.")
        return tuple(self._place(name, at) for name in self.axes)

    def _place(self, name: str, at: Mapping[str, Any]) -> int | slice:
        if name not in at:
            return slice(None)
        labels = self.axes[name]
        if at[name] not in labels:
            raise InputError(f"{name}={at[name]!r} is not here; there are {', '.join(map(str, labels))}.")
        return labels.index(at[name])

    def _cells(self) -> pd.Index:
        return pd.MultiIndex.from_product(list(self.axes.values()), names=list(self.axes))

    @property
    def _sizes(self) -> str:
        sizes = {"image": self.n_images, **{name: len(labels) for name, labels in self.axes.items()}}
        return " x ".join(f"{count} {name if count == 1 else _several(name)}" for name, count in sizes.items())

    def __repr__(self) -> str:
        """Size and largest mean."""
        condition = f", {self.condition}" * bool(self.condition)
        return (
            f"{type(self).__name__}: {self.quantity} of {self.model_name}{condition}, {self._sizes}; {self._largest()}"
        )

    def _largest(self) -> str:
        if np.isnan(self.mean).all():
            return "no mean, because every cell has an image without a number"
        at = np.unravel_index(np.nanargmax(np.abs(self.mean)), self.mean.shape)
        where = ", ".join(f"{n}={labels[i]}" for (n, labels), i in zip(self.axes.items(), at, strict=True))
        return f"largest mean {self.mean[at]:+.4g} at {where}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        names = sorted(reversed(self.axes), key=lambda name: name not in _CHOICES)
        first = {name: self.axes[name][0] for name in names[: max(0, len(names) - 2)]}  # shown in the title
        picture = cast("Figure", self.plot(**first).figure)
        return {"text/plain": repr(self), "image/png": figure_png(picture)}


def _several(name: str) -> str:
    if name.endswith("s") and not name.endswith("ss"):
        return name  # an axis of sets, such as "tokens", or one that a sweep names in the plural
    return name + ("es" if name.endswith(("ss", "ch")) else "s")


def labelled_dataset(
    axes: Mapping[str, Sequence[Any]],
    values: Mapping[str, Float[np.ndarray, "image *axes"]],
    *,
    per_image: Mapping[str, Float[np.ndarray, " image"]] | None = None,
    **attributes: Any,
) -> xr.Dataset:
    """The data of a `LabelledResult`.

    Args:
        axes: Labels by axis name, in the order of the axes of the values.
        values: Variables with all axes.
        per_image: Variables with only the axis image.
        **attributes: `model` and `quantity`, and any other information about the numbers.
    """
    dims = ("image", *axes)
    count = len(next(iter(values.values())))
    return xr.Dataset(
        {name: ("image", numbers) for name, numbers in (per_image or {}).items()}
        | {name: (dims, numbers) for name, numbers in values.items()},
        coords={"image": np.arange(count)} | {n: (n, label_array(labels)) for n, labels in axes.items()},
        attrs=attributes,
    )
