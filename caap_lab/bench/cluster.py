"""Trials on a Dask cluster: processes of this machine, or a cluster that is already running.

Workers compute; only the main process writes, so a trial that ran twice because its worker was lost counts once.
"""

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from caap_lab.bench import own_code
from caap_lab.bench.cells import groups, rows_of
from caap_lab.bench.plan import Trial
from caap_lab.bench.trial import Row, compute_by_name, failure, forget_failures, model_of, opened
from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.device_dtype import as_device

_AHEAD = 2  # tasks waiting at each worker
_TASK = 10.0
"""Seconds of a task with several trials: less is the scheduler's work, more is lost with a worker."""
_MOST = 64
"""Largest number of a task's trials."""
PATIENCE = 10
"""Seconds within which a scheduler has to answer."""


class Cluster:
    """Workers that are ready for a run's trials."""

    def __init__(self, client: Any, scheduler: str | None, code: own_code.Packed) -> None:
        self._client = client
        self._where = scheduler
        self._code = code

    def rows(self, trials: Sequence[Trial], device: str, batch_size: int, stopped: Callable[[], bool]) -> Iterator[Row]:
        """Rows of trials as workers finish them, until the run is stopped; then those of the trials in progress.

        Args:
            trials: Trials to compute.
            device: Device of the models.
            batch_size: Changed images run at once.
            stopped: Called before another trial is sent; True stops the run.

        Raises:
            OSError: the scheduler has disappeared.
        """
        from dask.distributed import as_completed

        slots = max(1, len(self._client.ncores())) * (1 + _AHEAD)
        waiting = deque(trials)
        size = 1
        flying: dict[Any, list[Trial]] = {}
        done = as_completed()

        def send(count: int) -> None:
            if stopped() or not waiting:
                return
            sent = [waiting.popleft() for _ in range(min(count, len(waiting)))]
            used = {("method", trial.method.name) for trial in sent}
            used |= {("metric", name) for trial in sent for name in trial.metric_names}
            code = {name: content for name, content in self._code.items() if name in used}
            key = f"trial-{sent[0].key}-{len(sent)}"
            future = self._client.submit(_remote, sent, device, batch_size, code, key=key, pure=False)
            flying[future] = sent
            done.add(future)

        for _ in range(slots):
            send(1)
        for future in done:
            if future.status not in ("finished", "error"):  # cancelled or lost: no worker is left to run it
                raise OSError(
                    f"The scheduler{'' if self._where is None else ' at ' + self._where} is gone. What was finished "
                    "is kept; run the same again to go on."
                )
            sent = flying.pop(future)
            lost = future.exception()  # workers died repeatedly with these trials
            if lost is None:
                rows = future.result()
                yield from rows
                seconds = sum(row.get("seconds", 0.0) for row in rows) / len(rows)
                size = _task_size(seconds, len(waiting) // slots)
            elif len(sent) == 1:
                yield failure(sent[0], lost)
            else:  # one of them did it: alone, it does not take the others along
                waiting.extendleft(reversed(sent))
                size = 1
            send(size)


def _task_size(seconds: float, share: int) -> int:
    """Number of trials of the next task: `_TASK` seconds of them, but a part of each worker's share.

    Args:
        seconds: Time of a trial.
        share: Trials that are left for each task that the workers hold.
    """
    return max(1, min(int(_TASK / max(seconds, 1e-3)), share, _MOST))


@contextmanager
def started(
    workers: int | None, scheduler: str | None, device: str, methods: Iterable[str], metrics: Iterable[str] = ()
) -> Iterator[Cluster | None]:
    """Workers for a run, each checked for being able to compute; None if neither argument is given.

    Args:
        workers: Number of processes on this machine.
        scheduler: Address of a running scheduler instead.
        device: Device of the models.
        methods: Names of the run's methods.
        metrics: Names of its metrics.

    Raises:
        InputError: Dask is missing, the scheduler does not answer, workers cannot start, or cannot compute.
    """
    if workers is None and scheduler is None:
        yield None
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise InputError("Workers need Dask: pip install 'caap_lab[cluster]'.") from error

    own = own_code.packed(methods, metrics)
    with ExitStack() as stack:
        if workers is not None:
            client = stack.enter_context(Client(stack.enter_context(_local(workers))))
        else:
            client = stack.enter_context(_connected(str(scheduler)))
        try:
            client.run(_ready, device, own)
        except Exception as error:  # any error on the worker
            what = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            raise InputError(f"A worker cannot compute: {what}") from error
        yield Cluster(client, scheduler, own)


def refuse_import(what: str) -> None:
    """Exit in a worker process that runs the user's script again, as happens without a guard.

    Multiprocessing imports the script in every new process. The process that starts the workers explains what to do.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(f"{what} was called while a worker process imported the script.")


def _local(workers: int) -> Any:
    import dask
    from dask.distributed import LocalCluster

    # By default Dask makes workers return freed memory to the system, which costs them up to a quarter of the time of
    # maps: see `caap_lab.models.at_once`.
    keep_freed_memory = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
    try:
        with dask.config.set(keep_freed_memory):
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # any free port: the usual one may be taken
                host="127.0.0.1",
                preload="caap_lab.bench.worker",
            )
    except RuntimeError as error:
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is None:
            raise InputError(f"The workers could not start ({error}).") from error
        raise InputError(
            f"The workers could not start ({str(error).rstrip('.')}): each of them imports {Path(script).name} first, "
            'so what starts the run there has to stand below `if __name__ == "__main__":`.'
        ) from None


def _connected(scheduler: str) -> Any:
    from dask.distributed import Client

    try:
        return Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"No scheduler answers at {scheduler!r} ({error}). Start one with `dask scheduler`, which prints its "
            "address, such as tcp://host:8786."
        ) from error


def _ready(device: str, code: own_code.Packed) -> None:
    """Raise on a worker that lacks something that the run needs."""
    as_device(device)
    forget_failures()
    with own_code.LOCK:
        own_code.install(code)


def _remote(trials: list[Trial], device: str, batch_size: int, code: own_code.Packed) -> list[Row]:
    """Trials on a worker, which caches its model and data sets for the next ones."""

    def alone(trial: Trial) -> Row:
        try:
            return compute_by_name(trial, device, batch_size)
        except Exception as error:  # recorded, as on one machine
            return failure(trial, error)

    with own_code.LOCK:
        try:
            own_code.install(code)
        except Exception as error:  # recorded for each trial: their code cannot be read here
            return [failure(trial, error) for trial in trials]
        return [
            row
            for group in groups(trials)
            for row in rows_of(group, partial(_held, group[0], device), batch_size, alone)
        ]


def _held(trial: Trial, device: str) -> tuple[HookedModel, ImageSet]:
    return model_of(trial.model.text, device), opened(trial.source)
