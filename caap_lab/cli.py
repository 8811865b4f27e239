"""The command line: it parses arguments; each command is a file of `caap_lab.commands`, which imports what it needs."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from caap_lab._version import __version__
from caap_lab.errors import InputError

COMMANDS = ("map", "bench", "train", "doctor", "tables", "figures", "lab", "models", "methods")
"""The modules of `caap_lab.commands`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status (2 for invalid input)."""
    parsed = parser().parse_args(arguments)
    try:
        status = parsed.run(parsed)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"caap-lab: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has stopped reading, as in `caap-lab models | head`
        sys.stdout = None
        return 0
    except OSError as error:
        print(f"caap-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("caap-lab: stopped", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; the site's command-line page is generated from it."""
    whole = argparse.ArgumentParser(
        prog="caap-lab",
        description="Look inside Vision Transformers: causal attribution via activation patching.",
    )
    whole.add_argument("--version", action="version", version=__version__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"caap_lab.commands.{name}")
        about = f"{module.HELP[0].upper()}{module.HELP[1:]}."
        command = commands.add_parser(name, help=module.HELP, description=about)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return whole


if __name__ == "__main__":
    sys.exit(main())
