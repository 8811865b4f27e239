"""Benchmark widget: progress, tables and figures of a run in this process or any other."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from caap_lab.bench.result import BenchmarkResult
from caap_lab.errors import InputError
from caap_lab.escaping import for_html
from caap_lab.plots.style import figure_png, text_figure
from caap_lab.widgets.background import Job
from caap_lab.widgets.panel import Panel, group
from caap_lab.widgets.run_snapshot import Choice, RunSnapshot, Stamp, Waiting, newest, read, stamp
from caap_lab.widgets.static_image import StaticImage


@dataclass(frozen=True, eq=False)
class _Poll:
    """The result of one poll of the folder."""

    snapshot: RunSnapshot | Waiting
    requested: Choice
    choice: Choice
    """The requested choice, as far as the run has it."""
    picture: bytes | None
    """None if nothing has to be redrawn."""
    written: float | None
    """Time at which the newest part was written."""


WINDOW = 300
"""Seconds over which the rate is measured."""
LEAST_PAUSE = 4
"""Shortest pause between polls, as a multiple of the time that the last one took: large runs are polled rarely."""


def benchmark(run: str | Path | BenchmarkResult, *, every: float = 3.0) -> "BenchmarkView":
    """Watch a benchmark: progress, tables and figures, updated while it runs.

    ```python
    cl.widgets.benchmark("runs/photos")     # the folder of `cl.benchmark(..., out="runs/photos")`
    ```

    The folder is only read, never locked or changed. It need not exist yet.

    Args:
        run: The run's folder, or a result.
        every: Seconds between two polls of the folder. Large runs are polled less often.

    Returns:
        The widget. `to_figure()` returns its figure, `link` the Python calls that compute its numbers, and `result` the
        results that are shown.

    Raises:
        InputError: `run` is not a folder or result, or `every` is not a positive number.
    """
    if not isinstance(run, (str, Path, BenchmarkResult)):
        raise InputError(f"Pass a run's folder or a BenchmarkResult, not {type(run).__name__}.")
    given = run if isinstance(run, BenchmarkResult) else None
    folder = run.folder if isinstance(run, BenchmarkResult) else Path(run).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; pass the folder of a run.")
    if not every > 0:
        raise InputError(f"every={every} has to be a number of seconds above 0.")
    return BenchmarkView(folder, given, every)


class BenchmarkView(Panel):
    """The widget of `benchmark`."""

    def __init__(self, folder: Path, given: BenchmarkResult | None, every: float) -> None:
        super().__init__()
        self.folder = folder
        self._folders = (folder, *(() if given is None else given.beside))
        self._given = given
        self.every = every
        self._next_poll: asyncio.TimerHandle | None = None
        self._samples: deque[tuple[float, int]] = deque()
        self._snapshot: RunSnapshot | Waiting = Waiting(f"Reading {self.folder}.")
        self._drawn: tuple[RunSnapshot | Waiting, Choice] | None = None
        # Used by the worker only: what it has read, from which files, and how long it took.
        self._seen: Stamp | None = None
        self._last_read: RunSnapshot | Waiting = self._snapshot
        self._seconds = 0.0

        self.refresh_button = ipywidgets.Button(
            description="refresh now", tooltip="Read the folder now", icon="refresh"
        )
        self._progress = ipywidgets.HTML()
        self._counts = ipywidgets.HTML()
        self._failures = ipywidgets.HTML()
        self._failed_list = ipywidgets.Accordion([self._failures], selected_index=None)
        self._damaged = ipywidgets.HTML()
        self.table_box = ipywidgets.Dropdown(description="table")
        self.metric_box = ipywidgets.Dropdown(description="metric")
        self.model_box = ipywidgets.Dropdown(description="curves of")
        self._table = ipywidgets.HTML()
        self._protocol = ipywidgets.HTML()
        self._protocol_list = ipywidgets.Accordion([self._protocol], titles=["How the numbers were computed"])
        self.static_image = StaticImage()
        self._boxes = (self.table_box, self.metric_box, self.model_box)
        self._choices = group("shown", *self._boxes)
        self._lay_out(
            [group("run", self.refresh_button), self._choices],
            self._progress,
            self._damaged,
            self._table,
            self.static_image,
            self._counts,
            self._failed_list,
            self._protocol_list,
        )
        self._setting = False
        self.refresh_button.on_click(lambda _: self.refresh())
        for box in self._boxes:
            box.observe(self._chosen, "value")
        self._show()
        self._tick()

    @property
    def refreshing(self) -> bool:
        """True while the folder is polled: in a notebook, until the run is complete or the widget is closed."""
        return self._next_poll is not None

    @property
    def result(self) -> BenchmarkResult | None:
        """The results that are shown; None while there is no run."""
        return self._snapshot.result if isinstance(self._snapshot, RunSnapshot) else None

    @property
    def choice(self) -> Choice:
        """The table, metric and model that are shown."""
        return Choice(*(box.value or "" for box in self._boxes))

    @property
    def link(self) -> str:
        """The Python calls that compute the table's numbers."""
        folders = [str(folder) for folder in self._folders]
        snapshot = self._snapshot
        lines = [f"result = cl.BenchmarkResult.open({(folders if len(folders) > 1 else folders[0])!r})"]
        table = snapshot.table(self.choice) if isinstance(snapshot, RunSnapshot) else None
        if table is not None:
            where = f"metric == {self.choice.metric!r} and study in {list(table.studies)}"
            lines.append(f'result.summary().query("{where}")')
        return "\n".join(lines)

    @property
    def file_name(self) -> str:
        """Name of saved files: the run and the table."""
        return f"{self.folder.name} {self.choice.table}"

    def to_figure(self) -> Figure:
        """Mean curves of one model, and the metric of all models as dots."""
        snapshot = self._snapshot
        return snapshot.figure(self.choice) if isinstance(snapshot, RunSnapshot) else text_figure(snapshot.text)

    def to_dataframe(self) -> "pd.DataFrame":
        """The summary of the table that is shown: one row per model, method and metric."""
        snapshot = self._snapshot
        table = snapshot.table(self.choice) if isinstance(snapshot, RunSnapshot) else None
        return pd.DataFrame() if table is None else table.frame

    def refresh(self) -> None:
        """Poll the folder now, and continue polling if the run is not complete."""
        self._show_message("")
        self._tick()

    def close(self) -> None:
        """Stop polling, and close the widget."""
        self._stop()
        super().close()

    # -- polling -----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        if self._next_poll is not None:
            self._next_poll.cancel()
            self._next_poll = None

    def _tick(self) -> None:
        """Poll the folder, and schedule the next poll."""
        self._stop()
        if self._closed:
            return
        self._poll()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a script: `refresh` polls
        self._next_poll = loop.call_later(max(self.every, LEAST_PAUSE * self._seconds), self._tick)

    def _poll(self) -> None:
        choice = self.choice
        self.worker.replace_jobs([Job(choice, partial(self._run, choice, self._drawn), self._on_poll)])

    def _run(self, choice: Choice, drawn: tuple[RunSnapshot | Waiting, Choice] | None) -> "_Poll":
        """Read the folder if it has changed, and draw what is not drawn yet; runs in the worker."""
        began = time.monotonic()
        files = stamp(self._folders)
        if files != self._seen or isinstance(self._last_read, Waiting):
            self._last_read = read(self.folder, self._given)
            self._seen = files  # after it was read: an unreadable plan is reported each time
        self.worker.check()
        snapshot = self._last_read
        settled = snapshot.settle(choice) if isinstance(snapshot, RunSnapshot) else choice
        picture = None
        if drawn != (snapshot, settled) and isinstance(snapshot, RunSnapshot):
            picture = figure_png(snapshot.figure(settled), dpi=140)
            self._seconds = time.monotonic() - began
        return _Poll(snapshot, choice, settled, picture, newest(files))

    def _on_poll(self, poll: "_Poll") -> None:
        if poll.requested != self.choice:  # the choice has changed since; its result follows
            return
        with self._shown_errors():
            snapshot = poll.snapshot
            changed = poll.picture is not None or (isinstance(snapshot, Waiting) and snapshot != self._snapshot)
            self._snapshot = snapshot
            if isinstance(snapshot, RunSnapshot):
                now, done = time.monotonic(), snapshot.computed + snapshot.n_failed
                if self._samples and done < self._samples[-1][1]:  # another plan in the same folder
                    self._samples.clear()
                self._samples.append((now, done))
                while now - self._samples[0][0] > WINDOW:
                    self._samples.popleft()
                if snapshot.complete:
                    self._stop()
            self._show_progress(poll.written)
            if changed:
                self._drawn = (snapshot, poll.choice)
                self._set_choices(poll.choice)
                self.static_image.png = poll.picture or b""
                self._show()
                self._changed()

    def _chosen(self, _: object) -> None:
        if not self._setting:
            self._poll()

    # -- display -----------------------------------------------------------------------------------------------------

    def _set_choices(self, choice: Choice) -> None:
        """Set the options of the controls, without treating it as the user's choice."""
        if not isinstance(self._snapshot, RunSnapshot):
            return
        tables = [(table.title, table.name) for table in self._snapshot.tables]
        columns = self._snapshot.result.columns
        metrics = [(columns[name].title, name) for name in self._snapshot.metrics(choice)]
        models = [(name, name) for name in self._snapshot.models(choice)]
        self._setting = True
        try:
            for box, options, value in zip(
                self._boxes, (tables, metrics, models), (choice.table, choice.metric, choice.model), strict=True
            ):
                if list(box.options) != options:
                    box.options = options
                box.value = value or None
                box.layout.display = None if len(options) > 1 else "none"
        finally:
            self._setting = False

    def _show_progress(self, written: float | None) -> None:
        snapshot, bar = self._snapshot, ""
        if isinstance(snapshot, Waiting):
            text = snapshot.text
        else:
            text = " ".join([snapshot.result.progress, *self._pace(snapshot, written)])
            bar = (
                f'<progress max="{snapshot.planned}" value="{snapshot.computed + snapshot.n_failed}" '
                'aria-label="Trials of the benchmark"></progress>'
            )
        self._progress.value = f'<div class="caap-progress">{bar}<div>{for_html(text)}</div></div>'
        state = f"refreshes every {self.every:g} s" if self.refreshing else "does not refresh by itself"
        if isinstance(snapshot, RunSnapshot) and snapshot.complete:
            state = "complete"
        self._status.text = state

    def _pace(self, snapshot: RunSnapshot, written: float | None) -> list[str]:
        """Sentences on the rate, the time left, and when the last trial was written."""
        if snapshot.complete:
            return []
        sentences = []
        (first, before), (last, now) = self._samples[0], self._samples[-1]
        if now > before and last > first:
            rate = (now - before) / (last - first)
            left = _span((snapshot.planned - now) / rate)
            sentences.append(
                f"{60 * rate:.3g} trials per minute over the last {_span(last - first)}, about {left} left."
            )
        if written is not None:
            sentences.append(f"The last trial came {_span(max(0.0, time.time() - written))} ago.")
        return sentences

    def _show(self) -> None:
        """Show everything below the progress."""
        snapshot, choice = self._snapshot, self.choice
        table = None
        shown = {self._counts: False, self._failed_list: False, self._damaged: False}
        if isinstance(snapshot, RunSnapshot):
            table = snapshot.table(choice)
            self._counts.value = f'<div class="caap-wide">{snapshot.counts_html()}</div>'
            self._failures.value = snapshot.failed_html()
            self._failed_list.titles = [f"Failed trials: {len(snapshot.failed)}"]
            self._damaged.value = f'<div class="caap-message">{for_html(snapshot.damaged_text())}</div>'
            shown[self._counts] = True
            shown[self._failed_list] = len(snapshot.failed) > 0
            shown[self._damaged] = len(snapshot.result.damaged) > 0
        if table is not None:
            self._table.value = f'<div class="caap-wide">{table.html(choice.metric)}</div>'
            self._protocol.value = "".join(f"<p>{for_html(line)}</p>" for line in table.protocol)
            self.static_image.label = (
                f"Mean insertion and deletion curves of {choice.model}, and {table.columns[choice.metric].title} of "
                f"all models and methods; the numbers are in the table."
            )
        shown |= dict.fromkeys((self._choices, self._table, self._protocol_list, self.static_image), table is not None)
        for part, visible in shown.items():
            part.layout.display = None if visible else "none"

    def _drawing(self) -> Callable[[], bytes]:
        # The worker's figure: drawing it again here would keep the kernel busy.
        png = self.static_image.png
        return (lambda: png) if png else super()._drawing()


def _span(seconds: float) -> str:
    """A duration in words."""
    if seconds < 99:
        return f"{seconds:.0f} s"
    if seconds < 99 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 99 * 3600 else f"{seconds / 86400:.1f} days"
