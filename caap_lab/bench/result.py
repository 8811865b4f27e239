"""Results of a benchmark: rows, means with standard errors, paired differences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING

from caap_lab.bench.comparing import compared, labels_of, one_comparison, ranked, ranks
from caap_lab.bench.joined import joined
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.run_folder import SCHEMA, RunFolder
from caap_lab.digests.fingerprint import same_model
from caap_lab.errors import InputError
from caap_lab.escaping import for_html
from caap_lab.metrics.metric import MetricColumn, units
from caap_lab.statistics import critical_difference, paired_statistics
from caap_lab.tables.html import html_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """The results of a benchmark, as stored in its run folder.

    ```python
    result = cl.BenchmarkResult.open("run")
    result.summary(), result.to_dataframe(), result.failed
    result.compare(to="caap"), result.ranks()
    ```
    """

    plan: BenchmarkPlan
    folder: Path
    beside: tuple[Path, ...] = ()
    """Other folders that are read together with it, see `join`."""

    @classmethod
    def open(cls, folder: str | Path | Sequence[str | Path]) -> "BenchmarkResult":
        """Results of a run's folder, finished or not; results of a list of folders as one, see `join`.

        A folder's plan is that of the last call of `cl.benchmark` on it: for the results of an earlier call, repeat it
        with the same arguments and `compute=False`.

        Raises:
            InputError: it is not a run's folder, or several folders do not fit together.
        """
        if not isinstance(folder, (str, Path)):
            if not isinstance(folder, Iterable):
                raise InputError(f"Give the folder of a run, or a list of folders, not {folder!r}.")
            folder = list(folder)
            if not folder:
                raise InputError("No folder was given; give that of a run, or a list of folders.")
            return reduce(cls.join, map(cls.open, folder))
        run = RunFolder(folder)
        return cls(BenchmarkPlan.load(run.plan_path), run.folder)

    def join(self, other: "BenchmarkResult") -> "BenchmarkResult":
        """These results and those of another run as one, for example if two runs computed different methods.

        ```python
        result = quick.join(expensive)      # both are results of `cl.benchmark`
        result.compare(to="caap")           # all methods, over the common images of each pair
        ```

        Nothing is copied. Trials that are in both count once.

        Raises:
            InputError: the curves' protocols differ, or a name (of a model, a method, an image) meant something else in
                another run, such as other weights.
        """
        if not isinstance(other, BenchmarkResult):
            raise InputError(
                f"join needs another result, not {other!r}. cl.BenchmarkResult.open([FOLDER, FOLDER]) reads folders."
            )
        first, *rest = dict.fromkeys([self.folder, *self.beside, other.folder, *other.beside])
        return BenchmarkResult(joined([self.plan, other.plan]), first, tuple(rest))

    @cached_property
    def _contents(self) -> "tuple[pd.DataFrame, list[Path]]":
        import pandas as pd

        found = [RunFolder(folder).contents() for folder in (self.folder, *self.beside)]
        rows = pd.concat([rows for rows, _ in found], ignore_index=True) if self.beside else found[0][0]
        if self.beside:
            rows = rows.sort_values("error", kind="stable", key=lambda error: error.notna()).drop_duplicates("key")
        return rows.set_index("key"), [path for _, damaged in found for path in damaged]

    @property
    def _place(self) -> str:
        """Its folder or folders, as text."""
        return " and ".join(map(str, (self.folder, *self.beside)))

    @property
    def _rows(self) -> "pd.DataFrame":
        return self._contents[0]

    @property
    def damaged(self) -> list[Path]:
        """Parts that cannot be read: their trials count as missing, and the next run computes them again."""
        return self._contents[1]

    @cached_property
    def columns(self) -> dict[str, MetricColumn]:
        """Columns of the plan's metrics, by name: labels, titles, which values are better, units."""
        return {column.name: column for study in self.plan.studies for column in self.plan.columns(study)}

    @cached_property
    def _planned(self) -> "pd.DataFrame":
        """Every trial of every study, in the plan's order: study, data, model, method, image, key."""
        import pandas as pd

        lines = [
            (
                number,
                study.data.label,
                model.label,
                method.label,
                image,
                self.plan.trial(study, model, method, image).key,
            )
            for number, study in enumerate(self.plan.studies)
            for model in study.models
            for method in study.methods
            for image in study.data.names
        ]
        return pd.DataFrame(lines, columns=["study", "data", "model", "method", "image", "key"])

    @cached_property
    def _frame(self) -> "pd.DataFrame":
        import pandas as pd

        computed = self._planned[self._planned["key"].isin(self._rows.index)].reset_index(drop=True)
        rows = self._rows.loc[computed["key"]]
        _check_one_model_each(rows, self.folder, self._place)
        names = [name for name in (*SCHEMA.names, *self.columns) if name not in computed]
        rest = rows.reindex(columns=list(dict.fromkeys(names))).reset_index(drop=True)
        return pd.concat([computed.drop(columns="key"), rest], axis=1)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per model, method and image of each study, in the plan's order: labels, metrics, curves, settings.

        Trials that are not computed yet are omitted; failed ones have their `error`.

        Raises:
            InputError: trials of one model were computed with different weights, as after parts of two runs were
                merged.
        """
        from caap_lab.tables.frame import Frame

        return Frame(self._frame.copy())

    @property
    def failed(self) -> "pd.DataFrame":
        """Trials that failed: model, method, image, error."""
        frame = self.to_dataframe()
        frame = frame[frame["error"].notna()]
        return frame[["data", "model", "method", "image", "error"]].drop_duplicates().reset_index(drop=True)

    def counts(self) -> "pd.DataFrame":
        """How many trials of each model and method are planned, computed and failed; a shared one counts for each."""
        from caap_lab.tables.frame import Frame

        failed = set(self._rows.index[self._rows["error"].notna()])
        computed = set(self._rows.index) - failed
        lines = []
        for who, part in self._planned.groupby(["model", "method"], sort=False):
            keys = set(part["key"])
            lines.append((*who, len(keys), len(keys & computed), len(keys & failed)))
        return Frame(lines, columns=["model", "method", "planned", "computed", "failed"])

    @cached_property
    def totals(self) -> tuple[int, int, int]:
        """How many trials are planned, computed and failed."""
        keys = [trial.key for trial in self.plan.trials]
        rows = self._rows[self._rows.index.isin(keys)]
        failed = int(rows["error"].notna().sum())
        return len(keys), len(rows) - failed, failed

    @property
    def progress(self) -> str:
        """How many trials are computed, failed and missing, as a sentence."""
        planned, computed, failed = self.totals
        done = f"{computed} of {planned} trials are computed"
        return f"{done}, {failed} failed." if failed else f"{done}."

    def summary(self) -> "pd.DataFrame":
        """Mean over images and standard error (ddof 0) of every metric in its unit, and the paired difference to CAAP.

        Units are percent, except for registered metrics with another unit; see `columns`. The frame has study, data,
        model, method, metric, n (images), mean, se; difference, difference_se and difference_n compare with the first
        method of the study whose name is "caap", over their common images.
        """
        import pandas as pd

        from caap_lab.tables.frame import Frame

        frame = self.to_dataframe()
        frame = frame[frame["error"].isna()]
        lines = []
        for number, study in enumerate(self.plan.studies):
            reference = next((m.label for m in study.methods if m.name == "caap"), None)
            for model in study.models:
                part = frame[(frame["study"] == number) & (frame["model"] == model.label)]
                for column in self.plan.columns(study):
                    table = part.pivot(index="image", columns="method", values=column.name)
                    table = table.reindex(list(study.data.names))
                    for method in (m.label for m in study.methods if m.label in table):
                        line = {
                            "study": number,
                            "data": study.data.label,
                            "model": model.label,
                            "method": method,
                            "metric": column.name,
                        }
                        compared = reference in table and method != reference
                        other = table[reference].to_numpy(float) if compared else None
                        values = table[method].to_numpy(float)
                        lines.append(line | paired_statistics(values, other, column.factor))
        columns = ["study", "data", "model", "method", "metric", "n", "mean", "se"]
        columns += ["difference", "difference_se", "difference_n"]
        found = Frame(pd.DataFrame(lines).reindex(columns=columns))
        everywhere = all(any(method.name == "caap" for method in study.methods) for study in self.plan.studies)
        return found.saying(difference="reference") if everywhere else found

    def compare(self, to: str = "caap", methods: Sequence[str] | None = None) -> "pd.DataFrame":
        """Paired differences of all methods to one of them, with a test that is corrected for the number of methods.

        ```python
        found = result.compare(to="caap")
        found[found["metric"] == "insdel"]
        ```

        One row per data set, model, metric and method: `to`; n, the number of common images; difference (method minus
        `to`) and its standard error (ddof 0), in the metric's unit as in `summary`; p, the p-value of the two-sided
        sign-flip test (could the signs of the differences be due to chance?); p_holm, corrected by Holm's method over
        the methods that are compared on this data set, model and metric; and the verdict, "better" or "worse" if p_holm
        is below 0.05, otherwise "not distinguishable", in the direction that the metric prefers.

        Args:
            to: The method to compare with: its label in this result, or its name in `cl.methods()`.
            methods: Labels of the methods to compare, which determine the correction; all by default.

        Raises:
            InputError: there is no such method, or one label belongs to two methods.
        """
        return compared(self, to, methods)

    def ranks(self, methods: Sequence[str] | None = None) -> "pd.DataFrame":
        """Mean rank of each method over images, 1 for the best of an image, with its standard error (ddof 0).

        One row per data set, model, metric and method, the best one first: n, mean_rank, se. Only images with values of
        all methods are ranked, and n is their number; methods without any value are last, with n = 0. Equal values
        share the mean of their ranks. Every label is ranked: variants of one method are separate rows, and so is one
        method that joined runs call by two labels. Choose among them with `methods`.

        Args:
            methods: Labels of the methods to rank; all by default.

        Raises:
            InputError: there is no such method, or one label belongs to two methods.
        """
        return ranks(self, methods)

    def plot_ranks(
        self,
        metric: str = "insdel",
        *,
        data: str | None = None,
        model: str | None = None,
        methods: Sequence[str] | None = None,
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Methods by their mean rank in a metric, with bars that join methods that are not distinguishable.

        ```python
        result.plot_ranks("aupr1", model="demo")
        ```

        A bar spans less than the critical difference of Nemenyi's test at 0.05, which holds for all pairs at once
        (Demsar 2006, JMLR 7, "Statistical comparisons of classifiers over multiple data sets"; here images replace data
        sets). Ranks depend on which methods are ranked (Benavoli et al. 2016, JMLR 17): use `compare` for the question
        whether one method is better than another, which depends only on these two.

        Args:
            metric: Column of the metric.
            data: Label of the data set, if there are several.
            model: Label of the model, if there are several.
            methods: Labels of the methods to rank; all by default.
            ax: Axes to draw in; by default those of a new figure, as wide as a column of a paper.

        Raises:
            InputError: there is no such name, or one of several has to be chosen.
        """
        from caap_lab.plots.ranks import plot_ranks

        one = one_comparison(self, metric, data, model, methods)
        table = ranked(one).dropna(subset=["mean_rank"])
        if table.empty:
            raise InputError(f"No image has {metric} of all methods yet, so none can be ranked. {self.progress}")
        n = int(table["n"].iloc[0])
        highlighted = (labels_of(self, "caap") or ["caap"])[0]
        difference = critical_difference(len(table), n)
        return plot_ranks(table, difference, highlighted=highlighted, title=f"{one.column.title}, n = {n}", ax=ax)

    def __repr__(self) -> str:
        """The folder and the progress."""
        return f"BenchmarkResult in {self._place}: {self.progress}"

    def _repr_html_(self) -> str:
        frame = self.summary()
        frame["shown"] = [self.columns[line.metric].with_error(line.mean, line.se) for line in frame.itertuples()]
        if frame.empty:
            return f"<p>{for_html(repr(self))}</p>"
        names = ["data", "model", "method"]
        table = frame.pivot(index=names, columns="metric", values="shown").fillna("")
        order = list(dict.fromkeys(frame["metric"]))
        rows = list(dict.fromkeys(zip(frame["data"], frame["model"], frame["method"], strict=True)))
        cells = [[*map(for_html, row), *table.loc[row, order]] for row in rows]  # the remaining cells are numbers
        heads = [*names, *(self.columns[metric].label for metric in order)]
        caption = f"{self.progress} {units(self.columns.values())}, with standard errors."
        return html_table(heads, cells, caption=caption, text_columns=len(names))


def _check_one_model_each(rows: "pd.DataFrame", folder: Path, place: str) -> None:
    """Raise InputError for rows that have one model's name but were computed by several models."""
    for name, part in rows[rows["fingerprint"].notna()].groupby("model"):
        counts = part["fingerprint"].value_counts()
        first = counts.index[0]
        others = [fingerprint for fingerprint in counts.index if not same_model(fingerprint, first)]
        if others:
            machines = ", ".join(part.loc[part["fingerprint"].isin(others), "machine"].dropna().unique())
            raise InputError(
                f"{place} holds trials of {name} that were made with different weights: {len(part)} trials, "
                f"{counts[others].sum()} of them not with the weights {first} but with {', '.join(others)}"
                f"{f' (on {machines})' if machines else ''}. A mean over both would belong to no model: take the parts "
                f"of one of them out of {folder / 'parts'}, or run it again into another folder."
            )
