"""Our lists of modules and tensors are torch's, for models with shared and missing parts."""

import pytest
import torch
from torch import nn

from caap_lab.modules import modules, named_modules, tensors
from tests.helpers.models import build


def with_shared_parts() -> nn.Module:
    """A part that a later sibling holds as well, one that holds it deeper, tied weights, and a missing part."""
    shared, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Sequential(nn.Sequential(norm, shared), nn.Linear(4, 4)), shared, norm)
    model[0][1].weight = shared.weight
    model.missing = None
    model.register_module("empty", None)
    model.register_buffer("absent", None)
    model.register_buffer("unsaved", torch.zeros(1), persistent=False)
    return model


@pytest.mark.parametrize("kind", ["shared", "vit", "dino_head4", "itself"])
def test_modules_and_tensors_are_torchs(kind: str) -> None:
    model = with_shared_parts() if kind in ("shared", "itself") else build(kind)
    if kind == "itself":
        model[0].whole = model
    theirs = list(model.named_modules())
    assert [(name, id(module)) for name, module in named_modules(model)] == [(name, id(part)) for name, part in theirs]
    assert list(map(id, modules(model))) == [id(part) for _, part in theirs]
    mine = tensors(modules(model))
    assert len(mine) == len({*map(id, mine)})
    assert {*map(id, mine)} == {*map(id, model.parameters()), *map(id, model.buffers())}
