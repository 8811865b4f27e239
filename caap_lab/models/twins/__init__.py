"""timm twins of Hugging Face's and torchvision's Vision Transformers: the same weights, with the hook points of timm's.

`timm_twin` finds a module's class by name, so transformers is never imported for it.
"""

from caap_lab.models.twins.twin import Twin, configured_names, timm_twin

__all__ = ["Twin", "configured_names", "timm_twin"]
