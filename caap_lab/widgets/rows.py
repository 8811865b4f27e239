"""Parts of a widget next to each other, if there is space."""

import ipywidgets


def beside(*widgets: ipywidgets.Widget) -> ipywidgets.Box:
    """Widgets that share the width, stacked if there is not enough of it."""
    box = ipywidgets.Box(widgets)
    box.add_class("caap-beside")
    return box
