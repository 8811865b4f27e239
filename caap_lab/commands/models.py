"""`caap-lab models`: the names of the models."""

import argparse
import json

from caap_lab.errors import InputError

HELP = "list models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("pattern", nargs="?", default="*", help="such as 'vit_base*'")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Print the names that match the pattern.

    Raises:
        InputError: no name matches.
    """
    from caap_lab.models.load import list_models
    from caap_lab.models.names import nearest

    names = list_models(parsed.pattern)
    if not names:
        hint = nearest(parsed.pattern.strip("*"), list_models())
        raise InputError(
            f"No model is called {parsed.pattern!r}.{hint} `caap-lab models` lists them all; a pattern may contain "
            "wildcards, such as '*deit*'."
        )
    print(json.dumps(names, indent=1) if parsed.json else "\n".join(names))
    return 0
