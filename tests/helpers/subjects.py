"""Small random models of every kind that methods run on, under one name each."""

import pytest
import torch

from caap_lab.models.base import HookedModel
from helpers.black_boxes import BY_TRAIT as QUICK_BLACK_BOXES
from helpers.black_boxes import SMALL as BLACK_BOXES
from helpers.black_boxes import small_black_box
from helpers.cnns import SMALL, THREE, small_cnn
from helpers.mixers import KINDS, small_mixer
from helpers.models import ALL_FAMILIES, BY_TRAIT, build

MIXERS = {f"mixer {kind}" if kind != "mixer" else kind: kind for kind in KINDS}
QUICK = {*BY_TRAIT, *THREE, *MIXERS, *QUICK_BLACK_BOXES}
"""Subjects of `make test`."""


def kind_of(subject: str) -> str:
    """Kind of model: "vit", "cnn", "mixer" or "black_box"."""
    if subject in BLACK_BOXES:
        return "black_box"
    return "cnn" if subject in SMALL else "mixer" if subject in MIXERS else "vit"


def build_subject(subject: str, dtype: torch.dtype = torch.float32) -> HookedModel:
    """The model, in evaluation mode."""
    if subject in SMALL:
        return small_cnn(subject, dtype)
    if subject in BLACK_BOXES:
        return small_black_box(subject, dtype)
    return small_mixer(MIXERS[subject], dtype) if subject in MIXERS else build(subject, dtype)


def subjects(kinds: tuple[str, ...]) -> list:
    """All models of some kinds for `pytest.mark.parametrize`; those that add no trait are slow."""
    every = [*ALL_FAMILIES, *SMALL, *MIXERS, *BLACK_BOXES]
    return [
        subject if subject in QUICK else pytest.param(subject, marks=pytest.mark.slow)
        for subject in every
        if kind_of(subject) in kinds
    ]
