"""CAAP's settings: names, defaults, what each may be, how it is written, and what the command line says of it.

`cl.caap` takes the same names and defaults. All else that knows an option (sweeps, widgets, keys of cells, flags) reads
it here. torch is imported only where a value is checked, so that the command line can list the flags at once.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, TypedDict

from caap_lab.engine.scores import SCORES
from caap_lab.errors import InputError
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS, find_neighbourhood

DIRECTIONS = ("insert", "remove")
CONTEXTS = ("clamped", "free", "dropped", "frozen")
ATTENTIONS = ("exact", "cached", "cached_all")
TAILS = ("exact", "shared", "interpolated")
DEFAULT_CUTOFF = 2 / 3
"""Share of blocks patched by default. The paper's own value could not be recovered; see the docs, page CAAP."""
DEFAULT_MEMORY = 1.0
"""Bound on a Vision Transformer's run, in GiB."""
DEFAULT_CELLS = 32
"""Runs of a CNN at once."""


def number(text: str) -> int | float:
    """A whole number, or else a number, from text."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _about(
    help: str,
    *,
    read: Callable[[str], Any] = str,
    choices: Collection[str] = (),
    decides: bool = True,
    cnn: bool = True,
) -> dict[str, Any]:
    """Metadata of a field.

    Args:
        help: What the flag's help says, besides the choices.
        read: From text to a value.
        choices: Names that it may have; a table of names may grow later.
        decides: Whether results depend on it, and not only time and memory.
        cnn: Whether CNNs have it.
    """
    return {"help": help, "read": read, "choices": choices, "decides": decides, "cnn": cnn}


@dataclass(frozen=True)
class CaapSettings:
    """Settings of a CAAP map, checked as far as this goes without a model; `cl.caap` explains each.

    Raises:
        InputError: a value cannot be used, whatever the model.
    """

    __no_type_check__: ClassVar[bool] = True
    """Types are left to `__post_init__`, which says in words what is wrong, also while shapes are checked in tests."""

    cutoff: int | float | None = field(
        default=None,
        metadata=_about("patched blocks: a count, or a fraction such as 0.5; two thirds by default", read=number),
    )
    start: int = field(default=0, metadata=_about("first patched block", read=int))
    neighbourhood: str = field(
        default="box1", metadata=_about("patches that are patched together with each patch", choices=NEIGHBOURHOODS)
    )
    blank: Any = field(
        default="white",
        metadata=_about("white, black, mean, noise, blurred_noise, zero_activations or an image file"),
    )
    direction: str = field(
        default="insert",
        metadata=_about("insert patches into the blank, or remove them from the image", choices=DIRECTIONS),
    )
    context: str | None = field(
        default=None, metadata=_about("what the other tokens do; on a CNN always free", choices=CONTEXTS)
    )
    attention: str = field(
        default="exact", metadata=_about("in the clamped context; cached is E-CAAP", choices=ATTENTIONS, cnn=False)
    )
    tail: str = field(
        default="exact", metadata=_about("rows that are run after the cutoff, if clamped", choices=TAILS, cnn=False)
    )
    score: str = field(default="logit", metadata=_about("quantity read from the logits", choices=SCORES))
    seed: int = field(default=0, metadata=_about("seed of the noise blanks", read=int))
    chunk_size: int | None = field(
        default=None, metadata=_about("number of patches that run at once; limits memory", read=int, decides=False)
    )
    max_memory: float | None = field(
        default=None,
        metadata=_about("memory limit in GiB; 1 by default", read=float, decides=False, cnn=False),
    )

    def __post_init__(self) -> None:
        from caap_lab.checks import check_choice, check_count, check_seed
        from caap_lab.engine.blanks import check_blank

        self._set("cutoff", _blocks_or_share(self.cutoff))
        if not isinstance(self.start, Integral) or isinstance(self.start, bool) or self.start < 0:
            raise InputError(f"start={self.start!r} must be a whole number, 0 or more.")
        self._set("start", int(self.start))
        neighbourhood = find_neighbourhood(self.neighbourhood)
        check_blank(self.blank)
        check_choice("direction", self.direction, DIRECTIONS)
        if self.context is not None:
            check_choice("context", self.context, CONTEXTS)
        check_choice("attention", self.attention, ATTENTIONS)
        check_choice("tail", self.tail, TAILS)
        if self.tail == "interpolated" and not neighbourhood.can_be_interpolated:
            raise InputError(
                f"tail='interpolated' needs a neighbourhood that has the opposite of each of its offsets, which "
                f"{self.neighbourhood!r} does not have; use tail='exact' or 'shared'."
            )
        check_choice("score", self.score, list(SCORES))
        check_seed(self.seed)
        self._set("seed", int(self.seed))
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size)
            self._set("chunk_size", int(self.chunk_size))
        if self.max_memory is not None:
            if isinstance(self.max_memory, bool) or not isinstance(self.max_memory, Real) or not self.max_memory > 0:
                raise InputError(f"max_memory={self.max_memory!r} must be a number of GiB above 0.")
            self._set("max_memory", float(self.max_memory))

    def _set(self, name: str, value: Any) -> None:
        """NumPy's numbers become Python's, so that settings can be written as JSON."""
        object.__setattr__(self, name, value)

    def to_dict(self, blank: str | None = None) -> dict[str, Any]:
        """All settings by name, as JSON; `CaapSettings(**written)` reads them back if the blank is a name or a file.

        Args:
            blank: What to write for the blank; a label, where it is an image or made of activations.

        Raises:
            InputError: no label is given for such a blank, which JSON cannot hold.
        """
        written = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        if blank is None and not isinstance(self.blank, (str, PathLike)):
            raise InputError("Only a blank with a name, or an image file, can be written; save the image to a file.")
        return written | {"blank": str(self.blank) if blank is None else blank}


class CaapOptions(TypedDict, total=False):
    """The same settings as keyword arguments, for functions that pass them on."""

    cutoff: int | float | None
    start: int
    neighbourhood: str
    blank: Any
    direction: str
    context: str | None
    attention: str
    tail: str
    score: str
    seed: int
    chunk_size: int | None
    max_memory: float | None


SETTINGS = {setting.name: setting for setting in fields(CaapSettings)}
"""The fields by name; `metadata` says what `_about` documents."""
DEFAULTS: dict[str, Any] = {name: setting.default for name, setting in SETTINGS.items()}


def cutoff_blocks(cutoff: int | float | None, n_layers: int) -> int:
    """Number of patched blocks for a count, a share from 0 to 1, or None for the default share.

    A share above 0 patches one block at least.

    Raises:
        InputError: it is none of these, or the model has fewer blocks.
    """
    wanted = _blocks_or_share(DEFAULT_CUTOFF if cutoff is None else cutoff)
    if isinstance(wanted, float):
        return max(1, round(wanted * n_layers)) if wanted else 0
    if wanted is None or not 0 <= wanted <= n_layers:
        raise InputError(
            f"cutoff={wanted} must lie from 0 (patch nothing) to {n_layers}, the model's number of blocks."
        )
    return wanted


def _blocks_or_share(cutoff: Any) -> int | float | None:
    """A cutoff as Python's own number."""
    if cutoff is None:
        return None
    if isinstance(cutoff, bool) or not isinstance(cutoff, Real):
        raise InputError(f"cutoff={cutoff!r} is neither a number of blocks nor a share of them.")
    if isinstance(cutoff, Integral):
        return int(cutoff)
    share = float(cutoff)
    if not 0 <= share <= 1:
        raise InputError(f"cutoff={cutoff} is a share of the blocks and must lie from 0 to 1; use an int for a count.")
    return share
