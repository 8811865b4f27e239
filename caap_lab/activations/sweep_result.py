"""The result of a sweep over hook points: a metric of every image and cell, under its labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from caap_lab.activations.labelled import LabelledResult, labelled_dataset


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

    @classmethod
    def of(
        cls,
        axes: Mapping[str, Sequence[Any]],
        values: Float[np.ndarray, "image *axes"],
        baseline: Float[np.ndarray, " image"] | Float[np.ndarray, "image target"],
        *,
        metric: str,
        model_name: str,
    ) -> "SweepResult":
        """A result from its numbers.

        Args:
            axes: Axis name to its labels, in the order of the axes of `values`.
            values: The metric with the cell's patch.
            baseline: The metric of each image without any patch; with a last axis where the last of `axes` is "target".
            metric: What the metric is.
            model_name: Of the model.
        """
        own = baseline.shape[1:]
        effect = values - baseline.reshape(-1, *[1] * (len(axes) - len(own)), *own)
        data = labelled_dataset(axes, {"value": values, "effect": effect}, metric=metric, model=model_name)
        dims = ("image", "target") if own else ("image",)
        return cls(data.assign(baseline=(dims, baseline))[["baseline", "value", "effect"]])

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
