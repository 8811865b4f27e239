"""`doctor`: what of the paper profile's weights and data sets is here, how to get the rest, and what a run costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from huggingface_hub import constants

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import find_method
from caap_lab.bench.check import known_architecture
from caap_lab.bench.needs import (
    NOT_CACHED,
    Built,
    Checking,
    Part,
    data_part,
    head_part,
    model_part,
    opened,
    part_name,
    used_models,
)
from caap_lab.bench.paper_parts import HEADS_HOME, MODELS, OWN_CLASSES, group_of
from caap_lab.bench.paper_settings import PaperSettings, split_model
from caap_lab.bench.profiles import left_out
from caap_lab.bench.published import METHODS
from caap_lab.bench.run_cost import curve_passes, seconds_per_pass
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import METRICS
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.models.device_dtype import as_device
from caap_lab.models.hugging_face.folder import is_here, names_folder
from caap_lab.variant import parse_variant


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

    @property
    def seconds(self) -> float | None:
        """Estimated time for all passes, one process at work."""
        return None if self.seconds_per_pass is None else self.passes * self.seconds_per_pass


@dataclass(frozen=True)
class Report:
    """Everything that `caap-lab doctor` tells."""

    settings: PaperSettings
    """What a run computes."""
    tables: tuple[int, ...]
    """The chosen tables."""
    weights: tuple[Part, ...]
    heads: tuple[Part, ...]
    classifiers: tuple[Part, ...]
    """Models for data sets that have classes of their own."""
    data: tuple[Part, ...]
    costs: tuple[Cost, ...]
    """In the paper's order; models that are not known are left out."""
    possible: tuple[int, ...]
    """The chosen tables for which all is here, of some of their data sets at least."""
    left_out: tuple[str, ...]
    """What a run does not compute, in sentences."""

    @property
    def complete(self) -> bool:
        """True if nothing is missing."""
        return all(part.here for part in (*self.weights, *self.heads, *self.classifiers, *self.data))


def doctor(
    settings: PaperSettings | None = None,
    *,
    device: str = "cpu",
    batch_size: int = 1,
    timing: bool = True,
    quick: bool = False,
    progress: bool = False,
) -> Report:
    """Look for all that the paper profile needs, and try it as a run does; nothing is downloaded.

    Args:
        settings: What a run computes; by default the whole profile.
        device: Where models are tried, and forward passes timed.
        batch_size: Changed images that a run has at once, which have to fit into a GPU's memory.
        timing: False leaves out the time of a forward pass, which takes about a minute for all tables on a CPU.
        quick: True to look for files without opening each model and image.
        progress: Show progress bars.

    Raises:
        InputError: there is no such device; what a part lacks stands in its report.
    """
    settings = settings or PaperSettings()
    as_device(device)
    how = Checking(device, batch_size, quick, progress)
    needed = list(dict.fromkeys(dataset for table in settings.wanted for dataset in settings.datasets(table)))
    data = {name: data_part(settings, name, how) for name in needed}
    specs = used_models(settings)
    built: Built = {}
    models = {name: model_part(settings, name, spec, built) for name, spec in specs.items()}
    known = {name: spec for name, spec in specs.items() if spec is not None}
    heads = {name: part for name, spec in known.items() if (part := head_part(name, spec, built))}
    if not quick:
        loadable = {
            name: spec for name, spec in known.items() if models[name].here and (name not in heads or heads[name].here)
        }
        wrong = opened(settings, loadable, {name for name, part in data.items() if part.here}, how)
        models |= {name: replace(models[name], here=False, report=wrong[name]) for name in models if name in wrong}
        data |= {name: replace(data[name], here=False, report=wrong[name]) for name in data if name in wrong}
    absent = {
        *(name for parts in (models, heads) for name, part in parts.items() if not part.here),
        *(name for name, part in data.items() if name in settings.data and not part.here),
    }
    return Report(
        settings,
        tuple(settings.wanted),
        tuple(part for name, part in models.items() if split_model(name)[0] not in OWN_CLASSES),
        tuple(heads.values()),
        tuple(part for name, part in models.items() if split_model(name)[0] in OWN_CLASSES),
        tuple(data.values()),
        _costs(settings, {name: part.images for name, part in data.items()}, built, device, timing),
        tuple(table for table in settings.wanted if _is_possible(settings, table, absent)),
        tuple(left_out(settings)),
    )


