"""The two profiles of the paper's tables: `paper`, on its models and data sets, and `demo`, on the bundled world."""

from collections.abc import Sequence
from dataclasses import replace

from caap_lab.bench.identity import classes_are_texts
from caap_lab.bench.paper_parts import DATASETS, HEADS, IMAGES, MODELS, chosen_tables, group_of
from caap_lab.bench.paper_settings import PaperSettings
from caap_lab.bench.plan import BenchmarkPlan, Data, Study
from caap_lab.bench.published import METHODS, names
from caap_lab.data.image_set import ImageSet, read_list
from caap_lab.data.open import open_images
from caap_lab.errors import InputError
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.models.targets import Logit
from caap_lab.variant import Variant, parse_variant

DEMO_DATASETS = {
    "ImageNet-1K": "demo:single",
    "ImageNet-S": "demo:two",
    "ImageNet-Hard": "demo:bright-ink",
    "Oxford-IIIT-Pet": "demo:twice",
    "Food-101": "demo:spurious",
}
"""What stands in for the paper's data sets in the demo profile."""
DEMO_MODELS = {"ViT": "demo", "CLIP": "demo-clip", "DINOv2": "demo-dinov2", "DeiT3": "demo-deit3"}
"""What stands in for the paper's families."""
DEMO_CNN = {"ResNet-18": "demo-cnn"}
DEMO_IMAGES = 12


def stand_in(name: str) -> str | None:
    """What the demo profile has in the place of one of the paper's data sets or models; None where it has nothing."""
    return DEMO_DATASETS.get(name) or DEMO_CNN.get(name) or DEMO_MODELS.get(name.partition("-")[0])


def stand_ins(table: int) -> str:
    """What stands in for the data sets and models of one of the paper's tables in the demo profile, as a sentence."""
    pairs = [(stand_in(name), name) for what in ("dataset", "model") for name in names(table, what)]
    return f"Stand-ins: {', '.join(f'{own} for {name}' for own, name in pairs if own)}."


def paper_name(table: int, label: str) -> str:
    """The paper's name for a model of one of its tables, by what the plan of either profile calls it."""
    return next((name for name in names(table, "model") if label in (name, stand_in(name))), label)


def demo_plan(images: int = DEMO_IMAGES, chosen: Sequence[int] | None = None) -> BenchmarkPlan:
    """All tables on the bundled world, laid out as the paper's, under the names of what stands in for its own.

    Args:
        images: Scenes of each kind.
        chosen: Numbers of tables; all by default.
    """
    sets = {name: open_images(source).sample(images, seed=0) for name, source in DEMO_DATASETS.items()}
    notes = (
        f"Scaled down: the bundled world stands in for the paper's models and data sets ({images} generated scenes of "
        f"each kind instead of {IMAGES['faithfulness']} and {IMAGES['localisation']} photos, at 64 x 64 pixels).",
        "The bundled models have one size: tables 4, 6 and 8 (5, 7 and 9) show the same maps as table 1 (2).",
        f"Of the CNNs only {', '.join(DEMO_CNN)} has a counterpart; the others are left out of tables 14 and 15.",
    )
    studies = []
    for table in chosen_tables(chosen):
        for dataset in names(table, "dataset"):
            own = [model for name in names(table, "model", dataset) if (model := stand_in(name))]
            methods = tuple(parse_variant(f"{name}={METHODS[name]}") for name in names(table, "method", dataset))
            studies.append(_study(table, dataset, sets[dataset], tuple(map(parse_variant, own)), methods, ""))
    return BenchmarkPlan(tuple(studies), curve_protocol("rise"), "demo", notes)


def paper_plan(settings: PaperSettings) -> BenchmarkPlan:
    """The paper's tables on its own models and data sets: of each table what there are data for.

    Raises:
        InputError: a chosen table has none of its data sets, or a model lacks its head or its classifier; the message
            says what to give, and how to leave it out.
    """
    parts = _parts_of_paper(settings)
    sets = {name: open_images(source) for name, source in settings.data.items() if name in {d for _, d in parts}}
    lists = {name: sets[name].only(read_list(path)) for name, path in settings.image_lists.items() if name in sets}
    studies = []
    for table, dataset in parts:
        images = {**sets, **lists}[dataset]
        count = settings.count(table, dataset)
        if dataset not in lists and len(images) > count:
            images = images.sample(count, settings.seed)
        models = tuple(_classifier(settings, dataset, name) for name in settings.model_names(table, dataset))
        methods = tuple(parse_variant(f"{name}={METHODS[name]}") for name in settings.method_names(table, dataset))
        if models and methods:
            studies.append(_study(table, dataset, images, models, methods, dataset))
    if not studies:
        raise InputError("Nothing is left to compute: all models or methods of the chosen tables are left out.")
    notes = (
        "The paper names no checkpoints, and neither its cutoff nor the details of its curves could be recovered: the "
        "values that ran are in each row's settings and protocol.",
        *left_out(settings),
    )
    return BenchmarkPlan(tuple(studies), curve_protocol(settings.protocol), "paper", notes)


