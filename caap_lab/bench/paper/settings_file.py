"""Settings of the paper profile as a TOML file: `caap-lab doctor --write` writes it, `bench` and `figures` read it."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from caap_lab.bench.paper.parts import IMAGES
from caap_lab.bench.paper.settings import PRECISIONS, PaperSettings, paper_method
from caap_lab.errors import InputError
from caap_lab.files import atomic_path
from caap_lab.models.hugging_face.folder import names_folder
from caap_lab.models.names import nearest
from caap_lab.variant import Variant, parse_variant


@dataclass(frozen=True)
class Missing:
    """An entry of the file that is still to be filled in."""

    section: str
    """Its section in the file, such as "data"."""
    name: str
    """The paper's name."""
    report: str
    """What is missing, and how to get it."""
    example: str
    """An example of the entry; added as a comment if the settings have no such entry."""


@dataclass(frozen=True)
class _Form:
    """The form of a setting in the file."""

    kind: type
    of: type | None
    words: str
    """Description of the type in messages."""
    about: str
    """A comment in the file."""


_FORMS = {
    "tables": _Form(list, int, "a list of numbers", "table numbers; all if empty"),
    "methods": _Form(list, str, "a list of names", "the paper's names for methods; all if empty"),
    "without": _Form(list, str, "a list of names", "methods, models and data sets to omit"),
    "seed": _Form(int, None, "a whole number", "seed of the draw of images"),
    "protocol": _Form(
        str, None, "a name in quotes", "protocol of the curves: rise, rise-28, patches, tis, chefer, mutex, ..."
    ),
    "precision": _Form(str, None, "a name in quotes", f"number format in which models run: {', '.join(PRECISIONS)}"),
    "data": _Form(dict, str, 'a table of texts, such as ImageNet-1K = "imagenet:PATH"', "copies of the data sets"),
    "image_lists": _Form(
        dict, str, 'a table of paths, such as ImageNet-1K = "names.txt"', "files of image names that replace the draw"
    ),
    "models": _Form(
        dict,
        str,
        'a table of texts, such as "ViT-B/16" = "NAME:checkpoint=PATH"',
        'timm\'s names, with options as NAME:key=value, or folders; "DATASET/MODEL" is for one data set only',
    ),
    "heads": _Form(
        dict, str, 'a table of paths, such as "DINOv2-L/14" = "PATH"', "classifiers of models that have none"
    ),
    "images": _Form(
        dict,
        int,
        "a table of numbers, such as faithfulness = 500",
        f"images per data set, if not {', '.join(f'{name} = {count}' for name, count in IMAGES.items())}; "
        'also "table 8" = N',
    ),
}


def read_settings(path: str | Path) -> PaperSettings:
    """Settings from a TOML file; its relative paths are relative to the file's folder.

    Raises:
        InputError: the file cannot be read, or an entry is not one of the settings.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as a TOML file of settings ({error}). Save it in UTF-8.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as a TOML file of settings ({error}).") from None
    try:
        return placed(_from_toml(content), path.absolute().parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def write_settings(settings: PaperSettings, path: str | Path, missing: Iterable[Missing] = ()) -> None:
    """Write settings as a TOML file for `read_settings`; relative paths become absolute.

    Args:
        settings: The settings to write.
        path: Path of the file.
        missing: Entries still to be filled in, written as comments.

    Raises:
        InputError: a path has characters that a text file cannot contain, or a model's path contains ":".
    """
    path = Path(path)
    text = to_toml(placed(settings, Path.cwd()), missing)
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        line = next(line for line in text.splitlines() if error.object[error.start] in line)
        raise InputError(f"{path} cannot be written: the line {line!r} has characters that are not text.") from None
    with atomic_path(path) as part:
        part.write_bytes(content)


def placed(settings: PaperSettings, folder: Path) -> PaperSettings:
    """The settings with relative paths resolved against a folder."""
    return replace(
        settings,
        data={name: _place_source(source, folder) for name, source in settings.data.items()},
        image_lists={name: _place(path, folder) for name, path in settings.image_lists.items()},
        models={name: _place_model(spec, folder) for name, spec in settings.models.items()},
        heads={name: _place(path, folder) for name, path in settings.heads.items()},
    )


def to_toml(settings: PaperSettings, missing: Iterable[Missing] = ()) -> str:
    """The text of the file."""
    missing = list(missing)
    lines = [
        "# A run of the paper profile of caap-lab: caap-lab bench --profile FILE --out FOLDER, with this file as FILE.",
        "# Relative paths are relative to this file's folder. Options of the command line override these settings.",
    ]
    if missing:
        lines += [
            '# In the line below "missing", replace the words in capitals and delete the "#" at its start, or add',
            "# the name to `without` to omit the part.",
        ]
    lines.append("")
    for one in fields(settings):
        value, form = getattr(settings, one.name), _FORMS[one.name]
        if form.kind is not dict:
            shown = list(value) if isinstance(value, tuple) else value
            lines.append(f"{one.name} = {_quoted(shown)}  # {form.about}")
    for section, form in _FORMS.items():
        if form.kind is dict:
            rows = {key: _written(entry) for key, entry in getattr(settings, section).items()}
            lines += ["", f"[{section}]  # {form.about}"]
            lines += _rows(rows, [one for one in missing if one.section == section])
    return "\n".join(lines) + "\n"


def _rows(rows: Mapping[str, Any], missing: Iterable[Missing]) -> list[str]:
    reports: dict[str, Missing] = {one.name: one for one in missing}
    lines = []
    for name in dict.fromkeys([*rows, *reports]):
        if name in reports:
            lines += [f"# missing: {_plain(line)}" for line in reports[name].report.splitlines()]
        entry = f"{_quoted(name)} = {_quoted(rows[name] if name in rows else reports[name].example)}"
        lines.append(entry if name in rows else f"# {entry}")
    return lines


def _plain(text: str) -> str:
    """Text for a comment, without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _written(entry: Any) -> Any:
    if not isinstance(entry, Variant):
        return entry
    try:
        same = parse_variant(entry.text).to_dict() == replace(entry, label="").to_dict()
    except InputError:
        same = False
    if not same:
        raise InputError(f"The model {entry.text!r} cannot be written as text: a path must not contain ':'.")
    return entry.text


