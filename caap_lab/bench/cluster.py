"""The same cells on a Dask cluster: of this machine's processes, or one that runs already.

Workers compute; this process alone writes, so that a cell whose worker was lost and that ran twice counts once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from caap_lab.bench.cell import Row, compute, failure, images_of, model_of
from caap_lab.bench.plan import Cell
from caap_lab.errors import InputError

_AHEAD = 2  # cells that wait at each worker


def on_cluster(
    cells: Sequence[Cell],
    device: str,
    batch_size: int,
    stopped: Callable[[], bool],
    workers: int | None,
    scheduler: str | None,
) -> Iterator[Row]:
    """Rows of cells as workers finish them, until it is stopped; then those of the cells in flight.

    Args:
        cells: What is to be computed.
        device: Where models run.
        batch_size: Changed images run at once.
        stopped: Asked before a further cell is sent out.
        workers: So many processes on this machine.
        scheduler: Address of a running scheduler instead.
    """
    if workers is not None and scheduler is not None:
        raise InputError("Give workers=... or scheduler=..., not both.")
    try:
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise InputError("Workers need Dask: pip install 'caap_lab[cluster]'.") from error

    with ExitStack() as stack:
        if scheduler is None:
            assert workers is not None
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    host="127.0.0.1",
                    preload="caap_lab.bench.worker",
                )
            )
            client = stack.enter_context(Client(cluster))
        else:
            client = stack.enter_context(Client(scheduler, timeout=30))
        slots = max(1, len(client.ncores())) * (1 + _AHEAD)
        waiting = iter(cells)
        flying: dict[Any, Cell] = {}
        done = as_completed()

        def send() -> None:
            cell = next(waiting, None)
            if cell is not None and not stopped():
                future = client.submit(_remote, cell, device, batch_size, key=f"cell-{cell.key}", pure=False)
                flying[future] = cell
                done.add(future)

        for _ in range(slots):
            send()
        for future in done:
            cell = flying.pop(future)
            lost = future.exception()  # workers that died with the cell, again and again
            yield future.result() if lost is None else failure(cell, lost)
            send()


def _remote(cell: Cell, device: str, batch_size: int) -> Row:
    """A cell on a worker, which keeps its model and data sets for the next one."""
    try:
        return compute(cell, model_of(cell.model.text, device), images_of(cell.source), batch_size)
    except Exception as error:  # recorded, as on one machine
        return failure(cell, error)
