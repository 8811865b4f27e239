"""What a benchmark of a million images would take: ``python -m benchmarks.million --out docs/tables/million.md``.

On paper, from measured numbers: maps and curves per second of docs/tables/gpu.md, bytes per trial of a run on the demo
model, and the tasks per second that Dask's scheduler hands out, to workers in its own process whose tasks only sleep.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from caap_lab import benchmark
from caap_lab.bench.cluster import _TASK

IMAGES, WORKERS = 1_000_000, 1000
WORKERS_HERE, TASKS, SLEEP = 50, 1000, 0.01
"""Workers of the simulation, its tasks, and the seconds that each sleeps."""


def trials_per_hour(model: str, table: str) -> float:
    """Trials of a GPU: one exact map, and the steps of its two curves, from the rows of docs/tables/gpu.md."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    own = {row[1]: row for row in rows if row[0] == model}
    curve = own["changed image of a curve"]
    steps = int(curve[-1].split("; ")[1].split()[0])
    return 3600 / (1 / float(own["exact map"][2]) + 2 * steps / float(curve[2]))


def bytes_per_trial(images: int = 8) -> float:
    """The size of a finished run's folder, divided by its trials."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        result = benchmark(
            ["demo"], ["caap", "grad_cam"], "demo:single", out=folder, images=images, protocol="patches", progress=False
        )
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / len(result.to_dataframe())


def tasks_per_second() -> float:
    """Tasks that a scheduler hands out and gets back per second."""
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=WORKERS_HERE, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(_sleep, range(WORKERS_HERE)))
        began = time.perf_counter()
        client.gather(client.map(_sleep, range(WORKERS_HERE, WORKERS_HERE + TASKS)))
        return TASKS / (time.perf_counter() - began)


def _sleep(number: int) -> int:
    time.sleep(SLEEP)
    return number


def main() -> None:
    """Measure, print, and keep the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.million", description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    gpu = Path("docs/tables/gpu.md").read_text()
    size, rate = bytes_per_trial(), tasks_per_second()
    needed = WORKERS / _TASK
    lines = ["| what | number |", "|---|---|"]
    for model in ("ViT-B/16", "ViT-L/16"):
        hourly = trials_per_hour(model, gpu)
        lines.append(f"| trials of {model} per GPU-hour, one exact map and its two curves each | {hourly:,.0f} |")
        lines.append(f"| GPU-hours for {IMAGES:,} images and one method | {IMAGES / hourly:,.0f} |")
    lines += [
        f"| bytes per trial in a run's folder (demo model, 64 patches) | {size:,.0f} |",
        f"| folder of {IMAGES:,} trials | {IMAGES * size / 1e9:.1f} GB |",
        f"| tasks per second of the scheduler with {WORKERS_HERE} workers | {rate:,.0f} |",
        f"| tasks per second that {WORKERS:,} workers ask for, at {_TASK:g} s per task | {needed:,.0f} |",
    ]
    text = "\n".join(lines) + (
        f"\n\nGPU: the card of tables/gpu.md. Scheduler: workers and client share its process, and each task sleeps "
        f"{SLEEP * 1000:g} ms; {WORKERS:,} workers were not run. {describe()}.\n"
    )
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
