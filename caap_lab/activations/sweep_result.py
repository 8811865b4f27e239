"""The result of a sweep over hook points: a metric of every image and cell, under its labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.activations.token_maps import Ground, plot_token_maps, shows_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(LabelledResult):
    """A metric for every image and cell, beside the unpatched runs. In Jupyter it shows itself as a plot.

    ```python
    result = cl.ablate_heads(model, images, replacement="zero")    # or cl.sweep(...)
    result.mean, result.plot(), result.to_dataframe()
    ```

    `data` has `value` and `effect` with the axes image and those of the sweep, and `baseline` with the axis image; its
    attributes say the `metric` and the `model`.
    """

    main: ClassVar[str] = "effect"
    ground: Ground | None = field(default=None, kw_only=True)
    """What tokens are places of: with it, effects over the axes layer and token are drawn as maps."""

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
            axes: Axis name to its labels, in the order of the axes of `values`.
            values: The metric with the cell's patch.
            baseline: The metric of each image without any patch; with a last axis where the last of `axes` is "target".
            metric: What the metric is.
            model_name: Of the model.
            ground: See the field.
        """
        own = baseline.shape[1:]
        effect = values - baseline.reshape(-1, *[1] * (len(axes) - len(own)), *own)
        data = labelled_dataset(axes, {"value": values, "effect": effect}, metric=metric, model=model_name)
        dims = ("image", "target") if own else ("image",)
        return cls(data.assign(baseline=(dims, baseline))[["baseline", "value", "effect"]], ground=ground)

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Mean over images: with standard errors over one axis, as a heat map over two; layer x token as maps.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            **at: Axis to a label, where there are more than two axes, or to look at one layer or head.

        Raises:
            InputError: there is no such label, or not one or two axes remain.
        """
        if self.ground is None or not shows_tokens(self, at, self.ground):
            return super().plot(ax, **at)
        fixed = "".join(f", {name} {label}" for name, label in at.items() if name != "layer")
        title = f"{self.model_name}, {self.n_images} image{'s' * (self.n_images != 1)}{fixed}"
        title += f"\n{self.condition}" * bool(self.condition)
        return plot_token_maps(self, ax, at, self.ground, unpatched=0.0, title=title)

    @property
    def quantity(self) -> str:
        """The effect on the metric."""
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
        """What the metric is."""
        return str(self.data.attrs["metric"])
