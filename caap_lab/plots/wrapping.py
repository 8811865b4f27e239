"""Texts in lines of a limited length."""

import re

_PART = re.compile(r"[^:,=/_]*[:,=/_]*")
_CUT = " ..."


def wrapped(text: str, letters: int, most: int | None = None) -> str:
    """A text in lines of at most some letters.

    Words stay whole where they fit into a line; longer ones, such as "caap:direction=remove", are broken after
    punctuation, and elsewhere only where a part is still too long.

    Args:
        text: One line.
        letters: Largest number of letters per line.
        most: Largest number of lines; the rest is cut. None for all.
    """
    lines: list[str] = []
    for word in text.split():
        for number, part in enumerate(_parts(word, letters)):
            longer = f"{lines[-1]}{'' if number else ' '}{part}" if lines else part
            if lines and len(longer) <= letters:
                lines[-1] = longer
            else:
                lines.append(part)
    if most is not None and len(lines) > most:
        lines = lines[:most]
        while len(lines[-1]) > letters - len(_CUT):
            shorter = lines[-1].rpartition(" ")[0]
            lines[-1] = shorter or lines[-1][: letters - len(_CUT)]
        lines[-1] += _CUT
    return "\n".join(lines)


def _parts(word: str, letters: int) -> list[str]:
    """A word that fits into a line, or its parts that do."""
    if len(word) <= letters:
        return [word]
    parts = _PART.findall(word)
    return [part[first : first + letters] for part in parts for first in range(0, len(part), letters)]
