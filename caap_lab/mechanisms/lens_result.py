"""The result of a logit lens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.models.classes import ClassNames
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class LogitLens(LabelledResult):
    """Class scores of each token after each block. In Jupyter it is displayed as a small map per layer.

    `data` has `value` (logits) with the axes image, layer, token, and class, or target if several targets were given;
    with targets also `rank`, the rank of a target's class among all classes: 1 is the highest, NaN means that the
    target is not a class. If one target was given for all images, or one per image, `target` has their names.
    """

    leading: tuple[Int[np.ndarray, "image layer token place"], Float[np.ndarray, "image layer token place"]] = field(
        kw_only=True
    )
    """Classes with the highest logits, and these logits."""
    columns: tuple[int, ...] = field(kw_only=True)
    """Indices of the classes on the axis `class`; none if targets were given."""
    class_names: ClassNames = field(kw_only=True)
    """Names of the model's classes."""
    n_prefix: int = field(kw_only=True)
    """Tokens before the patches."""
    grid: tuple[int, int] = field(kw_only=True)
    """Patches as (rows, columns)."""

    def top(self, count: int = 5, *, layer: int | None = None, token: int | None = None) -> pd.DataFrame:
        """The classes with the highest logits for each token, at most 10.

        Args:
            count: Number of classes.
            layer: Only this layer; None for all.
            token: Only this token; None for all.

        Returns:
            One row per image, layer, token and `place` (1 for the highest): the `class` name and its `logit`.
        """
        known = self.leading[0].shape[-1]
        if not 1 <= count <= known:
            raise InputError(f"The {known} highest classes were stored; count={count} must be from 1 to {known}.")
        at = {name: label for name, label in {"layer": layer, "token": token}.items() if label is not None}
        place = self._at(at)[:2]
        axes = {name: [at[name]] if name in at else self.axes[name] for name in ("layer", "token")}
        images = self.data["image"].values
        index = pd.MultiIndex.from_product(
            [images, *axes.values(), range(1, count + 1)], names=["image", "layer", "token", "place"]
        )
        indices, logits = (part[(slice(None), *place)][..., :count].reshape(-1) for part in self.leading)
        names = [self.class_names.name(int(number)) for number in indices]
        return Frame({"class": names, "logit": logits}, index=index).reset_index()

    def rank(self, target: int | str | None = None) -> LabelledResult:
        """Rank of a class among all [image, layer, token], 1 for the highest logit.

        Args:
            target: A class, if all were stored; one of the targets, if several were given; otherwise omit it.

        Raises:
            InputError: there is no such class or target, or not all classes were stored.
        """
        if "class" not in self.axes:
            kept = self.data["rank"]
            name = self._target(target)
            ranks = kept.values if name is None else kept.sel(target=name).values
            said = self.data.attrs["target"] if name is None else name
            if np.isnan(ranks).any():
                raise InputError(f"{said} is not a class, so it has no rank.")
        else:
            if len(self.columns) < len(self.class_names):
                raise InputError("Not all classes were stored, so there is no rank; use logit_lens(..., target=...).")
            column = self._column(target)
            own = self.per_image[..., column : column + 1]
            ranks = (self.per_image > own).sum(axis=-1) + 1
            said = self.axes["class"][column]
        axes = {name: self.axes[name] for name in ("layer", "token")}
        quantity = f"rank of {said} (1: highest)"
        attributes: dict[str, Any] = {"model": self.model_name, "quantity": quantity, "target": said}
        return Ranks(labelled_dataset(axes, {"value": ranks.astype(float)}, **attributes))

    def map(self, layer: int, target: int | str | None = None) -> Float[np.ndarray, "image row col"]:
        """Scores of a class or target for each patch after a block, on the image's grid.

        Args:
            layer: The block.
            target: A class; if targets were given, one of them, omitted if there is only one.

        Raises:
            InputError: not all patches were read, or there is no such layer, class or target.
        """
        scores = self._scores(target)[:, cast(int, self._place("layer", {"layer": layer}))]
        return scores[:, self._patches()].reshape(len(scores), *self.grid)

    def correlation(
        self, maps: "AttributionMap | Float[Tensor | np.ndarray, 'row col'] | Sequence[Any]", target: Any = None
    ) -> LabelledResult:
        """Spearman's rank correlation of each layer's map with another map, such as CAAP's, [image, layer].

        Args:
            maps: One map per image, in order.
            target: As for `map`; by default the target of an `AttributionMap`, if all classes were stored.

        Raises:
            InputError: the number of maps is not that of the images, or their grid is different.
        """
        if isinstance(maps, AttributionMap) or (isinstance(maps, (Tensor, np.ndarray)) and maps.ndim == 2):
            each = [maps]
        else:
            each = list(maps)
        if len(each) != self.n_images:
            raise InputError(f"{len(each)} maps were given for {self.n_images} images; give one per image.")
        rows = []
        for image, given in enumerate(each):
            named = target
            if target is None and "class" in self.axes and isinstance(given, AttributionMap):
                named = given.target
            scores = given.scores if isinstance(given, AttributionMap) else given
            scores = scores.double().cpu().numpy() if isinstance(scores, Tensor) else np.asarray(scores, float)
            if scores.shape != self.grid:
                raise InputError(f"A map has shape {list(scores.shape)}, but the model's grid is {list(self.grid)}.")
            of_image = self._scores(named)[image][:, self._patches()]
            other = rankdata(scores.reshape(-1))
            rows.append([_pearson(rankdata(layer), other) for layer in of_image])
        quantity = "Spearman correlation of the lens's map with the given map"
        return LabelledResult(
            labelled_dataset(
                {"layer": self.axes["layer"]}, {"value": np.array(rows)}, model=self.model_name, quantity=quantity
            )
        )

    def plot(
        self, ax: "Axes | None" = None, *, target: int | str | None = None, image: int | None = None, **at: Any
    ) -> "Axes":
        """A small map per layer; for a single token (`token=0`) or if not all patches were read, a line or heat map.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            target: As for `map`. By default the first target; if classes were stored, the highest class of the class
                token of the image, or of the first one, after the last layer (without a class token: of the mean over
                its tokens).
            image: Which image; None for the mean over all.
            **at: Axis to a label, as for `LabelledResult.plot`.

        Raises:
            InputError: there is no such class, target, image or label.
        """
        from caap_lab.plots.lens_maps import plot_lens_maps

        if image is not None and not 0 <= image < self.n_images:
            raise InputError(f"There is no image {image}; there are {self.n_images}, counted from 0.")
        target = self._shown(image or 0) if target is None else target
        name = self.data.attrs["target"] if target is None else self._named(target)
        scores = self._scores(target)
        if image is not None:
            scores = scores[image : image + 1]
            if not {"class", "target"} & set(self.axes):
                name = str(self.data["target"].values[image])  # each image may have its own
        axes = {"layer": self.axes["layer"], "token": self.axes["token"]}
        if at or not self._has_patches():
            quantity = f"lens: score of {name} (logits)"
            part = LabelledResult(labelled_dataset(axes, {"value": scores}, model=self.model_name, quantity=quantity))
            if len(axes["token"]) == 1:
                at = {"token": axes["token"][0], **at}
            return part.plot(ax, **at)
        maps = scores.mean(axis=0)[:, self._patches()].reshape(-1, *self.grid)
        said = f"image {image}" if image is not None else counted(self.n_images, "image")
        return plot_lens_maps(
            maps,
            ax,
            names=axes["layer"],
            label="logits",
            signed=bool(self.data.attrs["differences"]),
            title=f"{self.model_name}, {said}: lens on {name}",
        )

    def _shown(self, image: int) -> str | int | None:
        """The default target of a plot; where classes were stored, the class that this image is predicted as."""
        if "target" in self.axes:
            return self.axes["target"][0]
        if "class" not in self.axes:
            return None
        places = slice(0, 1) if self.n_prefix and self.axes["token"][0] == 0 else slice(None)
        return self.axes["class"][int(self.per_image[image, -1, places].mean(axis=0).argmax())]

    def _scores(self, target: Any) -> Float[np.ndarray, "image layer token"]:
        if "class" in self.axes:
            return self.per_image[..., self._column(target)]
        name = self._target(target)
        return self.per_image if name is None else self.data[self.main].sel(target=name).values

    def _column(self, target: Any) -> int:
        if target is None:
            raise InputError("All classes were stored; choose one by index or name.")
        index = self.class_names.find(target)
        if index not in self.columns:
            raise InputError(f"{self.class_names.name(index)} is not among the stored classes.")
        return self.columns.index(index)

    def _target(self, target: Any) -> str | None:
        """The label of one of several targets; None for the only one."""
        if "target" not in self.axes:
            if target not in (None, self.data.attrs["target"]):
                raise InputError(f"Only {self.data.attrs['target']} was stored; omit target.")
            return None
        if target not in self.axes["target"]:
            raise InputError(f"Choose a target: {', '.join(self.axes['target'])}.")
        return target

    def _named(self, target: Any) -> str:
        return self.axes["class"][self._column(target)] if "class" in self.axes else str(target)

    def _has_patches(self) -> bool:
        patches = range(self.n_prefix, self.n_prefix + self.grid[0] * self.grid[1])
        return set(patches) <= set(self.axes["token"])

    def _patches(self) -> list[int]:
        """Places of the patches on the axis `token`, row by row."""
        if not self._has_patches():
            raise InputError("Not all patches were read, so there is no map; omit tokens in logit_lens.")
        places = {token: place for place, token in enumerate(self.axes["token"])}
        return [places[self.n_prefix + patch] for patch in range(self.grid[0] * self.grid[1])]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(cast(Any, self.plot().figure))}


class Ranks(LabelledResult):
    """Ranks, which have no sign."""

    signed = False


def _pearson(one: Float[np.ndarray, " place"], other: Float[np.ndarray, " place"]) -> float:
    """Correlation; NaN if one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / size) if size > 0 else float("nan")