def left_out(settings: PaperSettings) -> list[str]:
    """What of the chosen tables is not computed, in sentences: for want of data, or since the user leaves it out."""
    there, sentences = _parts_of_paper(settings), []
    for table in settings.wanted:
        missing = [name for name in names(table, "dataset") if (table, name) not in there]
        if missing:
            whole = len(missing) == len(names(table, "dataset"))
            sentences.append(f"Table {table} is left out{'' if whole else ' in part'}: no {', '.join(missing)}.")
    chosen = {*(settings.methods or METHODS), *MODELS} - {*settings.without}
    named = [*names_of_tables(settings, "model"), *names_of_tables(settings, "method")]
    gone = [name for name in named if name not in chosen]
    return [*sentences, *([f"Left out: {', '.join(gone)}."] if gone else [])]


def names_of_tables(settings: PaperSettings, what: str) -> list[str]:
    """The models, methods or data sets of the chosen tables, in the paper's order, those that are left out too."""
    return list(dict.fromkeys(name for table in settings.wanted for name in names(table, what)))


def _parts_of_paper(settings: PaperSettings) -> list[tuple[int, str]]:
    """Tables with the data sets that there are copies of.

    Raises:
        InputError: there are none for a table that was asked for by number, or none at all.
    """
    parts = [
        (table, dataset)
        for table in settings.wanted
        for dataset in settings.datasets(table)
        if dataset in settings.data
    ]
    empty = [table for table in settings.wanted if table not in {number for number, _ in parts}]
    if empty and (settings.tables or not parts):
        needed = dict.fromkeys(name for table in empty for name in settings.datasets(table))
        where = ", ".join(f"{name} (--data {DATASETS[name]}:PATH)" for name in needed) or "data sets that are left out"
        rest = [table for table in settings.wanted if table not in empty]
        without = f" Without them: --tables {' '.join(map(str, rest))}." if rest else ""
        which = f"table{'s' * (len(empty) > 1)} {', '.join(map(str, empty))}"
        raise InputError(f"For {which} there is no {where}.{without} `caap-lab doctor` says how to get each.")
    return parts


def _classifier(settings: PaperSettings, dataset: str, name: str) -> Variant:
    """The model of a data set, with its head.

    Raises:
        InputError: it has none.
    """
    spec = settings.model(dataset, name)
    if spec is None:
        raise InputError(
            f"{dataset} needs a {name} with its own classes, which nobody publishes: --models "
            f'"{dataset}/{name}=FOLDER". `caap-lab train` makes one; --without {dataset} leaves the data set out.'
        )
    if name in HEADS and "head" not in spec.options and spec.name == parse_variant(MODELS[name]).name:
        raise InputError(
            f"{name} needs DINOv2's linear head, the file {HEADS[name]} of the dinov2 repository: --head {name}=PATH. "
            f"`caap-lab doctor` lists all that is missing; --without {name} leaves the model out."
        )
    return spec


def _study(
    table: int,
    dataset: str,
    images: ImageSet,
    models: tuple[Variant, ...],
    methods: tuple[Variant, ...],
    label: str,
) -> Study:
    """One data set of one of the paper's tables."""
    data = Data(images.source, tuple(sample.name for sample in images), images.chosen, label)
    target = "label" if dataset == "ImageNet-S" else "prediction"
    return _by_own_logit(Study(data, models, methods, (group_of(table, dataset),), target, table))


def _by_own_logit(study: Study) -> Study:
    """The study with a class explained by its own logit, where a user's model has texts as classes.

    The paper speaks of class scores, and nowhere of a contrast; its CLIP columns seem to be fine-tuned models with
    linear heads. So its tables compare what it compared, although gradients of texts' own logits say little.
    """
    texts = any(classes_are_texts(spec) for spec in study.models)
    return replace(study, target=Logit(study.target)) if texts and isinstance(study.target, str) else study
