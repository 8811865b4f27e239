"""The settings of a run of the paper profile, from the command line, a TOML file or both."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from caap_lab.bench.paper.parts import DATASETS, GROUPS, IMAGES, MODELS, OWN_CLASSES, chosen_tables, group_of
from caap_lab.bench.paper.published import METHODS, names, tables
from caap_lab.errors import InputError
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.models.names import nearest
from caap_lab.variant import Variant, parse_variant

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
"""Number formats in which models run."""


@dataclass(frozen=True)
class PaperSettings:
    """What a run of the paper profile computes; the defaults are the paper's."""

    data: Mapping[str, str] = field(default_factory=dict)
    """The user's copies, by the paper's name: {"ImageNet-1K": "imagenet:PATH"}."""
    image_lists: Mapping[str, str] = field(default_factory=dict)
    """Files of image names that replace the draw, by the paper's name for the data set."""
    models: Mapping[str, Variant] = field(default_factory=dict)
    """Models that replace those in `MODELS`, by the paper's name, or by "DATASET/MODEL" for one data set only."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """DINOv2's linear heads, by the paper's name for the model."""
    tables: tuple[int, ...] = ()
    """Table numbers; all by default."""
    methods: tuple[str, ...] = ()
    """The paper's names for methods; all by default."""
    without: tuple[str, ...] = ()
    """The paper's names for methods, models and data sets to omit."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Images per data set that replace those in `IMAGES`, by "faithfulness", "localisation" or "table 8"."""
    seed: int = 0
    """Seed of the draw of images."""
    protocol: str = "rise"
    """Protocol of the curves."""
    precision: str = "float32"
    """One of `PRECISIONS`."""

    def __post_init__(self) -> None:
        for name, what in (("data", DATASETS), ("image_lists", DATASETS), ("heads", MODELS)):
            _check_names(getattr(self, name), what, name)
        for name, source in self.data.items():
            if source.partition(":")[0] != DATASETS[name] or not source.partition(":")[2]:
                raise InputError(f"data: {name} is {source!r}; it has to be {DATASETS[name]}:PATH.")
        for name in self.models:
            _check_model_name(name)
        chosen_tables(self.tables)
        _check_names(self.methods, METHODS, "methods")
        _check_names(self.without, {**METHODS, **MODELS, **DATASETS}, "without")
        object.__setattr__(self, "images", _counts(self.images))
        for name, count in self.images.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"images: {name} is {count!r}; it has to be a number of images, at least 1.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed is {self.seed!r}; it has to be a whole number, at least 0.")
        curve_protocol(self.protocol)
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; it can be {', '.join(PRECISIONS)}.")

    # --- parts of tables ---

    @property
    def wanted(self) -> list[int]:
        """Numbers of the chosen tables."""
        return chosen_tables(self.tables)

    def datasets(self, table: int) -> list[str]:
        """Data sets of a table, without omitted ones."""
        return [name for name in names(table, "dataset") if name not in self.without]

    def model_names(self, table: int, dataset: str) -> list[str]:
        """Models of a table, without omitted ones."""
        return [name for name in names(table, "model", dataset) if name not in self.without]

    def method_names(self, table: int, dataset: str) -> list[str]:
        """Methods of a table, without omitted ones."""
        chosen = self.methods or tuple(METHODS)
        return [n for n in names(table, "method", dataset) if n in chosen and n not in self.without]

    def model(self, dataset: str, name: str) -> Variant | None:
        """The model used on a data set; None for a data set with its own classes and no classifier given."""
        own = self.models.get(f"{dataset}/{name}")
        if own is None and dataset in OWN_CLASSES:
            return None
        spec = own or self.models.get(name) or parse_variant(MODELS[name])
        options = dict(spec.options)
        if name in self.heads and own is None:
            options["head"] = self.heads[name]
        if self.precision != "float32":
            options.setdefault("dtype", self.precision)
        return Variant(spec.name, options, name)

    def count(self, table: int, dataset: str) -> int:
        """Number of images of a table's data set."""
        group, own = group_of(table, dataset), f"table {table}"
        for counts in (self.images, IMAGES):
            if own in counts:
                return counts[own]
            if group in counts and counts is self.images:
                return counts[group]
        return IMAGES[group]


def split_model(name: str) -> tuple[str, str]:
    """Data set (or "") and model in a name such as "Oxford-IIIT-Pet/ViT-B/16"."""
    dataset, _, model = name.partition("/")
    return (dataset, model) if dataset in DATASETS else ("", name)


