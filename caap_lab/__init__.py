"""caap_lab: looking inside Vision Transformers, with CAAP at the centre.

Importing this package is quick: torch, timm and everything else heavy load when a name is first used. The public names
stand in `__init__.pyi`.
"""

from importlib import import_module
from importlib.util import find_spec

import lazy_loader

from caap_lab._version import __version__ as __version__

# A wheel has this file beside the package only, where Python finds it when it starts.
import_module("caap_lab._torchvision" if find_spec("caap_lab._torchvision") else "caap_lab_torchvision").install()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
