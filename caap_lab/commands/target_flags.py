"""The flags of what is explained: a class by its own logit, or against another class or the mean of all."""

import argparse
from collections.abc import Mapping
from typing import Any

from caap_lab.errors import InputError

FLAGS = ("against", "against_all", "logit")


def add_target_flags(parser: argparse._ActionsContainer, target: str) -> None:
    """Add --target, --against, --against-all and --logit. Names of classes stand in flags of their own.

    Args:
        parser: Takes the flags; a group of a parser, too.
        target: What --target is.
    """
    parser.add_argument("--target", metavar="CLASS", help=target)
    parser.add_argument("--against", metavar="CLASS", help="explain why the target rather than this class")
    # None where they are left out, as with the other flags
    parser.add_argument(
        "--against-all", action="store_true", default=None, help="explain the target against the mean of all classes"
    )
    parser.add_argument(
        "--logit",
        action="store_true",
        default=None,
        help="explain the target's own logit, also where classes are texts (CLIP), which explain it against all",
    )


def with_flags(of: int | str, against: int | str | None, flags: Mapping[str, Any]) -> Any:
    """The target that the flags make of a class.

    Args:
        of: The class that is spoken for.
        against: That of --against.
        flags: Those of `FLAGS` that were given.

    Raises:
        InputError: they exclude each other.
    """
    from caap_lab.models.targets import Contrast, Logit

    given = [name for name in FLAGS if flags.get(name) not in (None, False)]
    if len(given) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{names} exclude each other; give one of them.")
    if not given:
        return of
    return {"against": Contrast(of, against), "against_all": Contrast(of), "logit": Logit(of)}[given[0]]
