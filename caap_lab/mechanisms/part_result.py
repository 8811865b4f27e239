"""The result of `caap_by_head` and `caap_by_block`: one map per part of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, UInt8

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.statistics import standard_error
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class CaapParts(LabelledResult):
    """The effect of each patch through each single part of a model. In Jupyter: a small map per part.

    `data` has `effect`, the target's score minus that on the blank, with the axes image, layer, head (or `heads`, for
    groups of them), patch (labelled (row, col)), and target if several were given; and the score on the blank,
    `baseline`. Attributes: model, target, what was inserted (`part`, `points`), neighbourhood, blank, `runs` per image
    and forward `passes` of all images.
    """

    grid: tuple[int, int] = field(kw_only=True)
    """Rows and columns of patches."""
    pixels: UInt8[np.ndarray, "image height width 3"] = field(kw_only=True)
    """The model's input as pixels."""
    main: ClassVar[str] = "effect"

    @classmethod
    def of(
        cls,
        axes: Mapping[str, Sequence[Any]],
        values: Float[np.ndarray, "image run target"],
        baseline: Float[np.ndarray, "image target"],
        targets: Sequence[str] | None,
        *,
        grid: tuple[int, int],
        pixels: UInt8[np.ndarray, "image height width 3"],
        **attributes: Any,
    ) -> "CaapParts":
        """A result from the scores of its runs.

        Args:
            axes: Axis name to its labels, the patches last.
            values: Scores, in the order of the axes.
            baseline: Scores on the blank.
            targets: Names for an axis of targets; None for a single target, without an axis.
            grid: Rows and columns of patches.
            pixels: The model's input as pixels.
            **attributes: Model, target, settings and cost.
        """
        effect = values - baseline[:, None]
        shape = (len(values), *(len(labels) for labels in axes.values()))
        last = {} if targets is None else {"target": list(targets)}
        quantity = f"effect on the logit of {attributes['target']}"
        numbers = effect.reshape(*shape, -1) if last else effect[..., 0].reshape(shape)
        data = labelled_dataset({**axes, **last}, {"effect": numbers}, quantity=quantity, **attributes)
        return cls(
            data.assign(baseline=(("image", *last), baseline if last else baseline[:, 0])), grid=grid, pixels=pixels
        )

    @property
    def maps(self) -> xr.DataArray:
        """The effects with the axes row and col instead of patch; NaN for patches that were not run."""
        effect = self.data["effect"].transpose(..., "patch")
        found = np.full((*effect.shape[:-1], *self.grid), np.nan)
        rows, cols = zip(*self.axes["patch"], strict=True)
        found[..., list(rows), list(cols)] = effect.values
        dims = (*effect.dims[:-1], "row", "col")
        return xr.DataArray(found, coords={name: effect[name] for name in effect.dims[:-1]}, dims=dims)

    def by_layer(self, patch: tuple[int, int] | None = None, *, target: str | None = None) -> pd.DataFrame:
        """The effect of one patch, or of the patches, through each layer: the sum over its heads and the patches.

        Patches with overlapping neighbourhoods count shared patches several times, and effects through two heads need
        not add up; `interaction_check` asks the same question for maps.

        Args:
            patch: One patch (row, col); None for the mean over patches.
            target: One of several targets.

        Returns:
            One row per layer (or group of heads): its label, `mean` over images and `se`.

        Raises:
            InputError: there is no such patch or target.
        """
        effect = self._one(target)
        if patch is None:
            effect = effect.mean("patch")
        else:
            cells = self.axes["patch"]
            if tuple(patch) not in cells:
                raise InputError(f"Patch {tuple(patch)} was not run; there are {', '.join(map(str, cells[:6]))}, ...")
            effect = effect.isel(patch=cells.index(tuple(patch)))
        if "head" in effect.dims:
            effect = effect.sum("head")
        (axis,) = effect.dims[1:]
        values = effect.values
        columns = {str(axis): effect[axis].values, "mean": values.mean(axis=0), "se": standard_error(values)}
        return Frame(columns)

    def plot_layers(
        self, patch: tuple[int, int] | None = None, ax: "Axes | None" = None, *, target: str | None = None
    ) -> "Axes":
        """A bar per layer; see `by_layer`.

        Args:
            patch: One patch (row, col); None for the mean over patches.
            ax: Axes to draw in; by default those of a new figure.
            target: One of several targets.
        """
        from caap_lab.plots.parts import plot_parts

        frame = self.by_layer(patch, target=target)
        axis = str(frame.columns[0])
        where = "mean over patches" if patch is None else f"patch {tuple(patch)}"
        heads = ", sum over heads" if "head" in self.axes else ""
        return plot_parts(
            frame.rename(columns={axis: "part"}),
            ax,
            label=self._label(target),
            category="layer (block)" if axis == "layer" else axis,
            title=f"{self.model_name}, {self._counted}: {self.data.attrs['part']}\n{where}{heads}",
        )

    def plot_maps(self, ax: "Axes | None" = None, *, target: str | None = None) -> "Axes":
        """A small map per part, as means over images, all on one scale: layers by heads, or layers only.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            target: One of several targets.
        """
        from caap_lab.plots.part_maps import plot_part_maps

        maps = self.maps if target is None and "target" not in self.axes else self._chosen(self.maps, target)
        values = maps.transpose("image", ..., "row", "col").mean("image").values
        first, *_ = self.axes
        across = self.axes.get("head")
        return plot_part_maps(
            values if across is not None else values[:, None],
            ax,
            rows=self.axes[first],
            cols=across,
            row_label="layer (block)" if first == "layer" else first,
            label=self._label(target),
            title=f"{self.model_name}, {self._counted}\n{self.data.attrs['part']}",
        )

    @property
    def _counted(self) -> str:
        return counted(self.n_images, "image")

    def _label(self, target: str | None) -> str:
        return self.quantity if target is None else f"effect on the logit of {target}"

    def _one(self, target: str | None) -> xr.DataArray:
        """The effects for one target."""
        return self._chosen(self.data["effect"], target)

    def _chosen(self, values: xr.DataArray, target: str | None) -> xr.DataArray:
        targets = self.axes.get("target")
        if targets is None:
            if target is not None:
                raise InputError(f"These are effects on {self.data.attrs['target']} only: omit target.")
            return values
        if target not in targets:
            raise InputError(f"target={target!r}: give one of {', '.join(map(repr, targets))}.")
        return values.isel(target=targets.index(target))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from typing import cast

        from matplotlib.figure import Figure

        from caap_lab.plots.style import figure_png

        target = self.axes["target"][0] if "target" in self.axes else None
        return {"text/plain": repr(self), "image/png": figure_png(cast(Figure, self.plot_maps(target=target).figure))}
