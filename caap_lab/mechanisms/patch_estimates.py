"""The result of attribution patching, and its agreement with patched runs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.mechanisms.pairs import Pairs
from caap_lab.mechanisms.trace_cells import TraceCells
from caap_lab.mechanisms.trace_result import Trace
from caap_lab.mechanisms.trace_runs import TraceRuns
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class PatchEstimates(Trace):
    """A `Trace` whose effects are estimated, not measured.

    Its attributes record the `correction` and the `rules` of the gradient; `passes` and `backward_passes` are the cost
    of the estimate, `plain_passes` that of the patched runs that it replaces.
    """

    @classmethod
    def estimated(
        cls,
        pairs: Pairs,
        cells: TraceCells,
        runs: TraceRuns,
        direction: str,
        by: str,
        correction: str | None,
        rules: str | None,
    ) -> "PatchEstimates":
        """A result from estimated scores."""
        found = cls.of(pairs, cells, runs, direction=direction, by=by, window=1)
        assert isinstance(found, PatchEstimates)
        found.data.attrs.update(
            quantity=f"estimated {found.quantity}",
            correction=correction or "",
            rules=rules or "",
            backward_passes=len(pairs) * len(pairs.targets),
        )
        return found

    @property
    def condition(self) -> str:
        """What was patched, and how its effects were estimated."""
        ways = ("AtP" + "*" * bool(self.data.attrs["correction"]), "Libra" * bool(self.data.attrs["rules"]))
        return f"{', '.join(filter(None, ways))}: {super().condition}"

    def compare(self, traced: Trace) -> "Agreement":
        """The agreement of the estimates with the measured effects of the same cells.

        Args:
            traced: `caap_lab.trace` of the same pairs, with the same axes and direction.

        Raises:
            InputError: the trace has other pairs or cells, or patches several layers together.
        """
        fits = self.axes == traced.axes and self.n_images == traced.n_images
        settings = ("model", "target", "direction", "by", "points", "window")
        other = [name for name in settings if self.data.attrs[name] != traced.data.attrs[name]]
        if not fits or other:
            what = f"their {', '.join(other)} differ" if other else f"{self._sizes} against {traced._sizes}"
            raise InputError(
                f"The results do not match: {what}. Trace the same pairs with the same arguments (window=1)."
            )
        close = [
            np.allclose(self.data[name], traced.data[name], rtol=1e-3, atol=1e-3) for name in ("clean", "corrupted")
        ]
        if not all(close):
            raise InputError(
                "The results are from different images: the scores of their clean and corrupted runs differ."
            )
        return Agreement.of(self, traced)


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(LabelledResult):
    """Spearman's rank correlation of estimated and measured effects over all cells, [image, point], and [..., target].

    In Jupyter it is displayed as the measured and estimated effect of every cell.
    """

    estimated: PatchEstimates
    measured: Trace
    main: ClassVar[str] = "rank_correlation"
    counts: ClassVar[str] = "pair"

    @classmethod
    def of(cls, estimated: PatchEstimates, measured: Trace) -> "Agreement":
        """Compare cell by cell; NaN for a pair whose effects are all equal."""
        axes = measured.axes
        points = axes.get("point", [measured.data.attrs["points"]])
        targets = {"target": axes["target"]} if "target" in axes else {}
        shape = (measured.n_images, len(points), -1, len(targets.get("target", [""])))
        ranks = [rankdata(each.per_image.reshape(shape), axis=2) for each in (estimated, measured)]
        one, other = (each - each.mean(axis=2, keepdims=True) for each in ranks)
        size = np.sqrt((one**2).sum(axis=2) * (other**2).sum(axis=2))
        correlation = np.divide((one * other).sum(axis=2), size, out=np.full(size.shape, np.nan), where=size > 0)
        data = labelled_dataset(
            {"point": points, **targets},
            {"rank_correlation": correlation if targets else correlation[..., 0]},
            model=measured.model_name,
            quantity="rank correlation of estimated and measured effects",
            **{name: estimated.data.attrs[name] for name in ("target", "direction", "by", "correction", "rules")},
        )
        return cls(data, estimated, measured)

    def misses(self, top: int = 10) -> pd.DataFrame:
        """The cells with the largest errors, by the size of the mean difference over pairs.

        Args:
            top: Number of cells.

        Returns:
            One row per cell: its labels, the mean `measured` and `estimated` effect, and their `difference`.
        """
        check_count("top", top)
        frame = pd.DataFrame(index=self.measured._cells()).reset_index()
        frame["measured"] = self.measured.mean.reshape(-1)
        frame["estimated"] = self.estimated.mean.reshape(-1)
        frame["difference"] = frame["estimated"] - frame["measured"]
        order = np.argsort(-frame["difference"].abs().to_numpy(), kind="stable")[:top]
        return Frame(frame.iloc[order].reset_index(drop=True))

    def plot(self, ax: "Axes | None" = None) -> "Axes":  # type: ignore[override]  # nothing is left to be fixed
        """Estimated against measured effects, one mark per cell (means over pairs), with the line of equality."""
        from caap_lab.plots.agreement import plot_agreement

        cells = pd.DataFrame(index=self.measured._cells()).reset_index()
        cells["measured"], cells["estimated"] = self.measured.mean.reshape(-1), self.estimated.mean.reshape(-1)
        hue = next((name for name in ("point", "target") if len(self.axes.get(name, [])) > 1), None)
        with np.errstate(invalid="ignore"):
            mean = float(np.nanmean(self.per_image))
        title = f"{self.model_name}, {counted(self.n_images, self.counts)}: rank correlation {mean:z.2f}"
        return plot_agreement(cells, ax, hue=hue, label=self.measured.quantity, title=title)

    def __repr__(self) -> str:
        """The mean correlation of each point, with its standard error."""
        names = pd.MultiIndex.from_product(list(self.axes.values()))
        numbers = zip(names, self.mean.reshape(-1), self.standard_error.reshape(-1), strict=True)
        each = ", ".join(
            f"{' '.join(map(str, name))} {mean:z.3f}" + f" ± {error:.3f}" * bool(np.isfinite(error))
            for name, mean, error in numbers
        )
        return f"Agreement: {self.quantity} over {self.measured._sizes}: {each}"
