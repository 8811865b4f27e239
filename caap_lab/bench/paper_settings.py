"""Everything that a run of the paper profile is made of, from the command line, a TOML file or both."""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from caap_lab.bench.paper_parts import DATASETS, IMAGES, MODELS, OWN_CLASSES, chosen_tables, group_of
from caap_lab.bench.published import METHODS, names
from caap_lab.errors import InputError
from caap_lab.files import atomic_path
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.models.names import nearest
from caap_lab.variant import Variant, parse_variant

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
"""Number formats in which models run."""


@dataclass(frozen=True)
class PaperSettings:
    """What a run of the paper profile computes; what is not given is as the paper has it."""

    data: Mapping[str, str] = field(default_factory=dict)
    """The user's copies, by the paper's name: {"ImageNet-1K": "imagenet:PATH"}."""
    image_lists: Mapping[str, str] = field(default_factory=dict)
    """Files of image names instead of a draw, by the paper's name for the data set."""
    models: Mapping[str, Variant] = field(default_factory=dict)
    """Instead of `MODELS`, by the paper's name, or by "DATASET/MODEL" for one data set alone."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """DINOv2's linear heads, by the paper's name for the model."""
    tables: tuple[int, ...] = ()
    """Numbers of tables; all by default."""
    methods: tuple[str, ...] = ()
    """The paper's names for methods; all by default."""
    without: tuple[str, ...] = ()
    """The paper's names for methods, models and data sets that are left out."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Images per data set instead of `IMAGES`, by "faithfulness", "localisation" or "table 8"."""
    seed: int = 0
    """Of the draw of images."""
    protocol: str = "rise"
    """Of the curves."""
    precision: str = "float32"
    """One of `PRECISIONS`."""

    def __post_init__(self) -> None:
        for name, what in (("data", DATASETS), ("image_lists", DATASETS), ("heads", MODELS)):
            _known(getattr(self, name), what, name)
        for name in self.models:
            dataset, model = split_model(name)
            _known([model], MODELS, "models")
            if dataset:
                _known([dataset], DATASETS, "models")
        chosen_tables(self.tables)
        _known(self.methods, METHODS, "methods")
        _known(self.without, {**METHODS, **MODELS, **DATASETS}, "without")
        _known(self.images, IMAGES, "images", tables=True)
        for name, count in self.images.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"images: {name} has {count!r}, where a number of images from 1 on should be.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed is {self.seed!r}, where a whole number from 0 on should be.")
        curve_protocol(self.protocol)
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; it can be {', '.join(PRECISIONS)}.")

    # --- what tables are made of ---

    @property
    def wanted(self) -> list[int]:
        """Numbers of the chosen tables."""
        return chosen_tables(self.tables)

    def datasets(self, table: int) -> list[str]:
        """Data sets of a table, without those that are left out."""
        return [name for name in names(table, "dataset") if name not in self.without]

    def model_names(self, table: int, dataset: str) -> list[str]:
        """Models of a table, without those that are left out."""
        return [name for name in names(table, "model", dataset) if name not in self.without]

    def method_names(self, table: int, dataset: str) -> list[str]:
        """Methods of a table, without those that are left out."""
        chosen = self.methods or tuple(METHODS)
        return [n for n in names(table, "method", dataset) if n in chosen and n not in self.without]

    def model(self, dataset: str, name: str) -> Variant | None:
        """The model that a data set is run on, or None: a data set with classes of its own has no published one."""
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
        """Images of a table's data set."""
        group, own = group_of(table, dataset), f"table {table}"
        for counts in (self.images, IMAGES):
            if own in counts:
                return counts[own]
            if group in counts and counts is self.images:
                return counts[group]
        return IMAGES[group]


def split_model(name: str) -> tuple[str, str]:
    """Data set, or "", and model of a name such as "Oxford-IIIT-Pet/ViT-B/16"."""
    dataset, slash, model = name.partition("/")
    return (dataset, model) if slash and dataset in DATASETS else ("", name)


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
    """Settings from what a user typed, over those of a file.

    Args:
        base: Those of the file.
        data: "imagenet:PATH", "imagenet-s:PATH", "imagenet-hard:PATH", "pet:PATH", "food101:PATH".
        models: "DINOv2-L/14=NAME:checkpoint=PATH,head=PATH", "Oxford-IIIT-Pet/ViT-B/16=FOLDER".
        heads: DINOv2's linear heads, by the paper's name for the model.
        image_lists: Files of image names, by the paper's name for the data set.
        tables: Numbers of tables.
        methods: Methods, by the paper's names or ours.
        without: Methods, models and data sets to leave out.
        images: Images per data set: one number for all, or by "faithfulness", "localisation" or "table 8".
        seed: Of the draw.
        protocol: Of the curves.
        precision: Number format in which models run.

    Raises:
        InputError: a name is none of the paper's, or a value is out of range.
    """
    base = base or PaperSettings()
    counts = dict.fromkeys(("faithfulness", "localisation"), images) if isinstance(images, int) else dict(images or {})
    given: dict[str, Any] = {
        "data": {**base.data, **_sources(data)},
        "models": {**base.models, **{spec.label: spec for spec in map(parse_variant, models)}},
        "heads": {**base.heads, **{name: str(path) for name, path in (heads or {}).items()}},
        "image_lists": {**base.image_lists, **{name: str(path) for name, path in (image_lists or {}).items()}},
        "images": {} if isinstance(images, int) else dict(base.images),
    }
    given["images"] |= counts
    if isinstance(images, int):  # for tables with a number of their own as well
        given["images"] |= {name: images for name in IMAGES}
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
    """The paper's name for a method that is given by its name or ours; any other name as it is."""
    ours = {text: label for label, text in METHODS.items()}
    return ours.get(name, name)


