"""Widgets for JupyterLab: look at one image with the mouse, move the cutoff, follow attention, watch a benchmark.

The public names stand in `__init__.pyi`; each loads its module when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
