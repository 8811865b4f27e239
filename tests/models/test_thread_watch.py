"""PyTorch's threads on a busy machine: said once, in words; the machine's own load plays no part here."""

import sys
from types import SimpleNamespace

import pytest

from caap_lab.cpu_use import CpuTimes, contention, contention_now, default_threads, read_cpu_times
from caap_lab.models import thread_watch
from caap_lab.models.thread_watch import ThreadWatch
from caap_lab.notes import note

START = CpuTimes(wall=100.0, busy=50.0, own=20.0, cores=2)


def later(seconds: float, others: float, own: float) -> CpuTimes:
    """A reading after some seconds in which others and this process used so many cores."""
    return CpuTimes(100 + seconds, 50 + seconds * (others + own), 20 + seconds * own, 2)


@pytest.mark.parametrize(
    ("threads", "others", "own", "said"),
    [
        (2, 1.5, 0.5, "torch.set_num_threads(1)"),
        (2, 0.9, 1.1, "torch.set_num_threads(1)"),
        (2, 0.1, 1.9, ""),  # the cores are this process's own
        (2, 0.0, 0.0, ""),
        (1, 1.9, 0.1, ""),  # a single thread waits for nobody
        (2, 2.0, 0.0, "torch.set_num_threads(1)"),
    ],
)
def test_threads_contend_where_others_use_their_cores(threads: int, others: float, own: float, said: str) -> None:
    words = contention(threads, START, later(4.0, others, own))
    assert said in words if said else words == ""
    assert not said or (f"{others:.1f} of 2 CPU cores" in words and "OMP_NUM_THREADS=1" in words)


def test_cores_that_are_left_over_are_enough() -> None:
    before, after = START._replace(cores=16), later(4.0, 8.0, 4.0)._replace(cores=16)
    assert contention(8, before, after) == ""
    assert "torch.set_num_threads(8)" in contention(16, before, after)


def test_it_is_said_once_and_not_of_a_short_task(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = [0.0], []
    use = iter([0.0, 2.0, 0.0, 2.0, 2.0, 2.0, 2.0])
    times = [START]

    def read() -> CpuTimes:
        last, others = times[-1], next(use)
        times.append(last._replace(wall=last.wall + 1, busy=last.busy + others))
        return times[-1]

    monkeypatch.setattr(thread_watch, "read_cpu_times", read)
    monkeypatch.setattr(thread_watch, "note", said.append)
    monkeypatch.setattr(thread_watch, "torch", SimpleNamespace(get_num_threads=lambda: 2))
    monkeypatch.setattr(thread_watch, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    watch, found = ThreadWatch(), []
    for tenth in range(0, 80):
        clock[0] = tenth / 10
        watch.look()
        found.append(len(said))
    assert found.index(1) == 40 and found[-1] == 1 and len(times) == 6  # seconds 3 and 4 agree; then it looks no more


def test_the_machine_is_read_and_one_thread_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    one = read_cpu_times()
    two = read_cpu_times()
    assert 0 <= one.wall <= two.wall and 0 <= one.busy <= two.busy and 0 <= one.own <= two.own and one.cores >= 1
    assert contention_now(1) == ""
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert default_threads() >= 1


def test_notes_are_quiet_in_notebooks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    note("Nothing says so.")
    assert "Nothing says so." in caplog.text and capsys.readouterr().out == ""
    caplog.clear()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    note("Nothing says so.")
    assert capsys.readouterr().out == "Note: Nothing says so.\n" and caplog.text == ""
