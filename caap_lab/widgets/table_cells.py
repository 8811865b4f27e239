"""Cells of tables as HTML: the names of classes, and shares as bars behind their numbers."""

from html import escape

from caap_lab.escaping import for_html
from caap_lab.models.classes import ClassNames


def class_cell(index: int, names: ClassNames, of: int | None, against: int | None) -> str:
    """A class's index and name, all of it under the mouse: bold for the target, italic for what it is compared with."""
    name = f"{index}: {names.name(index)}"
    text = for_html(name)
    text = f"<b>{text}</b>" if index == of else f"<i>{text}</i>" if index == against else text
    return f'<td title="{escape(name).replace("$", "&#36;")}">{text}</td>'  # two of them would begin a formula


def share_cell(share: float, more: str = "") -> str:
    """A share from 0 to 1, as a percentage over a bar of that length.

    Args:
        share: The share.
        more: HTML behind the percentage.
    """
    return f'<td class="number caap-share" style="--caap-part: {share:.1%}">{share:.1%}{more}</td>'
