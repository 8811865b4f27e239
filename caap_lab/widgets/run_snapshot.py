"""The content of a benchmark's folder at one moment, and how it is drawn; the folder is only read."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from caap_lab.bench.figures.mean_curves import mean_curves
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.tables.table import Table, make_tables
from caap_lab.escaping import for_html
from caap_lab.plots.curves import Kind, plot_mean_curves
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import level_styles, new_figure, shared_legend, text_figure, title_figure
from caap_lab.tables.html import html_table

if TYPE_CHECKING:
    import pandas as pd

SHOWN_FAILURES = 100
Stamp = frozenset[tuple[str, int, int]]


@dataclass(frozen=True)
class Choice:
    """The user's choice; empty texts mean the first table, metric or model."""

    table: str = ""
    metric: str = ""
    model: str = ""


@dataclass(frozen=True, eq=False)
class RunSnapshot:
    """A run at one moment."""

    result: BenchmarkResult
    tables: tuple[Table, ...]
    """The tables of `caap-lab tables`; none until a trial is finished."""
    counts: "pd.DataFrame"
    failed: "pd.DataFrame"
    planned: int
    computed: int
    n_failed: int

    @classmethod
    def of(cls, result: BenchmarkResult) -> "RunSnapshot":
        """Read a run's folder."""
        tables = tuple(make_tables(result)) if result.totals[1] else ()
        return cls(result, tables, result.counts(), result.failed, *result.totals)

    @property
    def complete(self) -> bool:
        """True if no trial is missing."""
        return self.computed + self.n_failed >= self.planned

    def table(self, choice: Choice) -> Table | None:
        """The chosen table, otherwise the first."""
        return next((table for table in self.tables if table.name == choice.table), next(iter(self.tables), None))

    def metrics(self, choice: Choice) -> list[str]:
        """Metrics of the chosen table."""
        table = self.table(choice)
        return [] if table is None else list(dict.fromkeys(table.frame["metric"]))

    def models(self, choice: Choice) -> dict[str, tuple[str, str]]:
        """Models of the chosen table as shown, each with its data set."""
        table = self.table(choice)
        if table is None:
            return {}
        pairs = list(dict.fromkeys(zip(table.frame["data"], table.frame["model"], strict=True)))
        several = len({data for data, _ in pairs}) > 1
        return {f"{data}, {model}" if several else model: (data, model) for data, model in pairs}

    def settle(self, choice: Choice) -> Choice:
        """The same choice if it exists; otherwise InsDel, and the first of everything else."""
        table, metrics, models = self.table(choice), self.metrics(choice), list(self.models(choice))
        if table is None:
            return Choice()
        metric = choice.metric if choice.metric in metrics else "insdel" if "insdel" in metrics else metrics[0]
        return Choice(table.name, metric, choice.model if choice.model in models else models[0])

    def figure(self, choice: Choice) -> Figure:
        """Mean curves of one model, and the metric of all models as dots."""
        choice = self.settle(choice)
        table = self.table(choice)
        if table is None:
            return text_figure(self.result.progress)
        data, model = self.models(choice)[choice.model]
        rows = self.result.to_dataframe()
        rows = rows[rows["study"].isin(table.studies) & (rows["data"] == data) & (rows["model"] == model)]
        methods = list(dict.fromkeys(table.frame["method"]))
        names = {pair: name for name, pair in self.models(choice).items()}
        dots = table.frame[table.frame["metric"] == choice.metric]
        shown = dots.assign(model=[names[pair] for pair in zip(dots["data"], dots["model"], strict=True)])
        height = 1.2 + 0.25 * shown["model"].nunique() + 0.08 * len(shown)
        curves = bool(rows["shares"].notna().any())
        figure = new_figure(9, height + 3.2 * curves)
        grid = figure.add_gridspec(1 + curves, 2, height_ratios=[3.2, height] if curves else [1])
        if curves:
            kinds: tuple[Kind, Kind] = ("insertion", "deletion")
            first = None
            for column, kind in enumerate(kinds):
                first = ax = figure.add_subplot(grid[0, column], sharey=first)
                means, title = mean_curves(rows, kind), f"{kind}, {choice.model}"
                ylabel = "" if column else "probability of the class"
                plot_mean_curves(means, kind, ax, methods=methods, ylabel=ylabel, title=title)
                ax.tick_params(labelleft=column == 0)
        below = figure.add_subplot(grid[-1, :])
        styles, label = level_styles(methods), f"{table.columns[choice.metric].title_with_unit}, mean ± standard error"
        plot_points(shown, "model", hue="method", ax=below, styles=styles, horizontal=True, label=label, legend=False)
        shared_legend(figure, styles=styles)
        title_figure(figure, f"{table.title}; {self.result.progress}", 10)
        return figure

    def counts_html(self) -> str:
        """Finished trials of each model and method, with a bar behind the number."""
        models, methods = (list(dict.fromkeys(self.counts[name])) for name in ("model", "method"))
        lines = {(line.model, line.method): line for line in self.counts.itertuples()}
        rows = []
        for method in methods:
            cells = []
            for model in models:
                line = lines.get((model, method))
                if line is None:
                    cells.append("")
                    continue
                done, bad = (100 * count / line.planned for count in (line.computed, line.failed))
                failed = f", {line.failed} failed" if line.failed else ""
                cells.append(
                    f'<div class="caap-count" style="--caap-done: {done:.1f}%; --caap-failed: {done + bad:.1f}%">'
                    f"{line.computed} of {line.planned}{failed}</div>"
                )
            rows.append([for_html(method), *cells])
        return html_table(["Method", *models], rows, caption="Trials computed")

    def failed_html(self) -> str:
        """Failed trials with their errors."""
        lines = [
            f"<li>{for_html(f'{row.method} of {row.model} on {row.image}: {row.error}')}</li>"
            for row in self.failed.head(SHOWN_FAILURES).itertuples()
        ]
        more = len(self.failed) - SHOWN_FAILURES
        return f"<ul>{''.join(lines)}</ul>{f'<p>and {more} more</p>' if more > 0 else ''}"

    def damaged_text(self) -> str:
        """A sentence on part files that cannot be read, and what happens to their trials."""
        names = [path.name for path in self.result.damaged]
        if not names:
            return ""
        files = "1 part file cannot" if len(names) == 1 else f"{len(names)} part files cannot"
        listed = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        return f"{files} be read ({listed}); their trials count as missing, and the next run computes them again."


