"""The result of a trace."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.activations.token_maps import Ground, plot_token_maps, shows_tokens
from caap_lab.activations.token_maps import numbered as numbered
from caap_lab.checks import is_whole
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.mechanisms.pairs import Pairs
from caap_lab.mechanisms.trace_cells import TraceCells
from caap_lab.mechanisms.trace_runs import TraceRuns
from caap_lab.plots.style import SIGNED_COLOUR_MAP
from caap_lab.statistics import sign_flip_p

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTITY = "effect (0 corrupted, 1 clean)"
_TESTED_AT_ONCE = 512
"""Number of cells whose signs are flipped together, which limits memory."""


@dataclass(frozen=True, eq=False, repr=False)
class Trace(LabelledResult):
    """Effects of patches between two runs. In Jupyter it is displayed as pictures of layers, or as a plot.

    `data` has `effect`, (patched - corrupted) / (clean - corrupted), and the patched run's score as `value`, with the
    axes image, (point,) layer, token or region or head, (target); and the scores `clean` and `corrupted` of each pair.
    Its attributes record the `model`, `target`, `direction`, `by`, `points`, `window`, the number of forward passes
    that ran (`passes`), and the number for a loop that runs each patch from the image on (`plain_passes`).
    `caap_lab.interaction_check(model, traced)` shows how far single effects are from adding up.
    """

    main: ClassVar[str] = "effect"
    counts: ClassVar[str] = "pair"
    pairs: Pairs = field(kw_only=True)
    """The images, as they were given, and their targets."""
    cells: TraceCells = field(kw_only=True)
    """The activations that each cell inserts."""

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
            quantity=QUANTITY,
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
        """The run that receives the activations: "denoise" the corrupted one, "noise" the clean one."""
        return str(self.data.attrs["direction"])

    @property
    def unpatched(self) -> float:
        """The effect of a patch that changes nothing: 0 for "denoise", 1 for "noise"."""
        return 0.0 if self.direction == "denoise" else 1.0

    @property
    def values(self) -> Float[np.ndarray, "image *axes"]:
        """Scores of the patched runs."""
        return self.data["value"].values

    @cached_property
    def p(self) -> Float[np.ndarray, "*axes"]:
        """Two-sided p-value of every cell against no effect: a permutation test that flips the signs of pairs' effects.

        For n pairs it is at least 2 / 2**n. Not corrected for the number of cells.
        """
        moved = (self.per_image - self.unpatched).reshape(self.n_images, -1)
        parts = [moved[:, start : start + _TESTED_AT_ONCE] for start in range(0, moved.shape[1], _TESTED_AT_ONCE)]
        return np.concatenate([sign_flip_p(part) for part in parts]).reshape(self.per_image.shape[1:])

    @property
    def condition(self) -> str:
        """What was patched where, and the target."""
        window = self.data.attrs["window"]
        near = f" of {window} layers" if window > 1 else ""
        return f"{self.data.attrs['points']}{near}, {self.direction}: {self.data.attrs['target']}"

    def pair(self, number: int) -> "Trace":
        """The trace of a single pair.

        Raises:
            InputError: there is no such pair.
        """
        if not is_whole(number) or not 0 <= number < self.n_images:
            raise InputError(f"Pair {number!r} does not exist; there are pairs 0 to {self.n_images - 1}.")
        rows = slice(number, number + 1)
        pairs = self.pairs.some(rows)
        return replace(self, data=self.data.isel(image=rows).assign_attrs(target=pairs.target_name), pairs=pairs)

    def plot(self, ax: "Axes | None" = None, *, pair: int | None = None, **at: Any) -> "Axes":
        """Mean over pairs: one map per layer for tokens, a heat map over layers for heads and regions, or a line.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            pair: A single pair, with its clean image under the maps of tokens.
            **at: Axis to a label, if there are several points or targets, or to show one layer, token or head.

        Raises:
            InputError: there is no such pair or label, or the number of remaining axes is not one or two.
        """
        if pair is not None:
            return self.pair(pair).plot(ax, **at)
        spec = self.pairs.model.spec
        several = self.n_images > 1
        ground = Ground(spec.grid, spec.prefix, None if several else self._clean_pixels())
        if not shows_tokens(self, at, ground):
            return super().plot(ax, **at)
        fixed = "".join(f", {name} {label}" for name, label in at.items() if name != "layer")
        title = f"{self.model_name}, {counted(self.n_images, self.counts)}{fixed}\n{self.condition}"
        return plot_token_maps(self, ax, at, ground, unpatched=self.unpatched, title=title)

    def _clean_pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        model = self.pairs.model
        return model.preprocessing.to_rgb(model.preprocess(self.pairs.clean[0])[0])

    def _colours(self, mean: Float[np.ndarray, "row col"]) -> dict[str, Any]:
        return {"limits": self._limits(mean), "colour_map": SIGNED_COLOUR_MAP}

    def _limits(self, mean: Float[np.ndarray, "*cell"]) -> tuple[float, float]:
        """Limits of the colour scale: white is no effect."""
        furthest = float(np.nanmax(np.abs(mean - self.unpatched))) or 1.0
        return self.unpatched - furthest, self.unpatched + furthest

    def _largest(self) -> str:
        moved = np.abs(self.mean - self.unpatched)
        at = np.unravel_index(np.argmax(moved), moved.shape)
        where = ", ".join(f"{n}={labels[i]}" for (n, labels), i in zip(self.axes.items(), at, strict=True))
        passes, plain = self.data.attrs["passes"], self.data.attrs["plain_passes"]
        return (
            f"furthest from {self.unpatched:g} at {where} ({self.mean[at]:.3g}); {self.scale_words}; "
            f"{passes:.0f} passes, not {plain}"
        )

    @property
    def scale_words(self) -> str:
        """An effect of 1 in the score's own unit: a small difference between the two runs magnifies all effects."""
        gaps = np.unique((self.data["clean"] - self.data["corrupted"]).values)
        to = f" to {gaps[-1]:.3g}" if len(gaps) > 1 else ""
        return f"an effect of 1 is {gaps[0]:.3g}{to} of the score"
