"""Recording and replacing activations, in single runs or sweeps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["directions"])
