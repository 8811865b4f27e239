"""Copies of hooked models."""

import copy
from typing import TypeVar

from caap_lab.models.base import HookedModel

Model = TypeVar("Model", bound=HookedModel)


def copy_of(model: Model) -> Model:
    """A copy with weights of its own, hooks included, without the blank runs that are kept with the model."""
    kept = getattr(model, "kept_runs", None)
    return copy.deepcopy(model, {} if kept is None else {id(kept): type(kept)()})
