"""Patched contexts: the run of a blank image in which a few tokens are live (arXiv 2603.13652, eqs 1 and 2)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["blanks"])
