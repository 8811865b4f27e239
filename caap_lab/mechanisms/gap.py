"""The gap between what parts do together and the sum of what each does alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from caap_lab.activations.labelled import LabelledResult, labelled_dataset

JOINT, SINGLES, GAP = "joint effect", "sum of single effects", "gap"


@dataclass(frozen=True, eq=False, repr=False)
class InteractionCheck(LabelledResult):
    """Joint effect, sum of single effects, and their difference, for each image. Its repr is one sentence.

    `data` has `value` with the axes image and effect ("joint effect", "sum of single effects", "gap"), and with the
    axis image the `distance` between the two runs: the norm of the difference of the activations that are put in, as a
    share of the norm of those that they replace. Attributes say what was put in (`what`, `cells`), what the single
    effects are (`compared`), and what the check cost in `forward_passes`.
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
            singles: Sum of the effects of each alone.
            distance: Between the two runs.
            unit: What the effects are of.
            **attributes: Model, what was put in, and so on.
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
        """Effect of all at once."""
        return self.per_image[:, 0]

    @property
    def singles(self) -> Float[np.ndarray, " image"]:
        """Sum of the effects of each alone."""
        return self.per_image[:, 1]

    @property
    def gap(self) -> Float[np.ndarray, " image"]:
        """Joint less sum: above 0 they say more together, below 0 they say the same thing several times."""
        return self.per_image[:, 2]

    @property
    def distance(self) -> Float[np.ndarray, " image"]:
        """Between the two runs, where activations were put in."""
        return self.data["distance"].values

    def __repr__(self) -> str:
        """What the numbers say, in one sentence."""
        joint, singles, gap = self.mean
        times = f", {abs(gap / joint):.0%} of the joint effect" if joint else ""
        return (
            f"InteractionCheck: {self.data.attrs['what']} of {self.model_name} have an {self.quantity} of {joint:+.3g} "
            f"together and {singles:+.3g} as a sum of single ones: a gap of {gap:+.3g}{times}; the runs are "
            f"{self.distance.mean():.2f} apart ({self._counted}, {self.data.attrs['forward_passes']:.3g} passes)"
        )

    @property
    def _counted(self) -> str:
        return f"{self.n_images} image{'s' * (self.n_images != 1)}"