def given_settings(
    base: PaperSettings | None = None,
    *,
    data: Sequence[str] = (),
    models: Sequence[str | Variant] = (),
    heads: Mapping[str, str | Path] | None = None,
    image_lists: Mapping[str, str | Path] | None = None,
    tables: Sequence[int] | None = None,
    methods: Sequence[str] = (),
    without: Sequence[str] = (),
    images: int | Mapping[str, int] | None = None,
    seed: int | None = None,
    protocol: str | None = None,
    precision: str | None = None,
) -> PaperSettings:
    """Settings from what a user typed, which override those of a file.

    Args:
        base: Settings of the file.
        data: "imagenet:PATH", "imagenet-s:PATH", "imagenet-hard:PATH", "pet:PATH", "food101:PATH".
        models: "DINOv2-L/14=NAME:checkpoint=PATH,head=PATH", "Oxford-IIIT-Pet/ViT-B/16=FOLDER".
        heads: DINOv2's linear heads, by the paper's name for the model.
        image_lists: Files of image names, by the paper's name for the data set.
        tables: Table numbers.
        methods: Methods, by the paper's names or ours.
        without: Methods, models and data sets to omit.
        images: Images per data set: one number for all, or numbers by "faithfulness", "localisation" or "table 8".
        seed: Seed of the draw of images.
        protocol: Protocol of the curves.
        precision: Number format in which models run.

    Raises:
        InputError: a name is not one of the paper's, or a value is out of range.
    """
    base = base or PaperSettings()
    given: dict[str, Any] = {
        "data": {**base.data, **_sources(data)},
        "models": {**base.models, **_models(models)},
        "heads": {**base.heads, **{name: str(path) for name, path in (heads or {}).items()}},
        "image_lists": {**base.image_lists, **{name: str(path) for name, path in (image_lists or {}).items()}},
    }
    if isinstance(images, int):  # also for tables with their own number
        given["images"] = dict.fromkeys((*GROUPS, *IMAGES), images)
    elif images:
        given["images"] = {**base.images, **_counts(images)}
    if tables:
        given["tables"] = tuple(tables)
    for name, chosen in (("methods", methods), ("without", without)):
        if chosen:
            given[name] = tuple(map(paper_method, chosen))
    for name, value in (("seed", seed), ("protocol", protocol), ("precision", precision)):
        if value is not None:
            given[name] = value
    return replace(base, **given)


def paper_method(name: str) -> str:
    """The paper's name for a method given by its name or ours; any other name is returned unchanged."""
    ours = {text: label for label, text in METHODS.items()}
    return ours.get(name, name)


def _sources(data: Sequence[str]) -> dict[str, str]:
    """The user's copies, "KIND:PATH", by the paper's name for the data set."""
    names_of_kinds = {kind: name for name, kind in DATASETS.items()}
    sources: dict[str, str] = {}
    for source in data:
        kind = source.partition(":")[0]
        if kind not in names_of_kinds:
            raise InputError(
                f"{source!r} is not one of the paper's data sets; they are {':PATH, '.join(names_of_kinds)}:PATH."
                f"{nearest(kind, list(names_of_kinds))}"
            )
        if names_of_kinds[kind] in sources:
            raise InputError(f"data: {kind}:PATH is given twice; pass it once.")
        sources[names_of_kinds[kind]] = source
    return sources


def _models(given: Sequence[str | Variant]) -> dict[str, Variant]:
    specs = [parse_variant(one) for one in given]
    for name, count in Counter(spec.label for spec in specs).items():
        _check_model_name(name)
        if count > 1:
            raise InputError(f"models: {name} is given {count} times; pass it once.")
    return {spec.label: spec for spec in specs}


def _check_model_name(name: str) -> None:
    """Raise InputError for a name that is neither a model of the paper nor "DATASET/MODEL"."""
    dataset, model = split_model(name)
    if model in MODELS:
        used = [one for table in tables() for one in names(table, "model", dataset)] if dataset else [model]
        if model not in used:
            raise InputError(
                f"models: the paper does not use {model} on {dataset}; it uses {', '.join(dict.fromkeys(used))}."
            )
        return
    near = nearest(model, list(MODELS))
    first, _, rest = name.partition("/")
    if not dataset and rest in MODELS:  # the data set is misspelt
        raise InputError(
            f"models: {first!r} in {name!r} is not one of the paper's data sets.{nearest(first, list(DATASETS))} "
            f"They are {', '.join(DATASETS)}."
        )
    raise InputError(
        f"models: {model!r} is not one of the paper's names.{near} They are {', '.join(MODELS)}, and "
        f'"DATASET/MODEL" for one data set only, such as "Oxford-IIIT-Pet/ViT-B/16".'
    )


def _check_names(given: Iterable[str], known: Mapping[str, Any], setting: str) -> None:
    for name in given:
        if name not in known:
            raise InputError(
                f"{setting}: {name!r} is not one of the paper's names.{nearest(name, list(known))} They are "
                f"{', '.join(known)}."
            )


_TABLE = re.compile(r"table[ _-]?(\d+)")


def _counts(given: Mapping[str, int]) -> dict[str, int]:
    """Numbers of images under the keys of `IMAGES`, with "table8" as "table 8"."""
    counts: dict[str, int] = {}
    for name, count in given.items():
        table = _TABLE.fullmatch(name)
        if table is None and name not in GROUPS:
            known = [*GROUPS, *(f"table {number}" for number in chosen_tables(None))]
            raise InputError(
                f"images: {name!r} is not a part of the paper.{nearest(name, known)} Numbers of images are for "
                f'{", ".join(GROUPS)}, or for a table, such as "table 8".'
            )
        plain = name if table is None else f"table {chosen_tables([int(table[1])])[0]}"
        if plain in counts:
            raise InputError(f"images: {plain} is given twice.")
        counts[plain] = count
    return counts
