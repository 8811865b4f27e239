"""`doctor`: the weights and data sets that the paper profile needs, how to get missing ones, and the cost of a run."""

from dataclasses import dataclass, replace

from huggingface_hub import constants

from caap_lab.bench.paper.cost_report import CostReport, cost_report
from caap_lab.bench.paper.costs import Cost
from caap_lab.bench.paper.needs import (
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
from caap_lab.bench.paper.parts import HEADS_HOME, OWN_CLASSES
from caap_lab.bench.paper.profiles import check_left, left_out
from caap_lab.bench.paper.settings import PaperSettings, split_model
from caap_lab.models.device_dtype import as_device
from caap_lab.models.products import TF32, check_tf32


@dataclass(frozen=True)
class Report:
    """The report that `caap-lab doctor` prints."""

    settings: PaperSettings
    """Settings of the run."""
    tables: tuple[int, ...]
    """The chosen tables."""
    weights: tuple[Part, ...]
    heads: tuple[Part, ...]
    classifiers: tuple[Part, ...]
    """Models for data sets with their own classes."""
    data: tuple[Part, ...]
    cost: CostReport
    possible: tuple[int, ...]
    """The chosen tables that can run, at least on some of their data sets."""
    left_out: tuple[str, ...]
    """Parts that a run does not compute, as sentences."""

    @property
    def costs(self) -> tuple[Cost, ...]:
        """The cost of the tables for each model, in the paper's order; unknown models are omitted."""
        return self.cost.models

    @property
    def complete(self) -> bool:
        """True if nothing is missing."""
        return all(part.here for part in (*self.weights, *self.heads, *self.classifiers, *self.data))


def doctor(
    settings: PaperSettings | None = None,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    timing: bool = True,
    quick: bool = False,
    progress: bool = False,
) -> Report:
    """Check all that the paper profile needs, as a run would; nothing is downloaded.

    Args:
        settings: Settings of the run; by default the complete profile.
        device: Device on which models are tried and forward passes timed.
        batch_size: Number of changed images that run at once; they have to fit into a GPU's memory.
        timing: False to skip timing a forward pass, which takes about a minute for all tables on a CPU.
        quick: True to check that files exist without opening each model and image.
        progress: Show progress bars.

    Raises:
        InputError: the device does not exist or does not support the number format, or the settings leave nothing to
            compute; problems of single parts are in the report.
    """
    settings = settings or PaperSettings()
    check_left(settings)
    place = as_device(device)
    if settings.precision == TF32 and (timing or not quick):
        check_tf32(place)
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
        models |= {
            name: replace(models[name], here=False, unfit=True, report=wrong[name]) for name in models if name in wrong
        }
        data |= {
            name: replace(data[name], here=False, unfit=True, report=wrong[name]) for name in data if name in wrong
        }
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
        cost_report(settings, {name: part.images for name, part in data.items()}, built, device, batch_size, timing),
        tuple(table for table in settings.wanted if _is_possible(settings, table, absent)),
        tuple(left_out(settings)),
    )


def _is_possible(settings: PaperSettings, table: int, absent: set[str]) -> bool:
    """True if there are data for a table and nothing that they need is missing."""
    there = [dataset for dataset in settings.datasets(table) if dataset in settings.data]
    used = {part_name(settings, dataset, name) for dataset in there for name in settings.model_names(table, dataset)}
    return bool(there) and not absent & {*there, *used}


def advice(report: Report) -> list[str]:
    """How to get what is missing, in addition to the parts' own reports."""
    parts = (report.weights, report.heads, report.classifiers, report.data)
    weights, heads, classifiers, data = ([part for part in one if not part.here] for one in parts)
    lines = []
    absent = [part.name for part in weights if part.report.endswith(NOT_CACHED)]
    if absent:
        offline = " It is set here." if constants.HF_HUB_OFFLINE else ""
        lines.append(
            "Weights: a run, or cl.load_model, downloads them where the Hugging Face hub can be reached; "
            f'HF_HUB_OFFLINE=1 forbids it.{offline} Or pass a file: --models "{absent[0]}=NAME:checkpoint=PATH".'
        )
    if heads:
        lines.append(f"Heads: {HEADS_HOME}. Nothing downloads them.")
    if classifiers:
        lines.append("Classifiers: none are published; train them, or omit their data sets with --without.")
    if data:
        lines.append("Data: nothing is downloaded; the page Data of the documentation shows the layouts.")
    return lines
