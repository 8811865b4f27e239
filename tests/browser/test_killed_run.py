"""A test run that is killed leaves no program behind."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from helpers.tied_process import has_ended

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TESTS = Path(__file__).parents[1]
SECONDS = 180
"""Only a test that fails waits so long."""
CHILD_OF_ITS_OWN = """
import subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
print("ready", flush=True)
time.sleep(1000)
"""
SMALL = f"""
import sys, time
from helpers.tied_process import start_tied
start_tied([sys.executable, "-c", {CHILD_OF_ITS_OWN!r}])
time.sleep(1000)
"""
LAB = """
import os, sys, time
from pathlib import Path
from playwright.sync_api import sync_playwright
from browser.lab import LabServer, find_browser
server = LabServer(Path(sys.argv[1]))
server.request("kernels", "POST")
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=find_browser(), chromium_sandbox=os.geteuid() != 0)
    browser.new_page()
    print("ready", flush=True)
    time.sleep(1000)
"""


def test_killed_run_leaves_no_descendant(tmp_path: Path) -> None:
    with running(SMALL, tmp_path) as (run, family):
        assert len(family) == 3  # the guard, the program, and what the program has started
        run.kill()
        until(lambda: all(map(has_ended, family)))


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_killed_run_leaves_no_jupyterlab_and_no_browser(browser: "Browser", tmp_path: Path) -> None:
    with running(LAB, tmp_path) as (run, family):
        lines = [" ".join(process.cmdline()) for process in family]
        for program in ("caap_lab.cli lab", "ipykernel_launcher", "--remote-debugging-pipe"):
            assert any(program in line for line in lines), program
        run.kill()
        until(lambda: all(map(has_ended, family)))


@contextmanager
def running(code: str, folder: Path) -> Iterator[tuple[psutil.Popen, list[psutil.Process]]]:
    """A small test run that has said "ready", and all its descendants; nothing of it is left afterwards."""
    command = [sys.executable, "-c", code, str(folder)]
    family: list[psutil.Process] = []
    with psutil.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout.readline() == "ready\n"
            family = run.children(recursive=True)
            yield run, family
        finally:
            for process in [run, *family]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)
