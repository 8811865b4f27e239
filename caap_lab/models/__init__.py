"""timm's Vision Transformers with TransformerLens hook points: model, tokens, loading, preprocessing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["tokens"])
