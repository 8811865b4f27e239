"""What all widgets share: layout, messages, files, work that can be stopped; closing one leaves nothing behind."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
import pytest
from ipywidgets.widgets.widget import _instances
from matplotlib.figure import Figure

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.plots.style import text_figure
from caap_lab.widgets import panel
from caap_lab.widgets.actions import file_name
from caap_lab.widgets.background import Job, Worker
from caap_lab.widgets.explore_view import explore
from caap_lab.widgets.layer_sweep_view import layer_sweep
from caap_lab.widgets.panel import Panel, group
from helpers.widgets import until


class Small(Panel):
    """A slider that squares."""

    def __init__(self) -> None:
        super().__init__()
        self.slider = ipywidgets.IntSlider(3, description="number")
        self.square = ipywidgets.Label("nothing yet")
        self._lay_out([group("Settings <b>", self.slider)], self.square)
        self._on(self.slider, "value", self._update)
        self._update()

    def _update(self) -> None:
        if self.slider.value == 7:
            raise InputError("Seven is taken.")
        self.square.value = str(self.slider.value**2)
        self._changed()

    def to_figure(self) -> Figure:
        return text_figure(self.square.value)

    def to_dataframe(self) -> pd.DataFrame:
        return pd.DataFrame({"name": ["Käfer, groß"], "square": [int(self.square.value)]})

    @property
    def file_name(self) -> str:
        return "a/model: photo.jpg"

    @property
    def link(self) -> str:
        return f"{self.slider.value} ** 2"


@pytest.fixture
def small() -> Any:
    made = Small()
    yield made
    made.close()


def test_controls_stand_beside_what_they_control(small: Small) -> None:
    (frame,) = small.children
    column, main = frame.children
    assert "caap-column" in column._dom_classes and "caap-main" in main._dom_classes
    title, slider = column.children[0].children
    assert slider is small.slider and "Settings &lt;b&gt;" in title.value and "<svg" in title.value
    assert list(main.children)[:3] == [small._message, small._status, small.square]


def test_a_message_stands_above_all_and_goes_with_the_next_change(small: Small) -> None:
    small.slider.value = 7
    assert small.message == "Seven is taken." and 'role="alert"' in small._message.value
    small.slider.value = 8
    assert small.message == "" and "alert" not in small._message.value and small._actions.code == "8 ** 2"


def test_a_saved_notebook_keeps_a_sentence_and_a_picture(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(panel, "display", lambda data, **options: shown.append(data | options))
    small._ipython_display_()
    widget, picture, style = shown
    assert widget["text/plain"] == repr(small) == "a/model: photo.jpg: a widget, live while its kernel runs"
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert picture["image/png"].startswith(b"\x89PNG") and picture["text/plain"] == "3 ** 2"
    assert picture["metadata"]["image/png"]["alt"] == small._status.still == "3 ** 2"
    assert style["text/html"].startswith("<style") and style["text/plain"] == ""


def test_files_of_what_is_shown(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[dict[str, Any], Any]] = []
    monkeypatch.setattr(small._actions, "send", lambda content, buffers=None: sent.append((content, buffers)))
    small.slider.value = 4
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("csv", "\ufeffname,square".encode())):
        small._actions._receive(small._actions, {"make": kind}, [])
        content, (data,) = sent.pop()
        assert content["made"] == kind and content["name"] == f"a_model_photo.{kind}"
        assert data.startswith(start)
    assert data.decode("utf-8-sig") == 'name,square\n"Käfer, groß",16\n'
    small.square.value = "no number"
    small._actions._receive(small._actions, {"make": "csv"}, [])
    assert sent == [({"failed": "csv"}, None)] and "ValueError" in small.message


def test_work_can_be_stopped_and_goes_on(small: Small) -> None:
    go = threading.Event()
    done: list[int] = []

    def job(number: int) -> Job:
        def run() -> int:
            small.worker.check()  # as torch's functions do
            assert number == 0 or go.wait(60)
            return number

        return Job(number, run, done.append)

    small._replace_jobs([job(number) for number in range(3)])
    until(lambda: done == [0])
    until(lambda: small._status.pending == 2)
    assert small._status.total == 3
    small._status._receive(small._status, {"wanted": "stop"}, [])
    assert small._status.stopped and small._status.pending == 2
    go.set()
    small._status._receive(small._status, {"wanted": "resume"}, [])
    small.wait()
    assert done == [0, 1, 2] and small._status.pending == small._status.total == 0 and not small._status.stopped


@pytest.mark.parametrize("name", ["explore", "layer_sweep", "attention", "benchmark"])
def test_close_leaves_nothing_behind(
    name: str, model: cl.HookedViT, scenes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ipywidgets keeps every row, layout and style until it is closed itself."""
    monkeypatch.setattr(Worker, "replace_jobs", lambda self, jobs: None)
    given: dict[str, Any] = {
        "explore": (model, scenes),
        "layer_sweep": (model, scenes[0]),
        "attention": (model, scenes[0]),
    }
    before = set(_instances)
    for _ in range(3):  # one after the other, and none takes what the next needs
        made = getattr(cl.widgets, name)(*given.get(name, (tmp_path / "none",)))
        assert len(_instances) > len(before) + 20
        if name == "explore":
            made.method_picker.value = ("rollout", "caap")
            made.method_picker.value = ("rollout",)
        made.close()
        assert set(_instances) == before
        made.close()  # once more does nothing


def test_closing_one_leaves_the_other(model: cl.HookedViT, scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "replace_jobs", lambda self, jobs: None)
    for make in (cl.widgets.explore, cl.widgets.layer_sweep, cl.widgets.attention):
        before = set(_instances)
        one = make(model, scenes[0])
        first = set(_instances) - before
        other = make(model, scenes[0])
        other.close()
        assert set(_instances) - before == first
        one.close()


def test_what_is_refused_leaves_nothing_open(model: cl.HookedViT, scenes: list[Any]) -> None:
    before = set(_instances)
    for make in (explore, layer_sweep):
        with pytest.raises(InputError, match="There is no class"):
            make(model, scenes[:1], target="zebra")
    assert set(_instances) == before


def test_nothing_happens_after_closing(model: cl.HookedViT, scenes: list[Any]) -> None:
    called: list[str] = []

    async def close_before() -> None:
        made = layer_sweep(model, scenes[0].image)
        made._later(0.01, lambda: called.append("too late"))
        made.close()
        await asyncio.sleep(0.05)

    asyncio.run(close_before())
    assert not called


def test_a_saved_file_has_one_ending() -> None:
    assert file_name("vit el1.png", "png") == "vit_el1.png"
    assert file_name("vit a.b.JPEG cutoff 3", "csv") == "vit_a.b_cutoff_3.csv"
    assert file_name("vit x.pngs", "pdf") == "vit_x.pngs.pdf"
