"""Images with labels and masks: the user's copies of data sets, and generated demo scenes."""

from caap_lab.data.scenes import CLASS_NAMES, KINDS, Scene, demo_images

__all__ = ["CLASS_NAMES", "KINDS", "Scene", "demo_images"]
