"""Names of the files that `caap-lab map` writes: whatever changes a map is in its name."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

from caap_lab.digests.hashing import hex_digest
from caap_lab.engine.settings import SETTINGS
from caap_lab.variant import Variant

FLAGS = {
    "model": "demo",
    "checkpoint": None,
    "checkpoint_key": None,
    "head": None,
    "image_size": None,
    "mean": None,
    "std": None,
    "dtype": "float32",
    "target": None,
    "against": None,
    "against_all": None,
    "logit": None,
}
"""Flags besides the method's options that change a map, and their defaults."""
_LONGEST = 150
"""Largest number of bytes of a name; file systems allow 255 with the photo's name and the extension."""
_LONGEST_PATH = 40
"""Largest number of characters of a path within a name."""


def method_name(
    variant: Variant, options: Mapping[str, Any], defaults: Mapping[str, Any], parsed: argparse.Namespace
) -> str:
    """The method's part of a file name, such as "caap_direction-remove_target-3".

    The method's name, or the label that the user gave to it and its options, is followed by every option and flag
    that changes the map and differs from its default. Two different commands therefore do not overwrite each other's
    files, while the same command does. A long path is its last part and a digest of all of it; a name that is too long
    is cut and ends with a digest.

    Args:
        variant: The method as the user wrote it.
        options: All options that were given, also as flags.
        defaults: Defaults of the method's options on the model.
        parsed: The command's flags.
    """
    labelled = variant.label != variant.text
    given = {
        name: value
        for name, value in options.items()
        if _changes_maps(name) and not (labelled and name in variant.options) and defaults.get(name, ...) != value
    }
    flags = {name: getattr(parsed, name) for name, default in FLAGS.items() if getattr(parsed, name) != default}
    words = [variant.label if labelled else variant.name]
    words += [_word(name, value) for choices in (given, flags) for name, value in choices.items()]
    name = "_".join(re.sub(r"[^\w.+-]", "_", word) for word in words)
    if len(name.encode()) <= _LONGEST:
        return name
    return f"{name.encode()[: _LONGEST - 20].decode(errors='ignore')}_{hex_digest(name, size=6)}"


def _changes_maps(option: str) -> bool:
    return option not in SETTINGS or bool(SETTINGS[option].metadata["decides"])


def _word(name: str, value: Any) -> str:
    """A choice as a word: "direction-remove", "mean-0.5,0.5,0.5", or "logit" for a flag without a value."""
    if value is True:
        return name
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    folder, slash, last = text.rstrip("/").rpartition("/")
    if slash and len(text) > _LONGEST_PATH:
        text = f"{last}-{hex_digest(folder, size=3)}"
    return f"{name}-{text}"
