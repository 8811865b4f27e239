"""What a run of the paper profile and its figures cost, taken apart: by model, method, table and figure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import find_method
from caap_lab.bench.figures.needs import Need
from caap_lab.bench.paper.needs import part_name
from caap_lab.bench.paper.parts import group_of
from caap_lab.bench.paper.published import METHODS
from caap_lab.bench.paper.settings import PaperSettings, split_model
from caap_lab.bench.run_cost import Measured, curve_passes
from caap_lab.metrics.catalogue import METRICS
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.variant import parse_variant

QUICKER_PROTOCOL = "rise-28"
"""What `choices` proposes for the curves."""
OF_THE_PAPER = ("CAAP", "E-CAAP")
"""Methods that `choices` does not propose to leave out: the paper is about them."""
_LEAST = 0.05
"""Share of the cost that a choice saves at the least."""
_ROW_BYTES, _SCORE_BYTES, _POINT_BYTES = 600, 4, 16
"""Of a trial's row in a compacted part: its names and numbers, a score of its map, a point of both curves."""


@dataclass(frozen=True)
class Job:
    """Maps of one model by one method on one data set, each with its metrics."""

    model: str
    """The paper's name; of a model for one data set alone "DATASET/MODEL"."""
    dataset: str
    method: str
    images: int
    map_passes: float
    """Forward passes of one map; a backward pass counts as two."""
    curve_passes: float
    """Of its insertion and deletion."""
    tables: Mapping[int, int] = field(default_factory=dict)
    """Tables that have it, with how many of the images each has."""
    figure: str = ""
    """The figure whose sweep it is part of, if it is part of one."""
    row_bytes: int = 0
    """Of one map on disk."""

    @property
    def passes(self) -> float:
        """Forward passes of all its images."""
        return self.images * (self.map_passes + self.curve_passes)


@dataclass(frozen=True)
class Cost:
    """What a run of the chosen tables costs on one model, whether it is here or not."""

    model: str
    """The paper's name."""
    trials: int
    """Maps, each with its metrics; what several tables share counts once."""
    passes: float
    """Forward passes; a backward pass counts as two."""
    seconds_per_pass: float | None
    """On the device, or None where it was not measured."""
    weights_bytes: int | None = None
    """Of the weights in the run's number format."""
    bytes_per_image: int | None = None
    """Of activations, for each image that runs at once; None where it was not measured, as on CPUs."""

    @property
    def seconds(self) -> float | None:
        """Estimated time for all passes, one process at work."""
        return None if self.seconds_per_pass is None else self.passes * self.seconds_per_pass


@dataclass(frozen=True)
class Share:
    """A part of the whole cost."""

    name: str
    """Of a method, table or figure; or the option that saves it."""
    passes: float
    map_passes: float
    """Those of them that make maps; the rest makes curves."""
    share: float
    """Of the cost of the tables: in time where it was measured for all models, else in passes."""
    shared: float = 0.0
    """Of tables: the share that other chosen tables need as well."""


def table_jobs(
    settings: PaperSettings, sizes: Mapping[tuple[str, str], ModelSize], counts: Mapping[str, int | None]
) -> list[Job]:
    """What the chosen tables consist of; what several of them share is there once.

    Args:
        settings: The profile.
        sizes: Of the models that are known, by data set and the paper's name.
        counts: Images of the data sets that are here; one that is not counts as large.
    """
    protocol = curve_protocol(settings.protocol)
    jobs: dict[tuple[str, str, str, str], Job] = {}
    for table in settings.wanted:
        for dataset in settings.datasets(table):
            there, wanted = counts.get(dataset), settings.count(table, dataset)
            listed = dataset in settings.image_lists
            count = wanted if there is None else there if listed else min(there, wanted)
            group = group_of(table, dataset)
            for model in settings.model_names(table, dataset):
                size = sizes.get((dataset, model))
                for method in settings.method_names(table, dataset) if size else ():
                    assert size is not None
                    key = (dataset, group, model, method)
                    label = part_name(settings, dataset, model)
                    job = jobs.get(key) or _job(label, dataset, group, method, size, protocol)
                    # The first images of a draw are those of a smaller one.
                    jobs[key] = replace(job, images=max(count, job.images), tables={**job.tables, table: count})
    return list(jobs.values())


def _job(model: str, dataset: str, group: str, method: str, size: ModelSize, protocol: CurveProtocol) -> Job:
    """A job without images."""
    curves = curve_passes(protocol, size) if METRICS[group].reads_protocol else 0
    variant = parse_variant(METHODS[method])
    maps = find_method(variant.name).passes(size, variant.options)
    row_bytes = _ROW_BYTES + _SCORE_BYTES * size.n_patches + _POINT_BYTES * curves // 2
    return Job(model, dataset, method, 0, maps, curves, row_bytes=row_bytes)


