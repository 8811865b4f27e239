"""The result of `caap_interactions`: a number for every pair of patches, as a matrix and as maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, UInt8
from torch import Tensor

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.engine.scores import target_score
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.mechanisms.pair_sets import PairSets
from caap_lab.mechanisms.patch_choice import Cell
from caap_lab.models.classes import ClassNames
from caap_lab.models.explained import resolved_target
from caap_lab.models.targets import Direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class KeptLogits:
    """Logits of all classes and runs, from which scores of other targets are computed."""

    logits: Float[Tensor, "image set columns"]
    class_names: ClassNames
    contrasts: bool
    """Whether a class means its contrast to the mean of all classes."""


@dataclass(frozen=True, eq=False, repr=False)
class CaapInteractions(LabelledResult):
    """Interactions of pairs of patches. In Jupyter: the matrix next to two maps.

    `data` has, with the axes image, patch and partner (both labelled (row, col)), and target if several were given:

    - `interaction`: f(S_i and S_j) - f(S_i) - f(S_j) + f(blank). Positive: the joint effect of the two is larger than
        the sum of their effects. Symmetric; 0 on the diagonal, where there is no second patch.
    - `beyond_overlap`: the same with f(the intersection of both neighbourhoods) instead of f(blank). Neighbours share
        patches, which the sum of two single effects counts twice; this removes the double counting, and is 0 for any
        additive model. Equal to `interaction` if the neighbourhoods do not overlap.
    - `single` (image, patch): f(S_i) - f(blank), the patch's score in CAAP's map.
    - `joint` (image): f(all chosen neighbourhoods together) - f(blank).
    - `shared` (patch, partner): how many patches the two neighbourhoods share.

    Attributes: model, target, CAAP's settings, `runs` per image, and their cost in `forward_passes` per image.
    """

    pixels: UInt8[np.ndarray, "image height width 3"] = field(kw_only=True)
    """The model's input as pixels."""
    grid: tuple[int, int] = field(kw_only=True)
    """Rows and columns of patches."""
    effects: Float[np.ndarray, "image row col *target"] = field(kw_only=True)
    """f(S_i) - f(blank) of all patches that were run; NaN for the others."""
    sets: PairSets = field(kw_only=True)
    """Index of the runs of each patch and pair."""
    kept: KeptLogits | None = field(kw_only=True)
    """None if they needed more than `max_memory`."""
    main: ClassVar[str] = "interaction"

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "image set target"],
        targets: Sequence[str] | None,
        *,
        sets: PairSets,
        patches: Sequence[Cell],
        grid: tuple[int, int],
        pixels: UInt8[np.ndarray, "image height width 3"],
        kept: KeptLogits | None,
        **attributes: Any,
    ) -> "CaapInteractions":
        """A result from the scores of all runs.

        Args:
            values: Scores of each target.
            targets: Names for an axis of targets; None for a single target, without an axis.
            sets: Index of the runs of each patch and pair.
            patches: The chosen patches.
            grid: Rows and columns of patches.
            pixels: The model's input as pixels.
            kept: Logits of the runs.
            **attributes: Model, target, settings and cost.
        """
        read = values[..., 0] if targets is None else values
        axes: dict[str, Sequence[Any]] = {"patch": list(patches), "partner": list(patches)}
        last = {} if targets is None else {"target": list(targets)}
        matrices = {"interaction": sets.interaction(read), "beyond_overlap": sets.beyond_overlap(read)}
        data = labelled_dataset(axes | last, matrices, **attributes)
        effects = read[:, sets.every] - read[:, [sets.blank]]
        effects[:, sets.every < 0] = np.nan
        data = data.assign(
            single=(("image", "patch", *last), sets.effects(read)),
            joint=(("image", *last), read[:, sets.joint] - read[:, sets.blank]),
            shared=(("patch", "partner"), sets.shared),
        )
        on_grid = effects.reshape(len(effects), *grid, *effects.shape[2:])
        return cls(data, pixels=pixels, grid=grid, effects=on_grid, sets=sets, kept=kept)

    @property
    def patches(self) -> list[Cell]:
        """The chosen patches as (row, col)."""
        return list(self.axes["patch"])

    def for_target(self, target: Any) -> "CaapInteractions":
        """The interactions for another target, from the same runs and for the same patches.

        Args:
            target: A class, a contrast or a function of the logits; or a mapping {"name": target, ...} of several.

        Raises:
            InputError: there is no such class, the logits were not stored, or the target is a direction, which needs a
                new run.
        """
        if self.kept is None:
            raise InputError(
                "The logits of all classes exceeded max_memory and were not stored; run caap_interactions again "
                f"with target={target!r}, or with a larger max_memory."
            )
        several = target if isinstance(target, Mapping) else {"": target}
        if not several or any(isinstance(one, Direction) for one in several.values()):
            raise InputError("A direction needs a new run: cl.caap_interactions(model, images, target=...).")
        kept, score = self.kept, str(self.data.attrs["score"])
        found = {
            name: resolved_target(one, kept.class_names, contrasts=kept.contrasts) for name, one in several.items()
        }
        values = [target_score(one, kept.logits.flatten(0, 1), score).double() for one in found.values()]
        stacked = np.stack([one.view(kept.logits.shape[:2]).numpy() for one in values], axis=-1)
        names = list(found) if isinstance(target, Mapping) else None
        name = ", ".join(map(str, found)) if names else found[""].name
        attributes = self.data.attrs | {"target": name, "quantity": quantity(score, name)}
        same = {"sets": self.sets, "patches": self.patches, "grid": self.grid, "pixels": self.pixels, "kept": kept}
        return CaapInteractions.of(stacked, names, **same, **attributes)  # type: ignore[arg-type]

    def partner_map(
        self, row: int, col: int, *, target: str | None = None, beyond_overlap: bool = False
    ) -> Float[np.ndarray, "row col"]:
        """The interactions of a patch with each other patch, as a map; the mean over images.

        NaN where a patch was not among the chosen ones, and at the patch itself.

        Args:
            row: Row of the patch, which has to be among the chosen ones.
            col: Column of the patch.
            target: One of several targets.
            beyond_overlap: Show `beyond_overlap` instead of `interaction`.
        """
        place = self._patch(row, col)
        table = self._matrix("beyond_overlap" if beyond_overlap else "interaction", target).mean(axis=0)
        found = self._on_grid(table[place])
        found[row, col] = np.nan
        return found

    def pair_map(self, *, target: str | None = None) -> Float[np.ndarray, "row col"]:
        """Half the sum of each patch's interactions with the other chosen patches, as a map; mean over images.

        Together with the single effect, this is the second-order Shapley value; NaN for patches that were not chosen.

        Args:
            target: One of several targets.
        """
        return self._on_grid(self._matrix("interaction", target).mean(axis=0).sum(axis=1) / 2)

    def shares(self) -> pd.DataFrame:
        """How far single effects and pairs explain the joint effect, one row per image and target.

        Columns: `joint`, the effect of all chosen neighbourhoods at once; `singles`, the sum of their single effects;
        `pairs`, the sum of all interactions; `rest` = joint - singles - pairs, which is due to groups of three and
        more; and `pair_share`, from 0 to 1: the part of the pairs in the patches' second-order Shapley values e_i +
        (sum of I_ij) / 2, by absolute size.
        """
        image = self.data["image"]
        single, pairs = self.data["single"], self.data["interaction"].sum("partner") / 2
        singles, both = single.sum("patch"), pairs.sum("patch")
        total = (abs(single) + abs(pairs)).sum("patch")
        found = xr.Dataset(
            {
                "joint": self.data["joint"],
                "singles": singles,
                "pairs": both,
                "rest": self.data["joint"] - singles - both,
                "pair_share": abs(pairs).sum("patch") / total.where(total > 0),
            },
            coords={"image": image},
        )
        return found.to_dataframe().reset_index()

    def strongest(self, count: int = 10) -> pd.DataFrame:
        """The pairs with the largest interactions by absolute size, each once, as means over images.

        Args:
            count: Number of pairs for each target.
        """
        frame = self.data[["interaction", "beyond_overlap", "shared"]].mean("image").to_dataframe().reset_index()
        frame = frame[[one < other for one, other in zip(frame["patch"], frame["partner"], strict=True)]]
        order = frame["interaction"].abs().sort_values(ascending=False, kind="stable").index
        frame = frame.loc[order]
        frame = frame.groupby("target", sort=False).head(count) if "target" in frame else frame.head(count)
        return frame.reset_index(drop=True)

    def plot_partners(
        self, row: int, col: int, ax: "Axes | None" = None, *, target: str | None = None, image: int = 0
    ) -> "Axes":
        """The partner map of a patch, which is marked by a frame, over an image.

        Args:
            row: Row of the patch.
            col: Column of the patch.
            ax: Axes to draw in; by default those of a new figure.
            target: One of several targets.
            image: The image below the map.
        """
        from caap_lab.plots.interactions import plot_partners

        scores = self.partner_map(row, col, target=target)
        return plot_partners(scores, self.pixels[image], (row, col), ax, label=self._label(target))

    def picture(self, row: int | None = None, col: int | None = None, *, target: str | None = None) -> "Figure":
        """The matrix next to two maps: the partners of one patch, and the sum over pairs of each patch.

        Args:
            row: Of the patch whose partners are shown; by default the patch with the largest single effect.
            col: Column of that patch.
            target: One of several targets; by default the first.
        """
        from caap_lab.plots.interactions import plot_interactions

        target = target if target is not None or "target" not in self.axes else str(self.axes["target"][0])
        if row is None or col is None:
            single = self._matrix("single", target).mean(axis=0)
            row, col = self.patches[int(single.argmax())]
        matrix = self._matrix("interaction", target).mean(axis=0)
        return plot_interactions(
            matrix,
            self.patches,
            self.partner_map(row, col, target=target),
            self.pair_map(target=target),
            self.pixels[0],
            (row, col),
            label=self._label(target),
            title=f"{self.model_name}, {self._counted}",
        )

    @property
    def _counted(self) -> str:
        return f"{counted(self.n_images, 'image')}, {self.data.attrs['runs']} runs per image"

    def _label(self, target: str | None) -> str:
        return self.quantity if target is None else quantity(str(self.data.attrs["score"]), target)

    def _matrix(self, name: str, target: str | None) -> np.ndarray:
        """A variable for one target, image first."""
        values = self.data[name].values
        targets = self.axes.get("target")
        if targets is None:
            if target is not None:
                raise InputError(f"These are interactions for {self.data.attrs['target']} only: omit target.")
            return values
        if target not in targets:
            raise InputError(f"target={target!r}: give one of {', '.join(map(repr, targets))}.")
        return values[..., targets.index(target)]

    def _patch(self, row: int, col: int) -> int:
        if (row, col) not in self.patches:
            some = ", ".join(map(str, self.patches[:6])) + (", ..." if len(self.patches) > 6 else "")
            raise InputError(f"Patch ({row}, {col}) is not among the chosen ones: {some}.")
        return self.patches.index((row, col))

    def _on_grid(self, values: Float[np.ndarray, " patch"]) -> Float[np.ndarray, "row col"]:
        found = np.full(self.grid, np.nan)
        for (row, col), value in zip(self.patches, values, strict=True):
            found[row, col] = value
        return found

    def __repr__(self) -> str:
        """Sizes, cost and the strongest pair."""
        top = self.strongest(1).iloc[0]
        return (
            f"CaapInteractions: {self.quantity} of {self.model_name}, {self._sizes}, {self.data.attrs['runs']} runs "
            f"per image ({self.data.attrs['forward_passes']:.3g} forward passes); strongest {top['interaction']:+.4g} "
            f"of {top['patch']} and {top['partner']}"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(self.picture())}


def quantity(score: str, target: str) -> str:
    """The quantity of an interaction."""
    return f"interaction ({score} of {target})"
