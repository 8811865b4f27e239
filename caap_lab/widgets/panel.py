"""Shared parts of all widgets: a column of controls, visible errors, and a static picture left in the notebook."""

import asyncio
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure

from caap_lab.errors import InputError
from caap_lab.escaping import for_html
from caap_lab.plots.style import figure_png
from caap_lab.widgets.actions import Actions, figure_file, file_name, table_file
from caap_lab.widgets.activity import Activity
from caap_lab.widgets.background import Job, Worker
from caap_lab.widgets.icons import icon
from caap_lab.widgets.key_guard import KeyGuard

if TYPE_CHECKING:
    import pandas as pd

PAUSE = 1.0
"""Seconds without a change before the picture in the notebook is redrawn."""

VSCODE_ALT = "vscode_altText"
"""The key in which VS Code looks for an image's alternative text."""
SAVED_STYLE = (
    '<style class="caap-saved">.jp-OutputArea-child:has(> .jp-OutputArea-output.jupyter-widgets)'
    ":has(+ .jp-OutputArea-child + .jp-OutputArea-child style.caap-saved), "
    ".jp-OutputArea-child:has(style.caap-saved) { display: none; }</style>"
)
"""Hides JupyterLab's "Error displaying widget" in a reopened notebook, which shows the picture right below.

While a widget is live, that class is on an element inside the output, not on the output itself.
"""


def group(title: str, *widgets: ipywidgets.Widget) -> ipywidgets.VBox:
    """Controls under a title, for the column of controls.

    Each is as wide as the column, so no widths have to be set.
    """
    heading = ipywidgets.HTML(f'<div class="caap-group-title">{icon(title)}<span>{for_html(title)}</span></div>')
    box = ipywidgets.VBox([heading, *widgets])
    box.add_class("caap-group")
    return box


def close_all(widget: ipywidgets.Widget) -> None:
    """Close a widget with all that it contains: its rows, and their layouts and styles, which are separate models.

    ipywidgets closes only the widget itself; everything that is not closed stays until the kernel ends.
    """
    widgets, waiting = {}, [widget]
    while waiting:
        one = waiting.pop()
        if id(one) not in widgets:
            widgets[id(one)] = one
            waiting += _widgets_in(vars(one))  # includes the values of its traits
    for one in widgets.values():
        ipywidgets.Widget.close(one)


def _widgets_in(value: object) -> Iterator[ipywidgets.Widget]:
    if isinstance(value, ipywidgets.Widget):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _widgets_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _widgets_in(inner)


