"""Results of a benchmark: rows, means with standard errors, paired differences."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.run_folder import SCHEMA, RunFolder
from caap_lab.digests.fingerprint import same_model
from caap_lab.errors import InputError
from caap_lab.escaping import for_html
from caap_lab.metrics.metric import MetricColumn, units
from caap_lab.statistics import paired_statistics
from caap_lab.tables.html import html_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """What a run's folder holds of its plan.

    ```python
    result = cl.BenchmarkResult.open("run")
    result.summary(), result.to_dataframe(), result.failed
    ```
    """

    plan: BenchmarkPlan
    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> "BenchmarkResult":
        """Results of a run's folder, finished or not.

        Raises:
            InputError: it is none.
        """
        run = RunFolder(folder)
        return cls(BenchmarkPlan.load(run.plan_path), run.folder)

    @cached_property
    def _contents(self) -> "tuple[pd.DataFrame, list[Path]]":
        rows, damaged = RunFolder(self.folder).contents()
        return rows.set_index("key"), damaged

    @property
    def _rows(self) -> "pd.DataFrame":
        return self._contents[0]

    @property
    def damaged(self) -> list[Path]:
        """Parts that cannot be read: their trials count as missing, and the next run computes them again."""
        return self._contents[1]

    @cached_property
    def columns(self) -> dict[str, MetricColumn]:
        """What the plan's metrics give, by name: labels, titles, which values are better, units."""
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
        _check_one_model_each(rows, self.folder)
        names = [name for name in (*SCHEMA.names, *self.columns) if name not in computed]
        rest = rows.reindex(columns=list(dict.fromkeys(names))).reset_index(drop=True)
        return pd.concat([computed.drop(columns="key"), rest], axis=1)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per model, method and image of each study, in the plan's order: labels, metrics, curves, settings.

        Trials that are not computed yet are left out; those that failed carry their `error`.

        Raises:
            InputError: trials of one model were made with different weights, as after parts of two runs were merged.
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

        Units are percent but for registered metrics that say otherwise; see `columns`. The frame has study, data,
        model, method, metric, n (images), mean, se; difference, difference_se and difference_n compare with the first
        method of the study whose name is "caap", over the images that both have.
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

    def __repr__(self) -> str:
        """Where it is and how far it came."""
        return f"BenchmarkResult in {self.folder}: {self.progress}"

    def _repr_html_(self) -> str:
        frame = self.summary()
        frame["shown"] = [self.columns[line.metric].with_error(line.mean, line.se) for line in frame.itertuples()]
        if frame.empty:
            return f"<p>{for_html(repr(self))}</p>"
        names = ["data", "model", "method"]
        table = frame.pivot(index=names, columns="metric", values="shown").fillna("")
        order = list(dict.fromkeys(frame["metric"]))
        rows = list(dict.fromkeys(zip(frame["data"], frame["model"], frame["method"], strict=True)))
        cells = [[*map(for_html, row), *table.loc[row, order]] for row in rows]  # the rest is numbers
        heads = [*names, *(self.columns[metric].label for metric in order)]
        caption = f"{self.progress} {units(self.columns.values())}, with standard errors."
        return html_table(heads, cells, caption=caption, text_columns=len(names))


def _check_one_model_each(rows: "pd.DataFrame", folder: Path) -> None:
    """Refuse rows that are called by one model's name and were made by several."""
    for name, part in rows[rows["fingerprint"].notna()].groupby("model"):
        counts = part["fingerprint"].value_counts()
        first = counts.index[0]
        others = [fingerprint for fingerprint in counts.index if not same_model(fingerprint, first)]
        if others:
            machines = ", ".join(part.loc[part["fingerprint"].isin(others), "machine"].dropna().unique())
            raise InputError(
                f"{folder} holds trials of {name} that were made with different weights: {len(part)} trials, "
                f"{counts[others].sum()} of them not with the weights {first} but with {', '.join(others)}"
                f"{f' (on {machines})' if machines else ''}. A mean over both would belong to no model: take the parts "
                f"of one of them out of {folder / 'parts'}, or run it again into another folder."
            )
