"""Widgets for JupyterLab: explore an image, move CAAP's cutoff, follow attention, patch, trace, watch a benchmark.

The public names are in `__init__.pyi`; each loads its module when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
