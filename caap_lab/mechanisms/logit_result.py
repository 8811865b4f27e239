"""The result of a logit attribution."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from caap_lab.activations.labelled import LabelledResult
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 20
"""Number of parts in a plot of the largest."""


class Components(LabelledResult):
    """Parts by name, drawn from top to bottom."""

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Mean contribution of each part with its standard error; see `LabelledResult.plot`."""
        place = self._at(at)
        names = [str(name) for name in self.axes["component"]]
        frame = pd.DataFrame({"component": names, "mean": self.mean[place], "se": self.standard_error[place]})
        return _plot_parts(self, frame, "component", ax, at)


@dataclass(frozen=True, eq=False, repr=False)
class LogitAttribution(LabelledResult):
    """Contributions of a model's parts to a target's score. In Jupyter it is displayed as a picture.

    `data` has `value` with the axes image, then component, or layer and head (and token), or layer and neuron (and
    target), and each image's `score`. Its attributes record the `model`, `target`, `by`, and what was `frozen`.
    """

    rest: LabelledResult | None = field(kw_only=True)
    """The parts that are not on the layers' axes: embeddings, biases, the other outputs; None with by="component"."""
    n_prefix: int = field(kw_only=True)
    """Tokens before the patches."""
    grid: tuple[int, int] = field(kw_only=True)
    """Patches as (rows, columns)."""

    @property
    def by(self) -> str:
        """The kind of parts: "component", "head", "token" or "neuron"."""
        return str(self.data.attrs["by"])

    @property
    def score(self) -> Float[np.ndarray, "image *target"]:
        """The target's score, as the model computes it."""
        return self.data["score"].values

    @property
    def total(self) -> Float[np.ndarray, "image *target"]:
        """The sum of all parts, including the rest: equal to the score up to rounding."""
        behind = 1 if "target" in self.axes else 0
        over = tuple(range(1, self.per_image.ndim - behind))
        total = self.per_image.sum(axis=over, dtype=np.float64)
        return total if self.rest is None else total + self.rest.per_image.sum(axis=1, dtype=np.float64)

    def map(
        self, layer: int | None = None, head: int | None = None, *, target: str | None = None
    ) -> Float[np.ndarray, "image row col"]:
        """Contributions of patches as source tokens, on the image's grid; for by="token".

        Args:
            layer: The layer; None for the sum over all.
            head: The head; None for the sum over all.
            target: One of several targets.

        Raises:
            InputError: the parts are not by token, or there is no such label.
        """
        if self.by != "token":
            raise InputError(f'Only logit_attribution(..., by="token") has maps; these parts are by {self.by}.')
        given = {"layer": layer, "head": head, "target": target}
        at = {name: label for name, label in given.items() if label is not None}
        self._require_target(at)
        kept = self.data[self.main][(slice(None), *self._at(at))]
        over: list[Hashable] = [name for name in ("layer", "head") if name in kept.dims]
        shares = kept.sum(dim=over).values[:, self.n_prefix :]
        return shares.reshape(len(shares), *self.grid)

    def top(self, count: int = 10, **at: Any) -> pd.DataFrame:
        """The parts with the largest mean contribution by size, including the rest.

        Args:
            count: Number of parts.
            **at: Axis to a label: `top(target="cat")` if there are several targets, `top(layer=11)`.

        Returns:
            The labels as `part`, mean, standard_error, and the percentage of the mean score.
        """
        self._require_target(at)
        frame = self._summary(at)
        score = self.data["score"].sel({name: at[name] for name in ("target",) if name in at and "target" in self.axes})
        frame["percent_of_score"] = 100 * frame["mean"] / float(score.mean())
        order = frame["mean"].abs().sort_values(ascending=False, kind="stable").index[:count]
        return frame.loc[order].reset_index(drop=True)

    def to_dataframe(self, top: int | None = None) -> pd.DataFrame:
        """One row per image and part: model, image, the axes, `value`, and the image's `score`.

        Args:
            top: Only this many parts of each image (and target), the largest by size first.
        """
        frame = super().to_dataframe()
        if top is None:
            return frame
        groups = ["image", *["target"] * ("target" in self.axes)]
        ordered = frame.iloc[frame["value"].abs().argsort(kind="stable")[::-1]]
        return ordered.groupby(groups, sort=False).head(top).sort_values(groups, kind="stable").reset_index(drop=True)

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Mean over images: points by name, layer x head, a small map per head, or the largest neurons.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            **at: Axis to a label; needed for `target` if there are several.

        Raises:
            InputError: there is no such label, or the target is missing.
        """
        from caap_lab.plots.parts import plot_head_shares

        self._require_target(at)
        if self.by == "component":
            return Components.plot(cast(Components, self), ax, **at)
        if self.by == "head":
            return super().plot(ax, **at)
        if self.by == "neuron":
            frame = self._summary(at, rest=False)
            largest = frame.loc[frame["mean"].abs().sort_values(ascending=False).index[:_SHOWN]]
            return _plot_parts(self, largest, "neuron (largest)", ax, at)
        mean = self.mean[self._at({name: label for name, label in at.items() if name == "target"})]
        maps = mean[:, :, self.n_prefix :].reshape(*mean.shape[:2], *self.grid)
        images = counted(self.n_images, "image")
        label = self.quantity if self.n_images == 1 else f"mean {self.quantity}"
        return plot_head_shares(maps, ax, label=label, title=f"{self.model_name}, {images}:\n{self._said(at)}")

    def _heading(self, at: Mapping[str, Any]) -> str:
        return f"{super()._heading(at)}: {self._said(at)}"

    def _said(self, at: Mapping[str, Any]) -> str:
        return str(at.get("target", self.data.attrs["target"]))

    def _summary(self, at: dict[str, Any], rest: bool = True) -> pd.DataFrame:
        """Parts by name with mean and standard error."""
        frame = self._named(self, at)
        if rest and self.rest is not None and set(at) <= {"target"}:
            frame = pd.concat([frame, self._named(self.rest, at)], ignore_index=True)
        return frame

    def _named(self, result: LabelledResult, at: dict[str, Any]) -> pd.DataFrame:
        place = result._at(at)
        axes = {name: labels for name, labels in result.axes.items() if name not in at}
        labels = pd.MultiIndex.from_product(list(axes.values()))
        short = {"layer": "L", "head": "H", "token": "T", "neuron": "N", "component": ""}
        names = ["".join(f"{short[a]}{part}" for a, part in zip(axes, label, strict=True)) for label in labels]
        return Frame(
            {"part": names, "mean": result.mean[place].reshape(-1), "se": result.standard_error[place].reshape(-1)}
        )

    def _require_target(self, at: dict[str, Any]) -> None:
        if "target" in self.axes and "target" not in at:
            raise InputError(
                f"There are several targets ({', '.join(self.axes['target'])}); choose one with target=..."
            )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        at = {"target": self.axes["target"][0]} if "target" in self.axes else {}
        return {"text/plain": repr(self), "image/png": figure_png(cast(Any, self.plot(**at).figure))}


def _plot_parts(
    result: LabelledResult, frame: pd.DataFrame, category: str, ax: "Axes | None", at: dict[str, Any]
) -> "Axes":
    from caap_lab.plots.parts import plot_parts

    named = frame.rename(columns={frame.columns[0]: "part"})
    images = counted(result.n_images, "image")
    target = at.get("target", result.data.attrs["target"])
    label = result.quantity if result.n_images == 1 else f"mean {result.quantity}"
    return plot_parts(named, ax, label=label, category=category, title=f"{result.model_name}, {images}: {target}")
