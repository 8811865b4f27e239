"""Replacing activations in a run, one patch or whole sweeps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["directions"])
