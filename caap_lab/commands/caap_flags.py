"""The flags for CAAP's settings, generated from the fields of `CaapSettings`."""

import argparse
from typing import Any

from caap_lab.engine.settings import SETTINGS


def add_caap_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting of CAAP, such as --chunk-size."""
    for name, setting in SETTINGS.items():
        about = setting.metadata
        words = [about["help"] + (f": {', '.join(about['choices'])}" if about["choices"] else "")]
        words += [f"{setting.default} by default"] if setting.default is not None else []
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=about["read"], help="; ".join(words))


def given_caap_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """The settings whose flags were given, by name."""
    return {name: getattr(parsed, name) for name in SETTINGS if getattr(parsed, name) is not None}
