"""The gap between the joint effect of several parts and the sum of their single effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.labels import counted

JOINT, SINGLES, GAP = "joint effect", "sum of single effects", "gap"


@dataclass(frozen=True, eq=False, repr=False)
class InteractionCheck(LabelledResult):
    """Joint effect, sum of single effects, and their difference, for each image. Its repr is one sentence.

    `data` has `value` with the axes image and effect ("joint effect", "sum of single effects", "gap"), and with the
    axis image the `distance` between the two runs: the norm of the difference between the inserted activations and
    those that they replace, relative to the norm of the latter. Attributes record what was inserted (`what`, `cells`),
    what the single effects are (`compared`), and the cost of the check in `forward_passes`.
    """

    @classmethod
    def of(
        cls,
        joint: Sequence[float] | Float[np.ndarray, " image"],
        singles: Sequence[float] | Float[np.ndarray, " image"],
        distance: Sequence[float] | Float[np.ndarray, " image"],
        *,
        unit: str,
        **attributes: Any,
    ) -> "InteractionCheck":
        """A result from its numbers.

        Args:
            joint: Effect of all parts at once.
            singles: Sum of their single effects.
            distance: Distance between the two runs.
            unit: The quantity that the effects change.
            **attributes: Model, what was inserted, and so on.
        """
        both = np.asarray(joint, dtype=np.float64), np.asarray(singles, dtype=np.float64)
        values = np.stack([*both, both[0] - both[1]], axis=1)
        per_image = {"distance": np.asarray(distance, dtype=np.float64)}
        axes = {"effect": [JOINT, SINGLES, GAP]}
        return cls(
            labelled_dataset(axes, {"value": values}, per_image=per_image, quantity=f"effect on {unit}", **attributes)
        )

    @property
    def joint(self) -> Float[np.ndarray, " image"]:
        """Effect of all parts at once."""
        return self.per_image[:, 0]

    @property
    def singles(self) -> Float[np.ndarray, " image"]:
        """Sum of the single effects."""
        return self.per_image[:, 1]

    @property
    def gap(self) -> Float[np.ndarray, " image"]:
        """Joint effect minus the sum: above 0 the parts reinforce each other, below 0 they are redundant."""
        return self.per_image[:, 2]

    @property
    def distance(self) -> Float[np.ndarray, " image"]:
        """Distance between the two runs where activations were inserted."""
        return self.data["distance"].values

    def __repr__(self) -> str:
        """The numbers in one sentence."""
        joint, singles, gap = self.mean
        times = f", {abs(gap / joint):.0%} of the joint effect" if joint else ""
        return (
            f"InteractionCheck: {self.data.attrs['what']} of {self.model_name} have an {self.quantity} of {joint:+.3g} "
            f"together and {singles:+.3g} as a sum of single ones: a gap of {gap:+.3g}{times}; the runs are "
            f"{self.distance.mean():.2f} apart ({self._counted}, {self.data.attrs['forward_passes']:.3g} passes)"
        )

    @property
    def _counted(self) -> str:
        return counted(self.n_images, "image")
