"""The result of a trace."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.mechanisms.pairs import Pairs
from caap_lab.mechanisms.trace_cells import TraceCells
from caap_lab.mechanisms.trace_runs import TraceRuns
from caap_lab.statistics import sign_flip_p

if TYPE_CHECKING:
    pass

_QUANTITY = {
    "denoise": "share of the clean score that comes back (0 corrupted, 1 clean)",
    "noise": "share of the clean score that stays (0 corrupted, 1 clean)",
}
_TESTED_AT_ONCE = 512
"""Cells whose signs are flipped together, which bounds the memory."""


@dataclass(frozen=True, eq=False, repr=False)
class Trace(LabelledResult):
    """Effects of patches between two runs. In Jupyter it shows itself as pictures of layers, or as a plot.

    `data` has `effect`, (patched - corrupted) / (clean - corrupted), and the patched run's score as `value`, with the
    axes image, (point,) layer, token or region or head, (target); and the scores `clean` and `corrupted` of each pair.
    Its attributes say the `model`, `target`, `direction`, `by`, `points`, `window`, and how many forward passes were
    run (`passes`) beside those of a loop that runs each patch from the image on (`plain_passes`).
    """

    main: ClassVar[str] = "effect"
    pairs: Pairs = field(kw_only=True)
    """The images, as they were given, and what is read of them."""
    cells: TraceCells = field(kw_only=True)
    """What each cell puts in."""

    @classmethod
    def of(cls, pairs: Pairs, cells: TraceCells, runs: TraceRuns, *, direction: str, by: str, window: int) -> "Trace":
        """A result from the scores of its runs."""
        sizes = [len(labels) for labels in cells.axes.values()]
        effect = (runs.values - pairs.corrupted_scores[:, None]) / pairs.difference[:, None]
        last = {"target": list(pairs.targets)} if pairs.several else {}
        shape = (len(pairs), *sizes, *[len(labels) for labels in last.values()])
        variables = {"value": runs.values.reshape(shape), "effect": effect.reshape(shape)}
        data = labelled_dataset(
            {**cells.axes, **last},
            variables,
            model=pairs.model.model_name,
            quantity=_QUANTITY[direction],
            target=pairs.target_name,
            direction=direction,
            by=by,
            points=", ".join(cells.points),
            window=window,
            passes=2 * len(pairs) + runs.passes,
            plain_passes=len(pairs) * (2 + len(cells.places)),
        )
        dims = ("image", *last)
        scores = {"clean": pairs.clean_scores, "corrupted": pairs.corrupted_scores}
        data = data.assign({name: (dims, of if last else of[:, 0]) for name, of in scores.items()})
        return cls(data[["clean", "corrupted", "value", "effect"]], pairs=pairs, cells=cells)

    @property
    def direction(self) -> str:
        """Which run gets the activations: "denoise" the corrupted one, "noise" the clean one."""
        return str(self.data.attrs["direction"])

    @property
    def unpatched(self) -> float:
        """The effect of a patch that changes nothing: 0 when denoising, 1 when noising."""
        return 0.0 if self.direction == "denoise" else 1.0

    @property
    def values(self) -> Float[np.ndarray, "image *axes"]:
        """Scores of the patched runs."""
        return self.data["value"].values

    @cached_property
    def p(self) -> Float[np.ndarray, "*axes"]:
        """Two-sided p-value of every cell against no effect: a permutation test, signs of the pairs' effects flipped.

        Of n pairs it is 2 / 2**n at least. Not corrected for the number of cells.
        """
        moved = (self.per_image - self.unpatched).reshape(self.n_images, -1)
        parts = [moved[:, start : start + _TESTED_AT_ONCE] for start in range(0, moved.shape[1], _TESTED_AT_ONCE)]
        return np.concatenate([sign_flip_p(part) for part in parts]).reshape(self.per_image.shape[1:])

    def _largest(self) -> str:
        moved = np.abs(self.mean - self.unpatched)
        at = np.unravel_index(np.argmax(moved), moved.shape)
        where = ", ".join(f"{n}={labels[i]}" for (n, labels), i in zip(self.axes.items(), at, strict=True))
        passes, plain = self.data.attrs["passes"], self.data.attrs["plain_passes"]
        return f"furthest from {self.unpatched:g} at {where} ({self.mean[at]:.3g}); {passes:.0f} passes, not {plain}"