def _is_possible(settings: PaperSettings, table: int, absent: set[str]) -> bool:
    """True if there are data for a table, and nothing is missing for them."""
    there = [dataset for dataset in settings.datasets(table) if dataset in settings.data]
    used = {part_name(settings, dataset, name) for dataset in there for name in settings.model_names(table, dataset)}
    return bool(there) and not absent & {*there, *used}


def advice(report: Report) -> list[str]:
    """How to get what is missing, beyond what each part says."""
    parts = (report.weights, report.heads, report.classifiers, report.data)
    weights, heads, classifiers, data = ([part for part in one if not part.here] for one in parts)
    lines = []
    absent = [part.name for part in weights if part.report.endswith(NOT_CACHED)]
    if absent:
        offline = " It is set here." if constants.HF_HUB_OFFLINE else ""
        lines.append(
            "Weights: a run, or cl.load_model, downloads them where the Hugging Face hub can be reached; "
            f'HF_HUB_OFFLINE=1 forbids it.{offline} Or give a file: --models "{absent[0]}=NAME:checkpoint=PATH".'
        )
    if heads:
        lines.append(f"Heads: {HEADS_HOME}. Nothing downloads them.")
    if classifiers:
        lines.append("Classifiers: nobody publishes them; train them, or leave their data sets out with --without.")
    if data:
        lines.append("Data: nothing is downloaded; the page Data of the documentation shows the layouts.")
    return lines


# --- costs ---


def _costs(
    settings: PaperSettings, counts: Mapping[str, int | None], built: Built, device: str, timing: bool
) -> tuple[Cost, ...]:
    """What each model of the chosen tables costs; models that are not known are left out."""
    curves = curve_protocol(settings.protocol)
    used = {
        model
        for table in settings.wanted
        for dataset in settings.datasets(table)
        for model in settings.model_names(table, dataset)
    }
    costs = []
    times: dict[tuple[str, tuple[int, int]], float | None] = {}
    for name in (name for name in MODELS if name in used):
        spec = settings.model("ImageNet-1K", name)
        assert spec is not None
        try:
            if names_folder(spec.name) and not is_here(spec.name):
                continue
            body, size = built[spec.text] if spec.text in built else known_architecture(spec)
        except InputError:
            continue
        key = (spec.name if names_folder(spec.name) else spec.name.partition(".")[0], size.image_size)
        if timing and key not in times:
            times[key] = seconds_per_pass(body, size.image_size, device)
        trials, passes = _passes(name, settings, size, curves, counts)
        costs.append(Cost(name, trials, passes, times.get(key)))
    return tuple(costs)


def _passes(
    model: str, settings: PaperSettings, size: ModelSize, protocol: CurveProtocol, counts: Mapping[str, int | None]
) -> tuple[int, float]:
    """Trials and forward passes of one model's share of the tables; a data set that is not here counts as large."""
    jobs: dict[tuple[str, str, str], int] = {}
    for table in settings.wanted:
        for dataset in settings.datasets(table):
            if model not in settings.model_names(table, dataset):
                continue
            there, wanted = counts.get(dataset), settings.count(table, dataset)
            listed = dataset in settings.image_lists
            count = wanted if there is None else there if listed else min(there, wanted)
            for method in settings.method_names(table, dataset):
                job = (dataset, group_of(table, dataset), method)
                jobs[job] = max(count, jobs.get(job, 0))  # the first images of a draw are those of a smaller one
    trials, passes = 0, 0.0
    for (_, group, method), count in sorted(jobs.items()):
        curves = curve_passes(protocol, size) if METRICS[group].reads_protocol else 0
        trials += count
        variant = parse_variant(METHODS[method])
        passes += count * (find_method(variant.name).passes(size, variant.options) + curves)
    return trials, passes
