"""The two profiles of the paper's tables: `paper`, on its models and data sets, and `demo`, on the bundled world."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from caap_lab.bench.identity import classes_are_texts
from caap_lab.bench.paper.images import chosen_images, drawn, few_images
from caap_lab.bench.paper.parts import DATASETS, HEADS, IMAGES, MODELS, group_of
from caap_lab.bench.paper.published import METHODS, names
from caap_lab.bench.paper.settings import PaperSettings, given_settings
from caap_lab.bench.plan import BenchmarkPlan, Data, Study
from caap_lab.data.image_set import ImageSet
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
"""Replacements for the paper's data sets in the demo profile."""
DEMO_MODELS = {"ViT": "demo", "CLIP": "demo-clip", "DINOv2": "demo-dinov2", "DeiT3": "demo-deit3"}
"""Replacements for the paper's families of models."""
DEMO_CNN = {"ResNet-18": "demo-cnn"}
DEMO_IMAGES = 12
_NOTHING_LEFT = "Nothing is left to compute: all data sets, models or methods of the chosen tables are omitted."


def stand_in(name: str) -> str | None:
    """The demo profile's stand-in for one of the paper's data sets or models; None if it has none."""
    return DEMO_DATASETS.get(name) or DEMO_CNN.get(name) or DEMO_MODELS.get(name.partition("-")[0])


def stand_ins(table: int) -> str:
    """The stand-ins for the data sets and models of one of the paper's tables in the demo profile, as a sentence."""
    pairs = [(stand_in(name), name) for what in ("dataset", "model") for name in names(table, what)]
    return f"Stand-ins: {', '.join(f'{own} for {name}' for own, name in pairs if own)}."


def paper_name(table: int, label: str) -> str:
    """The paper's name for a model of one of its tables, from its name in either profile's plan."""
    return next((name for name in names(table, "model") if label in (name, stand_in(name))), label)


def demo_plan(
    images: int = DEMO_IMAGES,
    chosen: Sequence[int] | None = None,
    *,
    methods: Sequence[str] = (),
    without: Sequence[str] = (),
) -> BenchmarkPlan:
    """All tables on the bundled world, in the paper's layout, under the names of the stand-ins.

    Args:
        images: Number of scenes of each kind.
        chosen: Table numbers; all by default.
        methods: The paper's names for methods, or ours; all by default.
        without: The paper's names for methods, models and data sets to omit.

    Raises:
        InputError: a name is not one of the paper's, or nothing is left to compute.
    """
    settings = given_settings(tables=chosen, methods=methods, without=without)
    sets = {name: open_images(source).sample(images, seed=0) for name, source in DEMO_DATASETS.items()}
    notes = (
        f"Scaled down: the bundled world stands in for the paper's models and data sets ({images} generated scenes of "
        f"each kind instead of {IMAGES['faithfulness']} and {IMAGES['localisation']} photos, at 64 x 64 pixels).",
        "The bundled models have one size: tables 4, 6 and 8 (5, 7 and 9) show the same maps as table 1 (2).",
        f"Of the CNNs only {', '.join(DEMO_CNN)} has a counterpart; the others are left out of tables 14 and 15.",
    )
    studies = []
    for table in settings.wanted:
        for dataset in settings.datasets(table):
            own = [model for name in settings.model_names(table, dataset) if (model := stand_in(name))]
            some = _methods(settings, table, dataset)
            if own and some:
                studies.append(_study(table, dataset, sets[dataset], tuple(map(parse_variant, own)), some, ""))
    return BenchmarkPlan(_some(studies), curve_protocol("rise"), "demo", (*notes, *_on_request(settings)))


def paper_plan(settings: PaperSettings) -> BenchmarkPlan:
    """The paper's tables on its own models and data sets, for all data sets that are given.

    Raises:
        InputError: a chosen table has none of its data sets, a data set cannot be opened, or a model lacks its head or
            its classifier; the message lists all problems, with what to pass or how to omit the part.
    """
    studies, problems = gathered(settings)
    if problems:
        raise InputError(_all_at_once(problems))
    notes = (
        "The paper names no checkpoints, and neither its cutoff nor the details of its curves could be recovered: the "
        "values that ran are in each row's settings and protocol.",
        *left_out(settings),
    )
    return BenchmarkPlan(_some(studies), curve_protocol(settings.protocol), "paper", notes)


def gathered(settings: PaperSettings) -> tuple[list[Study], list[str]]:
    """The studies of the chosen tables, as far as the parts they need are given, and what is missing, as sentences."""
    problems: dict[str, None] = {}
    parts = _parts_of_paper(settings, problems)
    chosen = _images(settings, parts, problems)
    studies = []
    for table, dataset in parts:
        found = {name: classifier(settings, dataset, name) for name in settings.model_names(table, dataset)}
        problems |= dict.fromkeys(one for one in found.values() if isinstance(one, str))
        models = tuple(one for one in found.values() if not isinstance(one, str))
        methods = _methods(settings, table, dataset)
        if dataset in chosen and models and methods:
            images = drawn(settings, dataset, chosen[dataset], settings.count(table, dataset))
            studies.append(_study(table, dataset, images, models, methods, dataset))
    return studies, list(problems)


def left_out(settings: PaperSettings) -> list[str]:
    """Parts of the chosen tables that are not computed, as sentences: data are missing, or the user omits them."""
    whole: dict[tuple[str, ...], list[int]] = {}
    partly: dict[tuple[str, ...], list[int]] = {}
    for table in settings.wanted:
        datasets = settings.datasets(table)
        missing = tuple(name for name in datasets if name not in settings.data)
        if missing:
            (whole if len(missing) == len(datasets) else partly).setdefault(missing, []).append(table)
    sentences = [
        f"{_tables(tables)} left out{how}: there is no copy of {_listed(missing)}."
        for found, how in ((whole, ""), (partly, " in part"))
        for missing, tables in found.items()
    ]
    return [*sentences, *_on_request(settings)]


