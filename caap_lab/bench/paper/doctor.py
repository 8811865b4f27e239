"""`doctor`: what of the paper profile's weights and data sets is here, how to get the rest, and what a run costs."""

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
    cost: CostReport
    possible: tuple[int, ...]
    """The chosen tables for which all is here, of some of their data sets at least."""
    left_out: tuple[str, ...]
    """What a run does not compute, in sentences."""

    @property
    def costs(self) -> tuple[Cost, ...]:
        """What the tables cost on each model, in the paper's order; models that are not known are left out."""
        return self.cost.models

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
        InputError: there is no such device, or it lacks the number format, or the settings leave nothing to compute;
            what a part lacks stands in its report.
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
