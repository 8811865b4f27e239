"""caap_lab: a toolkit for looking inside Vision Transformers, built around CAAP.

Importing this package is fast: torch, timm and other heavy packages are loaded when a name is first used. The public
names are listed in `__init__.pyi`.
"""

from importlib import import_module
from importlib.util import find_spec

import lazy_loader

from caap_lab._version import __version__ as __version__

# In a wheel this file is only outside the package, where Python finds it at start-up.
import_module("caap_lab._torchvision" if find_spec("caap_lab._torchvision") else "caap_lab_torchvision").install()

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """A public name.

    Raises:
        AttributeError: there is none; with what to use instead.
    """
    if name.startswith("_") or name in __all__ or find_spec(f"{__name__}.{name}"):  # Python imports submodules itself
        return _public(name)
    from caap_lab.names_elsewhere import no_name

    raise no_name(name, __all__)
