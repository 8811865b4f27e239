"""Models and methods as text: "vit_base_patch16_224:checkpoint=weights.safetensors,mean=[0.5,0.5,0.5]"."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from caap_lab.errors import InputError

_PART = re.compile(
    r"""
    \s* (?P<key> [^=,\s]+ ) \s* = \s*
    (?P<value> "(?:[^"\\]|\\.)*" | \[[^\]]*\] | (?= , | $ ) | .*? [^,\s] )
    \s* (?: , (?= \s* [^=,\s]+ \s* = ) | $ )
    """,
    re.VERBOSE | re.DOTALL,
)
"""Matches one key=value, with the comma after it."""
_PATH = re.compile(r"\.{0,2}[/\\]|~|[A-Za-z]:[/\\]|\.{1,2}$")
"""Matches the start of a folder's path, which may contain "="."""
_NAME = re.compile(r"(hf-hub:|[A-Za-z]:(?=[/\\]))?[^:]*")
"""Matches a name up to the colon before its options; hub repositories and Windows drives contain a colon themselves."""


@dataclass(frozen=True)
class Variant:
    """A model or method by name, with settings that differ from its defaults."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    """Name in tables; by default the text from which it was made."""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.text)

    @property
    def text(self) -> str:
        """The text that `parse_variant` reads."""
        options = ",".join(f"{key}={_value_text(value)}" for key, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name

    def to_dict(self) -> dict[str, Any]:
        """The variant as plans record it."""
        return {"name": self.name, "options": self.options, "label": self.label}


def parse_variant(text: "str | Variant") -> Variant:
    """A variant from "LABEL=NAME:key=value,key=value"; label and settings may be omitted.

    A name may be "hf-hub:OWNER/NAME" or a path, which starts with "/", "./", "../" or "~" if it has "=" in it.

    Values are JSON if they can be read as such (numbers, true, [0.5,0.5,0.5]), otherwise text. A comma ends a value
    only if another key= follows, so that file names may contain commas; text in double quotes may contain anything.

    Raises:
        InputError: the text does not have this form.
    """
    if isinstance(text, Variant):
        return text
    if not isinstance(text, str):
        raise InputError(f"Expected a name such as 'caap:attention=cached', not {type(text).__name__}.")
    label, name, tail = _split(text)
    options: dict[str, Any] = {}
    start = 0
    while start < len(tail):
        part = _PART.match(tail, start)
        if part is None:
            raise InputError(f"{tail[start:]!r} in {text!r} is not key=value; write NAME:key=value,key=value.")
        options[part["key"]] = _value(part["value"])
        start = part.end()
    if not name.strip() or (label is not None and not label.strip()):
        raise InputError(f"{text!r} has no name; write NAME, NAME:key=value or LABEL=NAME.")
    return Variant(name.strip(), options, (label or "").strip())


def _split(text: str) -> tuple[str | None, str, str]:
    """Label (None if there is none), name, and options."""
    label, rest = None, text
    before, equals, after = text.partition("=")
    if equals and ":" not in before and not _PATH.match(text) and _PATH.match(after):
        label, rest = before, after
    elif not _PATH.match(text):
        front, equals, _ = text.partition(":")[0].rpartition("=")
        if equals:
            label, rest = front, text[len(front) + 1 :]
    rest = rest.lstrip()
    name = _NAME.match(rest)[0]  # type: ignore[index]  # it matches anything
    return label, name, rest[len(name) + 1 :]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _value_text(value: Any) -> str:
    """A value in the form that `parse_variant` reads."""
    text = f"key={value},"
    part = _PART.match(f"{text}next=") if isinstance(value, str) else None
    if part is not None and part.end() == len(text) and _value(part["value"]) == value:
        return str(value)  # it is read back without quotes
    return json.dumps(value, separators=(",", ":"))
