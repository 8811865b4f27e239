"""Names of models as a list that is displayed by family."""

import textwrap
from collections.abc import Callable, Iterable

from caap_lab.labels import counted

_WIDTH = 110
"""Characters per line."""
_FEW = 60
"""Up to this many names, all are shown; of more, some of each family."""
_OF_EACH = 6
"""Names per family that are shown then."""


class ModelNames(list[str]):
    """Names for `load_model`: a list that is displayed by family."""

    def __init__(self, names: Iterable[str], family: Callable[[str], str]) -> None:
        super().__init__(names)
        self._family = family

    def __repr__(self) -> str:
        """The number of names, then those of each family, or the first ones if there are many."""
        if not self:
            return "[]"
        lines = [counted(len(self), "model")]
        families: dict[str, list[str]] = {}
        for name in self:
            families.setdefault(self._family(name), []).append(name)
        for family, names in families.items():
            shown = names if len(self) <= _FEW else names[:_OF_EACH]
            more = [f"... and {len(names) - len(shown)} more"] * (len(shown) < len(names))
            lines.append(f"{family} ({len(names)})")
            text = ", ".join([*shown, *more])
            lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        if len(self) > _FEW:
            lines.append('Fewer with a pattern, such as cl.list_models("*dinov2*"); all with list(...).')
        return "\n".join(lines)
