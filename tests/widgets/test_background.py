"""Work of a widget beside the kernel: order, cancelling, and the copy of the model that it runs on."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.widgets.background import Cancelled, Job, Stoppable, Worker, cancellable_copy
from helpers.widgets import SECONDS, until


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(errors.append)
    errors.clear()
    yield made
    made.close()


errors: list[Exception] = []


def test_jobs_run_in_order_and_errors_do_not_end_the_thread(worker: Worker) -> None:
    results: list[Any] = []
    worker.replace_jobs(
        [Job(0, lambda: 1 / 0, results.append), *(Job(i, lambda i=i: i, results.append) for i in (3, 1, 2))]
    )
    worker.wait()
    until(lambda: len(results) == 3)
    assert results == [3, 1, 2]
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_new_requests_drop_old_ones_and_stop_the_running_one(worker: Worker) -> None:
    started, results = threading.Event(), []

    def endless() -> None:
        while True:
            started.set()
            worker.check()
            time.sleep(0.001)

    worker.replace_jobs([Job("endless", endless, results.append), Job("waiting", lambda: "waiting", results.append)])
    assert started.wait(SECONDS)
    worker.replace_jobs([Job("new", lambda: "new", results.append)])
    worker.wait(SECONDS)
    until(lambda: bool(results))
    assert results == ["new"]
    assert not errors


AT_EXIT = """
import threading
import torch
from caap_lab.widgets.background import Job, Worker

started = threading.Event()

def endless():
    while True:
        torch.ones(10_000).argmax()
        started.set()

worker = Worker(print)
worker.replace_jobs([Job("endless", endless, print)])
started.wait()
"""


def test_python_exits_without_a_crash_while_a_job_runs() -> None:
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_job_that_runs_already_is_not_started_again(worker: Worker) -> None:
    started, go, runs, results = threading.Event(), threading.Event(), [], []

    def slow() -> str:
        runs.append(1)
        started.set()
        assert go.wait(SECONDS)
        worker.check()
        return "slow"

    worker.replace_jobs([Job("slow", slow, results.append)])
    assert started.wait(SECONDS)
    worker.replace_jobs([Job("first", lambda: "first", results.append), Job("slow", slow, results.append)])
    go.set()
    until(lambda: len(results) == 2)
    assert (results, len(runs)) == (["slow", "first"], 1)


def test_copy_has_the_same_weights_and_can_be_cancelled(model: cl.HookedViT, scenes: list[Any]) -> None:
    stop = False

    def check() -> None:
        if stop:
            raise Cancelled

    copy = cancellable_copy(model)
    for ours, theirs in zip(model.parameters(), copy.parameters(), strict=True):
        assert ours is theirs
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda resid, hook: resid * 0)]):
        m = cl.caap(copy, scenes[0].image)  # caap refuses a model with hooks
    assert torch.equal(m.scores, cl.caap(model, scenes[0].image).scores)
    assert copy.fingerprint == model.fingerprint  # its maps are the model's
    stop = True
    with pytest.raises(Cancelled), Stoppable(check):
        cl.caap(copy, scenes[0].image)
    stop = False
    assert torch.equal(cl.caap(copy, scenes[0].image).scores, m.scores)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"rise", "mda", "shapley", "caap"}))  # others take long
def test_methods_give_the_same_on_the_copy(model: cl.HookedViT, scenes: list[Any], name: str) -> None:
    copy = cancellable_copy(model)
    ours = cl.attribute(model, scenes[0].image, name).scores
    with Stoppable(lambda: None):
        theirs = cl.attribute(copy, scenes[0].image, name).scores
    assert torch.equal(ours, theirs)
