"""Programs that end when the process that started them ends, even if it is killed.

`start_tied` puts a guard between the two: this file, run as a script. It starts the program, looks whether its own
parent is still there, and ends the program with all its descendants if not. A signal to a group of processes does not
reach the guard, as it has a session of its own.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import psutil

PAUSE = 0.2
"""Seconds between two looks at the parent."""
PATIENCE = 20
"""Seconds for the program to end by itself, and then for its descendants, before they are killed."""


def start_tied(command: Sequence[object], **options: Any) -> subprocess.Popen:
    """Start a program that ends with this process.

    Args:
        command: The program and its arguments.
        options: As of `subprocess.Popen`.

    Returns:
        The guard: it ends as the program does, with its exit status; `terminate` ends the program, too.
    """
    guard = [sys.executable, __file__, str(os.getpid()), *map(str, command)]
    return subprocess.Popen(guard, start_new_session=True, **options)


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone; one that nobody has waited for counts as well."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def main(parent: int, command: list[str]) -> NoReturn:
    """Run a program as long as the parent is there; exit with its status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    process = psutil.Popen(command)
    try:
        while os.getppid() == parent:
            try:
                sys.exit(process.wait(PAUSE))
            except psutil.TimeoutExpired:
                continue
        sys.exit(1)
    finally:
        _end(process)


def _end(process: psutil.Popen) -> None:
    if not process.is_running():
        return
    descendants = process.children(recursive=True)  # before it ends: they are nobody's then
    for family in ([process], descendants):  # JupyterLab ends its kernels
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        for member in psutil.wait_procs(family, PATIENCE)[1]:
            with suppress(psutil.NoSuchProcess):
                member.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
