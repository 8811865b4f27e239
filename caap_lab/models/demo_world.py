"""Constants shared by the demo scenes and the bundled backbones, which are trained on them."""

IMAGE_SIZE = 64
"""Pixels of a scene's side."""
CLASS_NAMES = tuple("0123456789")
