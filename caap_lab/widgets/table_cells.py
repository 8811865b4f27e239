"""Cells of tables as HTML: names of classes, and fractions as bars behind their numbers."""

from html import escape

from caap_lab.escaping import for_html
from caap_lab.models.classes import ClassNames


def class_cell(index: int, names: ClassNames, of: int | None, against: int | None) -> str:
    """A class's index and name, complete in the tooltip: bold for the target, italic for the class against."""
    name = f"{index}: {names.name(index)}"
    text = for_html(name)
    text = f"<b>{text}</b>" if index == of else f"<i>{text}</i>" if index == against else text
    return f'<td title="{escape(name).replace("$", "&#36;")}">{text}</td>'  # two of them would start a formula


def share_cell(share: float, more: str = "") -> str:
    """A fraction from 0 to 1, as a percentage over a bar of that length.

    Args:
        share: The fraction.
        more: HTML after the percentage.
    """
    return f'<td class="number caap-share" style="--caap-part: {share:.1%}">{share:.1%}{more}</td>'
