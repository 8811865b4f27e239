"""The cost of a run of the paper profile, measured on a device and broken down, with the options that save the most."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from caap_lab.attribution.cost import ModelSize
from caap_lab.bench.check import known_architecture
from caap_lab.bench.figures.scripts import figure_sweeps
from caap_lab.bench.paper.costs import (
    Cost,
    Share,
    choices,
    cost_of,
    disk_bytes,
    model_costs,
    shares,
    sweep_jobs,
    table_jobs,
    table_shares,
)
from caap_lab.bench.paper.needs import Built, part_name, used_models
from caap_lab.bench.paper.settings import PaperSettings, split_model
from caap_lab.bench.run_cost import Measured, free_memory, measured
from caap_lab.errors import InputError
from caap_lab.models.device_dtype import as_device
from caap_lab.models.hugging_face.folder import is_here, names_folder

OTHER_FORMATS = ("tf32", "bfloat16")
"""Number formats whose speed is measured on a GPU in addition to float32."""
_GB = 2**30


@dataclass(frozen=True)
class CostReport:
    """The cost of the chosen tables and of the figures drawn from their results."""

    models: tuple[Cost, ...] = ()
    """In the paper's order; unknown models are omitted."""
    methods: tuple[Share, ...] = ()
    tables: tuple[Share, ...] = ()
    figures: tuple[Share, ...] = ()
    """The additional cost of the figures' CAAP sweeps."""
    choices: tuple[Share, ...] = ()
    """The options that save the most time for tables and sweeps, each on its own."""
    in_time: bool = False
    """True if fractions refer to the time on the device, False if they refer to forward passes."""
    disk_bytes: int = 0
    """Approximate size of the results of tables and sweeps."""
    memory: tuple[str, ...] = ()
    """Models that do not fit into the device's memory, as sentences."""


def cost_report(
    settings: PaperSettings,
    counts: Mapping[str, int | None],
    built: Built,
    device: str = "cpu",
    batch_size: int = 64,
    timing: bool = True,
) -> CostReport:
    """The cost of a run: counted passes and, on request, the measured time of one pass.

    Args:
        settings: The profile.
        counts: Numbers of images of the data sets that are available.
        built: Models without weights, by the text of their spec; missing ones are built.
        device: Device on which passes are timed.
        batch_size: Number of changed images that run at once.
        timing: False to count passes only.
    """
    bodies: dict[str, tuple[nn.Module, ModelSize]] = {}
    times: dict[tuple[str, tuple[int, int]], Measured | None] = {}
    found: dict[str, Measured | None] = {}
    for name, given in used_models(settings).items():
        spec = given or settings.model("ImageNet-1K", split_model(name)[1])  # of the same size as its classifier
        assert spec is not None
        try:
            if names_folder(spec.name) and not is_here(spec.name):
                continue
            body, size = bodies[name] = built[spec.text] if spec.text in built else known_architecture(spec)
        except InputError:
            continue
        key = (spec.name if names_folder(spec.name) else spec.name.partition(".")[0], size.image_size)
        if timing and key not in times:
            dtype = str(spec.options.get("dtype", settings.precision))
            times[key] = measured(body, size.image_size, device, dtype, batch_size)
        found[name] = times.get(key)
    sizes = {
        (dataset, model): bodies[name][1]
        for table in settings.wanted
        for dataset in settings.datasets(table)
        for model in settings.model_names(table, dataset)
        if (name := part_name(settings, dataset, model)) in bodies
    }
    blocks = {
        place: len(bodies[part_name(settings, *place)][0].blocks)  # type: ignore[arg-type]
        for place, size in sizes.items()
        if size.kind == "vit"
    }
    jobs = table_jobs(settings, sizes, counts)
    sweeps = sweep_jobs(figure_sweeps(), settings, sizes, blocks, counts)
    in_time = bool(found) and all(one is not None for one in found.values())
    weights = {name: one.seconds if in_time and one else 1.0 for name, one in found.items()}
    whole = cost_of(jobs, weights)
    on_gpu = [name for name, one in found.items() if one is not None and one.bytes_per_image is not None]
    precisions = {}
    if settings.precision == "float32" and on_gpu:
        costliest = max(on_gpu, key=lambda name: cost_of([job for job in jobs if job.model == name], weights))
        precisions = _other_formats(*bodies[costliest], device, found[costliest])
    return CostReport(
        model_costs(jobs, found),
        tuple(shares(jobs, lambda job: job.method, weights, whole)),
        tuple(table_shares(jobs, weights, whole)),
        tuple(sorted(shares(sweeps, lambda job: job.figure, weights, whole), key=lambda share: share.name)),
        tuple(choices(settings, [*jobs, *sweeps], sizes, weights, precisions)),
        in_time,
        disk_bytes([*jobs, *sweeps]),
        tuple(_memory(found, device, batch_size)) if timing else (),
    )


def _other_formats(body: nn.Module, size: ModelSize, device: str, now: Measured | None) -> dict[str, float]:
    """Time of a pass in other number formats, relative to float32, for those that the device supports."""
    found = {}
    for name in OTHER_FORMATS if now else ():
        try:
            other = measured(body, size.image_size, device, name)
        except (InputError, RuntimeError):  # raised by torch for a format that the device does not support
            continue
        if now is not None and other is not None:
            found[name] = other.seconds / now.seconds
    return found


def _memory(found: Mapping[str, Measured | None], device: str, batch_size: int) -> list[str]:
    """Sentences on models that do not fit into the free memory with the run's batch size."""
    free = free_memory(as_device(device))
    sentences = []
    for name, one in found.items():
        if one is None:
            sentences.append(f"{name} was not timed: its weights do not fit into the free memory of {device}.")
        elif one.bytes_per_image is not None and one.weights_bytes + batch_size * one.bytes_per_image > free:
            fits = max(1, (free - one.weights_bytes) // max(1, one.bytes_per_image))
            need = one.weights_bytes + batch_size * one.bytes_per_image
            sentences.append(
                f"{name} needs {need / _GB:.1f} GB for its weights and {batch_size} images at once, and {device} has "
                f"{free / _GB:.1f} GB free: --batch-size {fits}."
            )
    return sentences
