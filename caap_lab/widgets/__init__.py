"""Widgets for JupyterLab: look at one image with the mouse, move the cutoff, follow attention, watch a benchmark.

They need ipywidgets and anywidget: `pip install 'caap-lab[notebook]'`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from caap_lab.errors import InputError

_NAMES = {
    "attention": "caap_lab.widgets.attention_view",
    "benchmark": "caap_lab.widgets.benchmark_view",
    "explore": "caap_lab.widgets.explore_view",
    "layer_sweep": "caap_lab.widgets.layer_sweep_view",
}
__all__ = sorted(_NAMES)

if TYPE_CHECKING:
    from caap_lab.widgets.attention_view import attention as attention
    from caap_lab.widgets.benchmark_view import benchmark as benchmark
    from caap_lab.widgets.explore_view import explore as explore
    from caap_lab.widgets.layer_sweep_view import layer_sweep as layer_sweep


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'caap_lab.widgets' has no attribute {name!r}")
    try:
        value = getattr(import_module(_NAMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "ipywidgets"):
            raise
        raise InputError(f"Widgets need {error.name}: pip install 'caap-lab[notebook]'") from None
    globals()[name] = value
    return value
