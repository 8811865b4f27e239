"""The result of a sweep over hook points: a metric for every image and cell, with labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.activations.token_maps import Ground, plot_token_maps, shows_tokens
from caap_lab.labels import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(LabelledResult):
    """A metric for every image and cell, and for the unpatched runs; displayed in Jupyter as a plot.

    ```python
    result = cl.ablate_heads(model, images, replacement="zero")    # or cl.sweep(...)
    result.mean, result.plot(), result.to_dataframe()
    ```

    `data` has `value` and `effect` with the axes image and those of the sweep, and `baseline` with the axis image; its
    attributes are `metric` and `model`.
    """

    main: ClassVar[str] = "effect"
    ground: Ground | None = field(default=None, kw_only=True)
    """The grid of the tokens, with which effects over the axes layer and token are plotted as maps."""

    @classmethod
    def of(
        cls,
        axes: Mapping[str, Sequence[Any]],
        values: Float[np.ndarray, "image *axes"],
        baseline: Float[np.ndarray, " image"] | Float[np.ndarray, "image target"],
        *,
        metric: str,
        model_name: str,
        ground: Ground | None = None,
    ) -> "SweepResult":
        """A result from its numbers.

        Args:
            axes: Labels by axis name, in the order of the axes of `values`.
            values: The metric with the cell's patch.
            baseline: The metric of each image without any patch; with a last axis if the last of `axes` is "target".
            metric: Description of the metric.
            model_name: Name of the model.
            ground: See the field.
        """
        own = baseline.shape[1:]
        effect = values - baseline.reshape(-1, *[1] * (len(axes) - len(own)), *own)
        data = labelled_dataset(axes, {"value": values, "effect": effect}, metric=metric, model=model_name)
        dims = ("image", "target") if own else ("image",)
        return cls(data.assign(baseline=(dims, baseline))[["baseline", "value", "effect"]], ground=ground)

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Axes with the mean over images: a curve for one axis, a heat map for two, maps for layer x token.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            **at: Label per axis, to reduce more than two axes, or to plot one layer or head.

        Raises:
            InputError: there is no such label, or more than two axes or none remain.
        """
        if self.ground is None or not shows_tokens(self, at, self.ground):
            return super().plot(ax, **at)
        fixed = "".join(f", {name} {label}" for name, label in at.items() if name != "layer")
        title = f"{self.model_name}, {counted(self.n_images, 'image')}{fixed}"
        title += f"\n{self.condition}" * bool(self.condition)
        return plot_token_maps(self, ax, at, self.ground, unpatched=0.0, title=title)

    @property
    def quantity(self) -> str:
        """Description of the effect on the metric."""
        return f"effect on {self.metric}"

    @property
    def values(self) -> Float[np.ndarray, "image *axes"]:
        """The metric with the cell's patch."""
        return self.data["value"].values

    @property
    def baseline(self) -> Float[np.ndarray, " image"] | Float[np.ndarray, "image target"]:
        """The metric of each image without any patch."""
        return self.data["baseline"].values

    @property
    def effect(self) -> Float[np.ndarray, "image *axes"]:
        """Patched minus unpatched."""
        return self.data["effect"].values

    @property
    def metric(self) -> str:
        """Description of the metric."""
        return str(self.data.attrs["metric"])
