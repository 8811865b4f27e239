"""The flags of the target: a class by its own logit, or against another class or the mean of all classes."""

import argparse
from collections.abc import Mapping
from typing import Any

from caap_lab.errors import InputError

FLAGS = ("against", "against_all", "logit")


def add_target_flags(parser: argparse._ActionsContainer, target: str) -> None:
    """Add --target, --against, --against-all and --logit. Class names have their own flags.

    Args:
        parser: Parser, or group of a parser, that gets the flags.
        target: Help text of --target.
    """
    parser.add_argument("--target", metavar="CLASS", help=target)
    parser.add_argument("--against", metavar="CLASS", help="explain why the target rather than this class")
    # None if omitted, as with the other flags
    parser.add_argument(
        "--against-all", action="store_true", default=None, help="explain the target against the mean of all classes"
    )
    parser.add_argument(
        "--logit",
        action="store_true",
        default=None,
        help="explain the target's own logit, also for classes given as texts (CLIP), by default explained against all",
    )


def with_flags(of: int | str, against: int | str | None, flags: Mapping[str, Any]) -> Any:
    """The target that a class and the flags specify.

    Args:
        of: The class in favour.
        against: The class given by --against.
        flags: The flags of `FLAGS` that were given.

    Raises:
        InputError: the flags exclude each other.
    """
    from caap_lab.models.targets import Contrast, Logit

    given = [name for name in FLAGS if flags.get(name) not in (None, False)]
    if len(given) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{names} exclude each other; use one of them.")
    if not given:
        return of
    return {"against": Contrast(of, against), "against_all": Contrast(of), "logit": Logit(of)}[given[0]]