class Panel(ipywidgets.VBox):
    """A widget that computes in the background and leaves a static picture in the saved notebook.

    Attributes:
        message: The sentence shown above everything else; empty if nothing went wrong.
    """

    _closed = False

    def __init__(self) -> None:
        self.worker = Worker(self._show_error)
        self._left: list[Job] = []
        self._status = Activity(self._stop_work, self._resume_work)
        self._message = ipywidgets.HTML()
        self._actions = Actions(self._file, self._show_error)
        self.message = ""
        self._picture: Any = None
        self._timer: asyncio.TimerHandle | None = None
        super().__init__()
        self.add_class("caap-panel")

    @abstractmethod
    def to_figure(self) -> Figure:
        """The current state as a figure for a paper."""

    @abstractmethod
    def to_dataframe(self) -> "pd.DataFrame":
        """The numbers shown, as far as they are computed, which the button CSV saves."""

    @property
    @abstractmethod
    def file_name(self) -> str:
        """Name of saved files, in words and without an extension: the model and the image."""

    @property
    @abstractmethod
    def link(self) -> str:
        """The Python code that computes what is shown."""

    def wait(self, seconds: float = 600) -> None:
        """Wait until everything is computed, and draw the picture in the notebook: for cells that use the results.

        Raises:
            TimeoutError: it takes longer than `seconds`.
        """
        if self._status.stopped:
            self._resume_work()
        self.worker.wait(seconds)
        self._show_pending()
        if self._picture is not None:
            self._keep(self._drawing()(), self.link)

    def close(self) -> None:
        """Stop the work, and close the widget and everything in it."""
        self._closed = True
        if hasattr(self, "worker"):  # otherwise the arguments were invalid
            self.worker.close()
        close_all(self)

    def _lay_out(self, controls: Sequence[ipywidgets.Widget], *main: ipywidgets.Widget) -> None:
        """Lay out the controls in a column on the left; in a narrow cell the column moves to the top.

        Args:
            controls: Groups (see `group`) from top to bottom; none for no column.
            main: The content, from top to bottom. Messages and progress are above it, the buttons to save it and the
                code below.
        """
        shown = ipywidgets.VBox([self._message, self._status, *main, self._actions, KeyGuard()])
        shown.add_class("caap-main")
        parts = [shown]
        if controls:
            column = ipywidgets.VBox(list(controls))
            column.add_class("caap-column")
            parts.insert(0, column)
        frame = ipywidgets.Box(parts)
        frame.add_class("caap-frame")
        self.children = (frame,)

    def _on(self, widget: ipywidgets.Widget, name: str | Sequence[str], call: Callable[[], None]) -> None:
        """Call a function when a value changes; errors are shown in the widget, not in a log."""

        def changed(_: Any) -> None:
            self._show_message("")
            with self._shown_errors():
                call()

        widget.observe(changed, name)

    @contextmanager
    def _shown_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._show_error(error)

    def _show_error(self, error: Exception) -> None:
        if isinstance(error, InputError):
            self._show_message(str(error))
        else:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self._show_message(f"{type(error).__name__}: {error} ({last.name}, line {last.lineno} of {last.filename})")
        self._show_pending()

    def _show_message(self, message: str) -> None:
        if message == self.message:
            return
        self.message = message
        role = '<div role="alert" class="caap-message">' if message else "<div>"
        self._message.value = f"{role}{for_html(message)}</div>"

    def _replace_jobs(self, jobs: list[Job]) -> None:
        """Pass jobs to the worker and count down as they finish."""

        def counted(job: Job) -> Job:
            def receive(result: Any) -> None:
                self._left = [other for other in self._left if other.key != job.key]
                with self._shown_errors():
                    job.on_result(result)
                self._show_pending()

            return Job(job.key, job.run, receive)

        self._left, self._status.stopped = list(jobs), False
        self.worker.replace_jobs([counted(job) for job in jobs])
        self._show_pending()

    def _show_pending(self) -> None:
        if not self._status.stopped:
            self._status.count(self.worker.pending)

    def _stop_work(self) -> None:
        """Drop what is not computed yet, until the user requests it."""
        left = self._left
        self.worker.replace_jobs([])
        self._status.count(len(left))
        self._status.stopped = bool(left)

    def _resume_work(self) -> None:
        self._replace_jobs(self._left)

    def _file(self, kind: str) -> tuple[str, bytes]:
        """The name and the bytes of a file with the current state."""
        data = table_file(self.to_dataframe()) if kind == "csv" else figure_file(self.to_figure(), kind)
        return file_name(self.file_name, kind), data

    def _changed(self) -> None:
        """Show the code for the current state, and redraw the picture in the notebook after a pause."""
        self._actions.code = self.link
        if self._picture is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._later(PAUSE, self._leave_picture)
        if self._timer is None:
            self._leave_picture()

    def _later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle | None:
        """Call in the kernel's loop after a while, if the widget is still open; None in a script, without a loop."""

        def still_open() -> None:
            if not self._closed:
                call()

        try:
            return asyncio.get_running_loop().call_later(seconds, still_open)
        except RuntimeError:
            return None

    def _drawing(self) -> Callable[[], bytes]:
        """A function that draws the current state; called in another thread, because drawing is slow."""
        figure = self.to_figure()
        return lambda: figure_png(figure)

    def _leave_picture(self) -> None:
        """Redraw the picture in the notebook."""
        with self._shown_errors():
            drawing, link = self._drawing(), self.link
            try:
                drawn = asyncio.get_running_loop().run_in_executor(None, drawing)
            except RuntimeError:
                self._keep(drawing(), link)
                return
            drawn.add_done_callback(lambda png: None if self._closed else self._keep(png.result(), link))

    def _keep(self, png: bytes, link: str) -> None:
        self._status.still = link
        data, alt = {"image/png": png, "text/plain": link}, {"image/png": {"alt": link}, VSCODE_ALT: link}
        if self._picture is None:
            self._picture = display(data, raw=True, metadata=alt, display_id=True)
        else:
            self._picture.update(data, raw=True, metadata=alt)

    def _ipython_display_(self) -> None:
        # A saved notebook keeps the widget's own output without its state, so readers see the picture below it; while
        # the widget is live, still.js hides the picture.
        display(self._repr_mimebundle_() | {"text/plain": repr(self)}, raw=True)
        self._picture = None  # one picture per display
        self._keep(self._drawing()(), self.link)
        display({"text/html": SAVED_STYLE, "text/plain": ""}, raw=True)

    def __repr__(self) -> str:
        """A description in one line, for front ends without widgets and for saved pages."""
        return f"{self.file_name}: a widget, live while its kernel runs"