def _quoted(value: Any) -> str:
    """A value as TOML: JSON, with the character 127 escaped as well."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


# --- reading ---


def _from_toml(content: Mapping[str, Any]) -> PaperSettings:
    for name, value in content.items():
        if name not in _FORMS:
            raise InputError(
                f"there is no setting {name!r}.{nearest(name, list(_FORMS))} The settings are {', '.join(_FORMS)}."
            )
        _check_form(name, value)
    read: dict[str, Any] = {
        name: tuple(value) if _FORMS[name].kind is list else value for name, value in content.items()
    }
    for name in ("methods", "without"):
        if name in read:
            read[name] = tuple(map(paper_method, read[name]))
    if "models" in read:
        read["models"] = {name: _model(name, text) for name, text in read["models"].items()}
    return PaperSettings(**read)


def _check_form(name: str, value: Any) -> None:
    form = _FORMS[name]
    if not _is(value, form.kind):
        raise InputError(f"{name} is {value!r}; it has to be {form.words}.")
    entries = value.items() if form.kind is dict else enumerate(value, start=1) if form.kind is list else ()
    for key, entry in entries:
        if not _is(entry, form.of) or entry == "":
            which = key if form.kind is dict else f"entry {key}"
            raise InputError(f"{name}: {which} is {entry!r}; {name} is {form.words}.")


def _is(value: Any, kind: type | None) -> bool:
    return kind is None or (isinstance(value, kind) and not isinstance(value, bool))


def _model(name: str, text: str) -> Variant:
    try:
        spec = parse_variant(text)
    except InputError as error:
        raise InputError(f"models: {name}: {error}") from None
    if spec.label != spec.text:  # read as LABEL=NAME
        raise InputError(
            f"models: {name} is {text!r}, in which the text before '=' is read as a name. "
            "Start a path that contains '=' with '/' or './'; options are NAME:key=value."
        )
    return Variant(spec.name, spec.options, name)


# --- relative paths ---


def _place(path: Any, folder: Path) -> Any:
    """A path resolved against a folder; unchanged if it is absolute, begins with "~", or is not a text."""
    if not isinstance(path, str) or path.startswith("~") or Path(path).is_absolute():
        return path
    return str(folder / path)


def _place_source(source: str, folder: Path) -> str:
    """A data set with its path, and the paths in its options, resolved against a folder."""
    kind, _, place = source.partition(":")
    path, *options = re.split(r"(\?(?:labels|images)=)", place)
    placed_options = [_place(part, folder) if index % 2 else part for index, part in enumerate(options)]
    return f"{kind}:{_place(path, folder)}{''.join(placed_options)}"


def _place_model(spec: Variant, folder: Path) -> Variant:
    """A model with the paths of its folder and its files resolved against a folder."""
    is_folder = ":" not in spec.name and names_folder(spec.name)  # the hub's names have a colon
    files: dict[str, Any] = {
        name: _place(spec.options[name], folder) for name in ("checkpoint", "head") if name in spec.options
    }
    return Variant(_place(spec.name, folder) if is_folder else spec.name, {**spec.options, **files}, spec.label)
