"""Parts of a widget beside each other, as far as there is room."""

import ipywidgets


def beside(*widgets: ipywidgets.Widget) -> ipywidgets.Box:
    """Widgets that share the width, one below the other where it is too small for that."""
    box = ipywidgets.Box(widgets)
    box.add_class("caap-beside")
    return box
