"""A job measured in a process of its own, which is fresh: no other tool has changed torch or holds memory.

TorchLens replaces torch's functions when it is used, and refuses to run in the children of `multiprocessing`.
"""

import json
import pickle
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.peers_job import Job, measure, memory

WHAT = ("row", "ours", "theirs")
"""All times and results as the fields of a `Row`, or the peak memory of one tool in bytes."""


def in_process(job: Job, what: str, pairs: int) -> Any:
    """What `here` returns, from a new process.

    Raises:
        RuntimeError: the job failed there; with the traceback.
    """
    command = [sys.executable, "-m", "benchmarks.peers_process"]
    done = subprocess.run(command, input=pickle.dumps((job, what, pairs)), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{job.name} ({job.peer.name}, {job.model}) failed:\n{done.stderr.decode()}")
    return json.loads(done.stdout.splitlines()[-1])


def here(job: Job, what: str, pairs: int) -> Any:
    """One of `WHAT`."""
    return asdict(measure(job, pairs)) if what == "row" else memory(job, what == "ours")


if __name__ == "__main__":
    print(json.dumps(here(*pickle.load(sys.stdin.buffer))))
