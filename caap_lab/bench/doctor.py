"""`doctor`: what of the paper profile's weights and data sets is here, how to get the rest, and what a run costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from timm.models import get_pretrained_cfg

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import find_method
from caap_lab.bench.paper_parts import DATASETS, HEADS, HEADS_HOME, MODELS, group_of
from caap_lab.bench.paper_settings import PaperSettings
from caap_lab.bench.published import METHODS
from caap_lab.bench.run_cost import architecture, curve_passes, seconds_per_pass
from caap_lab.data.image_set import read_list
from caap_lab.data.open import KINDS, open_images
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import METRICS
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.models.checkpoint import check_file
from caap_lab.models.heads import read_head
from caap_lab.models.hub import cached_weights
from caap_lab.models.hugging_face.folder import HUB, is_here, names_folder
from caap_lab.models.load import bundled_models
from caap_lab.variant import Variant, parse_variant


@dataclass(frozen=True)
class Part:
    """Weights, a head file or a data set."""

    name: str
    """The paper's name of the model or data set."""
    here: bool
    """True if a run can use it."""
    report: str
    """Where it is, or what is wrong and how to get it."""
    images: int | None = None
    """Images of a data set that is here."""


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

    tables: tuple[int, ...]
    """The chosen tables."""
    weights: tuple[Part, ...]
    heads: tuple[Part, ...]
    data: tuple[Part, ...]
    costs: tuple[Cost, ...]
    """In the paper's order; models that are not known are left out."""
    possible: tuple[int, ...]
    """The chosen tables for which all is here."""

    @property
    def complete(self) -> bool:
        """True if nothing is missing."""
        return all(part.here for part in (*self.weights, *self.heads, *self.data))


def doctor(settings: PaperSettings | None = None, *, device: str = "cpu", timing: bool = True) -> Report:
    """Look for all that the paper profile needs; nothing is downloaded.

    Args:
        settings: What a run computes; by default the whole profile.
        device: Where forward passes are timed.
        timing: False leaves that out, which takes about a minute for all tables on a CPU.
    """
    settings = settings or PaperSettings()
    tables = settings.wanted
    curves = curve_protocol(settings.protocol)
    used = {
        model
        for table in tables
        for dataset in settings.datasets(table)
        for model in settings.model_names(table, dataset)
    }
    needed = list(dict.fromkeys(dataset for table in tables for dataset in settings.datasets(table)))
    sets = [_data(name, settings.data.get(name), settings.image_lists.get(name)) for name in needed]
    counts = {part.name: part.images for part in sets}

    weights, head_parts, costs = [], [], []
    times: dict[tuple[str, tuple[int, int]], float | None] = {}
    for name in (name for name in MODELS if name in used):
        spec = settings.model("ImageNet-1K", name)
        assert spec is not None
        try:
            if names_folder(spec.name) and not is_here(spec.name):  # what it is stands in its config.json
                raise InputError(f"{spec.name} is not in the Hugging Face cache")
            body, size = architecture(spec)
        except InputError as error:
            weights.append(Part(name, False, str(error)))
            continue
        weights.append(_weights(name, spec))
        if name in HEADS or "head" in spec.options:
            head_parts.append(_head(name, spec))
        key = (spec.name if names_folder(spec.name) else spec.name.partition(".")[0], size.image_size)
        if timing and key not in times:
            times[key] = seconds_per_pass(body, size.image_size, device)
        trials, passes = _passes(name, settings, size, curves, counts)
        costs.append(Cost(name, trials, passes, times.get(key)))

    absent = {part.name for part in (*weights, *head_parts, *sets) if not part.here}
    possible = [
        t
        for t in tables
        if not absent & {*(n for d in settings.datasets(t) for n in settings.model_names(t, d)), *settings.datasets(t)}
    ]
    return Report(tuple(tables), tuple(weights), tuple(head_parts), tuple(sets), tuple(costs), tuple(possible))


def advice(report: Report) -> list[str]:
    """How to get what is missing, beyond what each part says."""
    weights, heads, data = (
        [part.name for part in parts if not part.here] for parts in (report.weights, report.heads, report.data)
    )
    lines = []
    if weights:
        offline = " It is set here." if constants.HF_HUB_OFFLINE else ""
        lines.append(
            "Weights: a run, or cl.load_model, downloads them where the Hugging Face hub can be reached; "
            f'HF_HUB_OFFLINE=1 forbids it.{offline} Or give a file: --models "{weights[0]}=NAME:checkpoint=PATH".'
        )
    if heads:
        lines.append(f"Heads: {HEADS_HOME}. Nothing downloads them.")
    if data:
        lines.append("Data: nothing is downloaded; the page Data of the documentation shows the layouts.")
    return lines


def _weights(name: str, spec: Variant) -> Part:
    """Whether a run finds the weights without a network. A file is not read, as that takes long."""
    checkpoint = spec.options.get("checkpoint")
    if checkpoint is not None:
        try:
            check_file(Path(checkpoint))
        except InputError as error:
            return Part(name, False, f"{spec.name}: {error}")
        return Part(name, True, f"{spec.name} in {checkpoint}")
    if spec.name in bundled_models():
        return Part(name, True, f"{spec.name} comes with caap_lab")
    if names_folder(spec.name):
        place = "in the Hugging Face cache" if spec.name.startswith(HUB) else "a folder"
        return Part(name, True, f"{spec.name} is {place}")
    config = get_pretrained_cfg(spec.name)
    if config is None or not config.hf_hub_id:
        return Part(name, False, f"{spec.name}: timm has no weights for it")
    cached = cached_weights(config.hf_hub_id, config.hf_hub_filename)
    if cached is None:
        return Part(name, False, f"{config.hf_hub_id} is not in the Hugging Face cache")
    return Part(name, True, f"{config.hf_hub_id} is in the Hugging Face cache")


def _head(name: str, spec: Variant) -> Part:
    """Whether the head file can be read and fits the model."""
    path = spec.options.get("head")
    if path is None:
        return Part(name, False, f"--head {name}=PATH, the file {HEADS[name]}")
    try:
        read_head(path, architecture(spec)[0])  # a model of its own, as an ordinary head is put into it
    except InputError as error:
        return Part(name, False, str(error))
    return Part(name, True, f"in {path}")


def _data(name: str, source: str | None, image_list: str | Path | None) -> Part:
    kind = DATASETS[name]
    if source is None:
        return Part(name, False, f"--data {kind}:PATH, from {KINDS[kind].home}")
    try:
        images = open_images(source)
        if image_list is not None:
            images = images.only(read_list(image_list))
        first = images[0]
        first.read_image()  # opening reads none, so that a list without its photos looks fine
        if first.read_regions is not None:
            first.read_regions()
    except InputError as error:
        return Part(name, False, str(error))
    masks = "with masks" if images.has_masks else "without masks"
    return Part(name, True, f"{len(images)} images {masks} in {source.partition(':')[2]}", len(images))


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
