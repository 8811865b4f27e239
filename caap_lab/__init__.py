"""caap_lab: looking inside Vision Transformers, with CAAP at the centre.

Importing this package is quick: torch, timm and everything else heavy load when a name is first used. The public names
stand in `__init__.pyi`.
"""

import lazy_loader

from caap_lab import _torchvision
from caap_lab._version import __version__ as __version__

_torchvision.install()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
