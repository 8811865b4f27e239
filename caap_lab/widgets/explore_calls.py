"""The Python calls that compute what an explorer shows."""

from collections.abc import Iterable

from caap_lab.attribution.registry import METHODS
from caap_lab.widgets.explore_shown import Rows
from caap_lab.widgets.target_box import target_call


def map_call(method: str, photo: str, target: object) -> str:
    """The Python expression of a map.

    Args:
        method: Name of the method.
        photo: The Python expression of the photo.
        target: The target; omitted if the method's maps are the same for all classes.
    """
    ending = f", target={target_call(target)})" if METHODS[method].class_specific else ")"
    return (f"cl.caap(model, {photo}" if method == "caap" else f"cl.attribute(model, {photo}, {method!r}") + ending


def map_calls(rows: Rows) -> Iterable[str]:
    """One expression per map, each once."""
    return dict.fromkeys(shown.call for row in rows for shown in row if shown.call)