@dataclass(frozen=True)
class Waiting:
    """There is nothing to show yet."""

    text: str


def read(folder: Path, result: BenchmarkResult | None = None) -> RunSnapshot | Waiting:
    """The content of a folder; the plan of `result`, if given, replaces the folder's.

    Raises:
        InputError: the plan cannot be read.
    """
    run = RunFolder(folder)
    if result is not None:
        return RunSnapshot.of(replace(result))  # a new one, because results read their folder once
    if run.plan_path.exists():
        return RunSnapshot.of(BenchmarkResult(BenchmarkPlan.load(run.plan_path), folder))
    if folder.exists():
        return Waiting(f"{folder} holds no benchmark yet: it has no plan.json. It is shown here as soon as one starts.")
    return Waiting(f"There is no folder {folder} yet. The benchmark is shown here as soon as it starts.")


def stamp(folders: Iterable[Path]) -> Stamp:
    """Paths, sizes and times of the plans and parts in folders: equal as long as nothing has changed."""
    runs = [RunFolder(folder) for folder in folders]
    files = []
    for path in (path for run in runs for path in (run.plan_path, *run.parts.glob("*.parquet"))):
        with suppress(FileNotFoundError):  # merged with others meanwhile
            about = path.stat()
            files.append((str(path), about.st_size, about.st_mtime_ns))
    return frozenset(files)


def newest(files: Stamp) -> float | None:
    """Time at which the newest part was written, in seconds as `time.time` counts; None if there is none."""
    times = [time for name, _, time in files if name.endswith(".parquet")]
    return max(times) / 1e9 if times else None
