"""The cost of a run of the paper profile and its figures, broken down by model, method, table and figure."""

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
"""The protocol that `choices` proposes for the curves."""
OF_THE_PAPER = ("CAAP", "E-CAAP")
"""Methods that `choices` never proposes to omit, because the paper is about them."""
_LEAST = 0.05
"""Smallest fraction of the cost that an option has to save to be proposed."""
_ROW_BYTES, _SCORE_BYTES, _POINT_BYTES = 600, 4, 16
"""Bytes in a compacted part: a trial's names and numbers, one score of its map, one point of both curves."""


@dataclass(frozen=True)
class Job:
    """Maps of one model by one method on one data set, each with its metrics."""

    model: str
    """The paper's name; "DATASET/MODEL" for a model used on one data set only."""
    dataset: str
    method: str
    images: int
    map_passes: float
    """Forward passes of one map; a backward pass counts as two."""
    curve_passes: float
    """Forward passes of the map's insertion and deletion."""
    tables: Mapping[int, int] = field(default_factory=dict)
    """Tables that contain it, each with its number of images."""
    figure: str = ""
    """The figure whose sweep it belongs to, if any."""
    row_bytes: int = 0
    """Size of one map on disk."""

    @property
    def passes(self) -> float:
        """Forward passes of all its images."""
        return self.images * (self.map_passes + self.curve_passes)


@dataclass(frozen=True)
class Cost:
    """The cost of the chosen tables for one model, whether or not its weights are available."""

    model: str
    """The paper's name."""
    trials: int
    """Number of maps, each with its metrics; those shared by several tables count once."""
    passes: float
    """Forward passes; a backward pass counts as two."""
    seconds_per_pass: float | None
    """Measured on the device; None if it was not measured."""
    weights_bytes: int | None = None
    """Memory of the weights in the run's number format."""
    bytes_per_image: int | None = None
    """Memory of activations per image of a batch; None if it was not measured, as on CPUs."""

    @property
    def seconds(self) -> float | None:
        """Estimated time for all passes in one process."""
        return None if self.seconds_per_pass is None else self.passes * self.seconds_per_pass


@dataclass(frozen=True)
class Share:
    """A part of the total cost."""

    name: str
    """Name of a method, table or figure, or the option that saves this part."""
    passes: float
    map_passes: float
    """The passes that compute maps; the rest compute curves."""
    share: float
    """Fraction of the tables' cost: of the time if it was measured for all models, otherwise of the passes."""
    shared: float = 0.0
    """For tables: the fraction that other chosen tables need as well."""


def table_jobs(
    settings: PaperSettings, sizes: Mapping[tuple[str, str], ModelSize], counts: Mapping[str, int | None]
) -> list[Job]:
    """The jobs of the chosen tables; a job shared by several tables appears once.

    Args:
        settings: The profile.
        sizes: Sizes of the known models, by data set and the paper's name.
        counts: Numbers of images of the data sets that are available; a data set that is not counts as large enough.
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
                    # A smaller draw consists of the first images of a larger one.
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
    """The jobs that the figures' CAAP sweeps add to the tables, one per figure, model and data set.

    Args:
        sweeps: `figure_sweeps`.
        settings: The profile.
        sizes: As in `table_jobs`.
        blocks: Number of blocks of each model, by data set and the paper's name.
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
                if (need.table, model) in done:  # sweeps share a folder, and so the map with CAAP's default settings
                    values -= 1
                done.add((need.table, model))
                label, group = part_name(settings, dataset, model), group_of(need.table, dataset)
                one = _job(label, dataset, group, "CAAP", size, protocol)
                jobs.append(replace(one, images=values * count, figure=figure))
    return jobs


def model_costs(jobs: Sequence[Job], measured: Mapping[str, Measured | None]) -> tuple[Cost, ...]:
    """The cost of tables for each model.

    Args:
        jobs: Jobs of the tables.
        measured: Measurements by model, in the order of the result; None for a model that does not fit into memory.
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
        jobs: All jobs, or some of them.
        by: Returns the part that a job belongs to.
        weights: Seconds per pass by model, or 1 for each.
        whole: The total cost, in the same unit.
    """
    parts: dict[str, list[Job]] = {}
    for job in jobs:
        parts.setdefault(by(job), []).append(job)
    found = [_share(name, part, weights, whole) for name, part in parts.items()]
    return sorted(found, key=lambda share: -share.share)


def table_shares(jobs: Sequence[Job], weights: Mapping[str, float], whole: float) -> list[Share]:
    """The cost of each table, in order; tables can share trials, so the fractions may add up to more than 1."""
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
    """The options that save the most cost for tables and sweeps, each on its own; at most three.

    Args:
        settings: The profile.
        jobs: Jobs of tables and sweeps.
        sizes: As in `table_jobs`.
        weights: As in `shares`.
        precisions: Time of a pass in other number formats relative to the run's, if it was measured.
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
    """Approximate size of the jobs' results on disk."""
    return sum(job.images * job.row_bytes for job in jobs)


def cost_of(jobs: Iterable[Job], weights: Mapping[str, float]) -> float:
    """The cost of jobs, in the unit of the weights."""
    return sum(job.passes * weights[job.model] for job in jobs)


def _share(name: str, jobs: Sequence[Job], weights: Mapping[str, float], whole: float) -> Share:
    maps = sum(job.images * job.map_passes for job in jobs)
    share = cost_of(jobs, weights) / whole if whole else 0.0
    return Share(name, sum(job.passes for job in jobs), maps, share)


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