# --- the file ---


def read_settings(path: str | Path) -> PaperSettings:
    """Settings from a TOML file.

    Raises:
        InputError: it cannot be read, or something in it is none of the settings.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as a TOML file of settings ({error}).") from None
    try:
        return _from_toml(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def write_settings(settings: PaperSettings, path: str | Path) -> None:
    """Write settings as a TOML file that `read_settings` reads."""
    with atomic_path(Path(path)) as part:
        part.write_text(to_toml(settings), encoding="utf-8")


def to_toml(settings: PaperSettings) -> str:
    """The text of the file."""
    lines = ["# A run of the paper profile: caap-lab bench --profile THIS_FILE --out FOLDER", ""]
    tables = []
    for one in fields(settings):
        value = getattr(settings, one.name)
        if isinstance(value, Mapping):
            rows = {name: entry.text if isinstance(entry, Variant) else entry for name, entry in value.items()}
            tables.append((one.name, rows))
        else:
            lines.append(f"{one.name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}")
    for name, rows in tables:
        lines += ["", f"[{name}]", *(f"{json.dumps(key)} = {json.dumps(entry)}" for key, entry in rows.items())]
    return "\n".join(lines) + "\n"


_KINDS: dict[str, tuple[type, type | None]] = {
    "data": (dict, str),
    "image_lists": (dict, str),
    "models": (dict, str),
    "heads": (dict, str),
    "tables": (list, int),
    "methods": (list, str),
    "without": (list, str),
    "images": (dict, int),
    "seed": (int, None),
    "protocol": (str, None),
    "precision": (str, None),
}
"""What each entry of the file has to be, and what is in it."""


def _from_toml(content: Mapping[str, Any]) -> PaperSettings:
    for name, value in content.items():
        if name not in _KINDS:
            raise InputError(f"there is no setting {name!r}.{nearest(name, list(_KINDS))} There are {', '.join(_KINDS)}.")
        kind, inside = _KINDS[name]
        entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not isinstance(value, kind) or (inside and not all(isinstance(entry, inside) for entry in entries)):
            of = f" of {inside.__name__}" if inside else ""
            raise InputError(f"{name} is {value!r}, where a {kind.__name__}{of} should be.")
    read: dict[str, Any] = dict(content)
    models = {name: Variant(v.name, v.options, name) for name, v in _variants(content.get("models", {})).items()}
    lists = {name: tuple(content[name]) for name in ("tables", "methods", "without") if name in content}
    for name in ("methods", "without"):
        if name in lists:
            lists[name] = tuple(map(paper_method, lists[name]))
    return PaperSettings(**{**read, **lists, "models": models})


def _variants(texts: Mapping[str, str]) -> dict[str, Variant]:
    return {name: parse_variant(f"{name}={text}") for name, text in texts.items()}


def _sources(data: Sequence[str]) -> dict[str, str]:
    """The user's copies, "KIND:PATH", by the paper's name for the data set."""
    names_of_kinds = {kind: name for name, kind in DATASETS.items()}
    sources: dict[str, str] = {}
    for source in data:
        kind = source.partition(":")[0]
        if kind not in names_of_kinds:
            raise InputError(
                f"{source!r} is none of the paper's data sets; those are {':PATH, '.join(names_of_kinds)}:PATH."
            )
        sources[names_of_kinds[kind]] = source
    return sources


def _known(given: Iterable[str], what: Mapping[str, Any], setting: str, tables: bool = False) -> None:
    """Refuse names that are not among these; with `tables` also "table 8" counts."""
    for name in given:
        if name in what or (tables and _is_table(name)):
            continue
        more = ', or a table, such as "table 8"' if tables else ""
        raise InputError(
            f"{setting}: {name!r} is none of the paper's names.{nearest(name, list(what))} They are {', '.join(what)}{more}."
        )


def _is_table(name: str) -> bool:
    word, _, number = name.partition(" ")
    return word == "table" and number.isdecimal() and bool(chosen_tables([int(number)]))
