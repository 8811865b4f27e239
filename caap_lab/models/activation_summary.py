"""A summary of recorded activations, one line per kind: its name, layers, shape and memory."""

from collections.abc import Iterable
from typing import NamedTuple

from caap_lab.escaping import for_html
from caap_lab.models.names import layer_of, short_name
from caap_lab.models.stored_names import ranges
from caap_lab.tables.html import html_table

_HEADS = ("name", "layers", "shape", "memory")


class Kept(NamedTuple):
    """One activation."""

    hook: str
    shape: tuple[int, ...]
    nbytes: int


def text_summary(title: str, kept: Iterable[Kept]) -> str:
    """Lines of text: the title, then one line per kind of activation."""
    rows = _rows(kept)
    name, layers, shape, size = (max(map(len, column)) for column in zip(_HEADS, *rows, strict=True))
    lines = (f"  {row[0]:<{name}}  {row[1]:<{layers}}  {row[2]:<{shape}}  {row[3]:>{size}}" for row in rows)
    return "\n".join([title, *lines])


def html_summary(title: str, kept: Iterable[Kept]) -> str:
    """The summary as an HTML table."""
    rows = [[for_html(cell) for cell in row] for row in _rows(kept)]
    return html_table(_HEADS, rows, caption=title, text_columns=3)


def memory(nbytes: int) -> str:
    """A number of bytes in a readable unit."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes / 2**10:.1f} KiB"


def _rows(kept: Iterable[Kept]) -> list[tuple[str, str, str, str]]:
    kinds: dict[tuple[str, tuple[int, ...]], list[Kept]] = {}
    for one in kept:
        kinds.setdefault((short_name(one.hook), one.shape), []).append(one)
    return [
        (
            name,
            ranges([layer for one in ones if (layer := layer_of(one.hook)) is not None]),
            f"[{', '.join(map(str, shape))}]",
            memory(sum(one.nbytes for one in ones)),
        )
        for (name, shape), ones in kinds.items()
    ]
