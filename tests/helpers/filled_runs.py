"""Runs whose numbers are drawn, so that tables can be checked without computing a map."""

from pathlib import Path

import numpy as np

from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.trial import Row


def filled(plan: BenchmarkPlan, folder: Path, seed: int = 0) -> BenchmarkResult:
    """A finished run of a plan with faithfulness and localisation."""
    generator = np.random.default_rng(seed)
    rows: list[Row] = []
    for trial in plan.trials:
        numbers = generator.random(5)
        insertion, deletion, rest = numbers[0], numbers[1], numbers[2:]
        row: Row = {"key": trial.key, "model": trial.model.text, "method": trial.method.text, "image": trial.image}
        row |= {"fingerprint": "abc", "machine": "a machine", "versions": {"torch": "2"}}
        if "faithfulness" in trial.metrics:
            row |= {"insertion": insertion, "deletion": deletion, "insdel": insertion - deletion}
        if "localisation" in trial.metrics:
            row |= dict(zip(("aupr1", "aupr0", "pointing"), rest, strict=True)) | {"mask": "target"}
        rows.append(row)
    run = RunFolder(folder)
    run.parts.mkdir(parents=True)
    plan.save(run.plan_path)
    run.append(rows)
    return BenchmarkResult.open(folder)