def _on_request(settings: PaperSettings) -> list[str]:
    """The parts of the chosen tables that the user omits, as a sentence."""
    kept = {*(settings.methods or METHODS), *MODELS, *DATASETS} - {*settings.without}
    named = [name for what in ("dataset", "model", "method") for name in names_of_tables(settings, what)]
    gone = [name for name in named if name not in kept]
    return [f"Left out on request: {', '.join(gone)}."] if gone else []


def names_of_tables(settings: PaperSettings, what: str) -> list[str]:
    """The models, methods or data sets of the chosen tables, in the paper's order, including omitted ones."""
    return list(dict.fromkeys(name for table in settings.wanted for name in names(table, what)))


def classifier(settings: PaperSettings, dataset: str, name: str) -> Variant | str:
    """The model of a data set, with its head; or a sentence on what is missing and how to omit it."""
    spec = settings.model(dataset, name)
    if spec is None:
        return (
            f"{dataset} needs a {name} with its own classes, and none is published: --models "
            f'"{dataset}/{name}=FOLDER". {make_classifier(settings, dataset, name)} trains one; --without {dataset} '
            "omits the data set."
        )
    if needs_head(name, spec):
        return (
            f"{name} needs DINOv2's linear head, the file {HEADS[name]} of the dinov2 repository: --head {name}=PATH; "
            f"--without {name} omits the model."
        )
    return spec


def make_classifier(settings: PaperSettings, dataset: str, name: str) -> str:
    """The command that trains a classifier for a data set with its own classes."""
    spec = settings.models.get(name) or parse_variant(MODELS[name])
    data = settings.data.get(dataset) or f"{DATASETS[dataset]}:PATH"
    return f"`{shlex.join(['caap-lab', 'train', spec.text, '--data', data, '--out', 'FOLDER'])}`"


def needs_head(name: str, spec: Variant) -> bool:
    """True for a DINOv2 model without a classifier."""
    return name in HEADS and "head" not in spec.options and spec.name == parse_variant(MODELS[name]).name


def _parts_of_paper(settings: PaperSettings, problems: dict[str, None]) -> list[tuple[int, str]]:
    """Tables with the data sets that are given; adds a problem if a requested table has none."""
    parts = [
        (table, dataset)
        for table in settings.wanted
        for dataset in settings.datasets(table)
        if dataset in settings.data
    ]
    empty = [table for table in settings.wanted if table not in {number for number, _ in parts}]
    if empty and (settings.tables or not parts):
        needed = dict.fromkeys(name for table in empty for name in settings.datasets(table))
        where = ", ".join(f"{name} (--data {DATASETS[name]}:PATH)" for name in needed)
        rest = [table for table in settings.wanted if table not in empty]
        without = f" Without {'them' if len(empty) > 1 else 'it'}: --tables {' '.join(map(str, rest))}." if rest else ""
        which = f"table{'s' * (len(empty) > 1)} {', '.join(map(str, empty))}"
        if where:
            problems[f"For {which} there is no {where}.{without} `caap-lab doctor` says how to get each."] = None
        else:
            problems[f"For {which} all data sets are omitted.{without}"] = None
    return parts


def _images(
    settings: PaperSettings, parts: Sequence[tuple[int, str]], problems: dict[str, None]
) -> dict[str, ImageSet]:
    """The data sets of some tables, opened; adds a problem for one that cannot be opened or has too few images."""
    found = {}
    for dataset in dict.fromkeys(dataset for _, dataset in parts):
        try:
            found[dataset] = images = chosen_images(settings, dataset)
        except InputError as error:
            problems[f"{dataset}: {error}"] = None
            continue
        problem = few_images(settings, dataset, len(images))
        problems |= dict.fromkeys([problem] if problem else [])
    return found


def _methods(settings: PaperSettings, table: int, dataset: str) -> tuple[Variant, ...]:
    return tuple(parse_variant(f"{name}={METHODS[name]}") for name in settings.method_names(table, dataset))


def check_left(settings: PaperSettings) -> None:
    """Raise InputError if the settings leave nothing to compute.

    Raises:
        InputError: all data sets, models or methods of the chosen tables are omitted.
    """
    parts = [(table, dataset) for table in settings.wanted for dataset in settings.datasets(table)]
    if not any(settings.model_names(*part) and settings.method_names(*part) for part in parts):
        raise InputError(_NOTHING_LEFT)


def _some(studies: Sequence[Study]) -> tuple[Study, ...]:
    if not studies:
        raise InputError(_NOTHING_LEFT)
    return tuple(studies)


def _all_at_once(problems: Sequence[str]) -> str:
    """One message for all problems."""
    if len(problems) == 1:
        return problems[0]
    return "\n  - ".join([f"{len(problems)} things are missing or cannot be used:", *problems])


def _tables(numbers: Sequence[int]) -> str:
    """Subject and verb of a sentence: "Table 2 is", "Tables 2, 5 and 7 are"."""
    return f"Table {numbers[0]} is" if len(numbers) == 1 else f"Tables {_listed(list(map(str, numbers)))} are"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


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
    """The study with classes explained by their own logits if the user's model has texts as classes.

    The paper describes class scores, never a contrast; its CLIP columns seem to be fine-tuned models with linear heads.
    So its tables compare what it compared, although gradients of texts' own logits carry little information.
    """
    texts = any(classes_are_texts(spec) for spec in study.models)
    return replace(study, target=Logit(study.target)) if texts and isinstance(study.target, str) else study