def sweep_jobs(
    sweeps: Iterable[tuple[str, Need]],
    settings: PaperSettings,
    sizes: Mapping[tuple[str, str], ModelSize],
    blocks: Mapping[tuple[str, str], int],
    counts: Mapping[str, int | None],
) -> list[Job]:
    """What the figures' sweeps of CAAP add to the tables, one job per figure, model and data set.

    Args:
        sweeps: `figure_sweeps`.
        settings: The profile.
        sizes: As in `table_jobs`.
        blocks: How many blocks the models have, by data set and the paper's name.
        counts: As in `table_jobs`.
    """
    protocol = curve_protocol(settings.protocol)
    done: set[tuple[int, str]] = set()
    jobs = []
    for figure, need in sweeps:
        for dataset in settings.datasets(need.table)[:1] if need.table in settings.wanted else ():
            there, wanted = counts.get(dataset), settings.count(need.table, dataset)
            count = wanted if there is None else min(there, wanted)
            for model in need.chosen(settings.model_names(need.table, dataset)):
                size = sizes.get((dataset, model))
                if size is None:
                    continue
                values = len(need.values) or blocks[dataset, model] + 1
                if (need.table, model) in done:  # sweeps share their folder, and with it the map of CAAP's defaults
                    values -= 1
                done.add((need.table, model))
                label, group = part_name(settings, dataset, model), group_of(need.table, dataset)
                one = _job(label, dataset, group, "CAAP", size, protocol)
                jobs.append(replace(one, images=values * count, figure=figure))
    return jobs


def model_costs(jobs: Sequence[Job], measured: Mapping[str, Measured | None]) -> tuple[Cost, ...]:
    """What tables cost on each model.

    Args:
        jobs: Of the tables.
        measured: By model, in the order of the result: what was measured of it; None if it does not fit.
    """
    costs = []
    for model, found in measured.items():
        own = [job for job in jobs if job.model == model]
        numbers = (None, None, None) if found is None else (found.seconds, found.weights_bytes, found.bytes_per_image)
        costs.append(Cost(model, sum(job.images for job in own), sum(job.passes for job in own), *numbers))
    return tuple(costs)


def shares(jobs: Sequence[Job], by: Callable[[Job], str], weights: Mapping[str, float], whole: float) -> list[Share]:
    """Parts of the cost, the largest first.

    Args:
        jobs: All, or some of them.
        by: Which part a job belongs to.
        weights: Seconds of a pass by model, or 1 for each.
        whole: What shares are of, in the same unit.
    """
    parts: dict[str, list[Job]] = {}
    for job in jobs:
        parts.setdefault(by(job), []).append(job)
    found = [_share(name, part, weights, whole) for name, part in parts.items()]
    return sorted(found, key=lambda share: -share.share)


def table_shares(jobs: Sequence[Job], weights: Mapping[str, float], whole: float) -> list[Share]:
    """What each table needs, in the order of their numbers; several may share trials, so shares add up to more."""
    found = []
    for table in sorted({table for job in jobs for table in job.tables}):
        own = [replace(job, images=job.tables[table]) for job in jobs if table in job.tables]
        also = cost_of([job for job in own if len(job.tables) > 1], weights) / whole if whole else 0.0
        found.append(replace(_share(f"table {table}", own, weights, whole), shared=also))
    return found


def choices(
    settings: PaperSettings,
    jobs: Sequence[Job],
    sizes: Mapping[tuple[str, str], ModelSize],
    weights: Mapping[str, float],
    precisions: Mapping[str, float] | None = None,
) -> list[Share]:
    """The options that save most of the cost of tables and sweeps, each taken alone; three at most.

    Args:
        settings: The profile.
        jobs: Of tables and sweeps.
        sizes: As in `table_jobs`.
        weights: As in `shares`.
        precisions: Time of a pass in other number formats as a share of the run's, where it was measured.
    """
    whole = cost_of(jobs, weights)
    found = []
    for name in dict.fromkeys(job.method for job in jobs if job.method not in OF_THE_PAPER):
        found.append(_share(f"--without {_quoted(name)}", [j for j in jobs if j.method == name], weights, whole))
    models = list(dict.fromkeys(split_model(job.model)[1] for job in jobs))
    for name in models if len(models) > 1 else ():
        own = [job for job in jobs if split_model(job.model)[1] == name]
        found.append(_share(f"--without {name}", own, weights, whole))
    quick = curve_protocol(QUICKER_PROTOCOL)
    saved = [
        replace(job, map_passes=0.0, curve_passes=less)
        for job in jobs
        if job.curve_passes
        and (less := job.curve_passes - curve_passes(quick, sizes[job.dataset, split_model(job.model)[1]])) > 0
        and settings.protocol == "rise"
    ]
    if saved:
        found.append(_share(f"--protocol {QUICKER_PROTOCOL}", saved, weights, whole))
    for name, share in (precisions or {}).items():
        found.append(Share(f"--precision {name}", 0.0, 0.0, 1 - share))
    return sorted((one for one in found if one.share >= _LEAST), key=lambda one: -one.share)[:3]


def disk_bytes(jobs: Iterable[Job]) -> int:
    """What the results of jobs take on disk, about."""
    return sum(job.images * job.row_bytes for job in jobs)


def cost_of(jobs: Iterable[Job], weights: Mapping[str, float]) -> float:
    """The cost of jobs in the weights' unit."""
    return sum(job.passes * weights[job.model] for job in jobs)


def _share(name: str, jobs: Sequence[Job], weights: Mapping[str, float], whole: float) -> Share:
    maps = sum(job.images * job.map_passes for job in jobs)
    share = cost_of(jobs, weights) / whole if whole else 0.0
    return Share(name, sum(job.passes for job in jobs), maps, share)


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
