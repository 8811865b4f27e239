"""Shuffled weights: every weight once, from the head down, the same numbers elsewhere, and the model left as it is."""

import copy

import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.heads import ZeroShotHead
from caap_lab.models.shuffled import shuffled_models, weight_groups
from helpers.models import build
from helpers.subjects import build_subject, kind_of, subjects


@pytest.mark.parametrize("subject", subjects(("vit", "cnn", "mixer", "black_box")))
def test_every_weight_is_in_one_group_and_the_model_stays(subject: str) -> None:
    model = build_subject(subject)
    groups = weight_groups(model)
    members = [name for group in groups.values() for name in group]
    assert sorted(members) == sorted(name for name, p in model.named_parameters() if p.is_floating_point())
    blocks = [f"block {number}" for number in reversed(range(model.n_layers))]
    if kind_of(subject) != "black_box":
        assert list(groups) == ["head", *blocks, "stem" if kind_of(subject) == "cnn" else "embeddings"]
    weights = copy.deepcopy(model.state_dict())
    for step, (name, shuffled) in enumerate(shuffled_models(model, "cascading", 0)):
        assert name == list(groups)[step]
        if step not in (0, len(groups) - 1):
            continue
        done = {member for group in list(groups)[: step + 1] for member in groups[group]}
        for member, value in shuffled.state_dict().items():
            if member not in done:
                assert torch.equal(value, weights[member])
            else:
                assert torch.equal(value.flatten().sort().values, weights[member].flatten().sort().values)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, weights[name]) for name, value in shuffled.state_dict().items())


def of(model: HookedModel, order: str, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    return [copy.deepcopy(shuffled.state_dict()) for _, shuffled in shuffled_models(model, order, seed)]  # type: ignore[arg-type]


def test_both_orders_shuffle_a_group_alike_and_the_seed_decides() -> None:
    model = build("odd_grid")
    cascading, independent, other = of(model, "cascading"), of(model, "independent"), of(model, "cascading", 1)
    trained = model.state_dict()
    for step, members in enumerate(weight_groups(model).values()):
        for name, value in independent[step].items():
            wanted = cascading[-1][name] if name in members else trained[name]
            assert torch.equal(value, wanted)
    assert all(
        torch.equal(a[name], b[name]) for a, b in zip(cascading, of(model, "cascading"), strict=True) for name in a
    )
    assert not torch.equal(other[0]["vit.head.weight"], cascading[0]["vit.head.weight"])


def test_text_embeddings_are_weights_of_the_head() -> None:
    texts = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))  # timm's own head is the projection
    model = cl.HookedViT(build("odd_grid").vit, head=ZeroShotHead(texts, 10.0))
    assert "head.text_embeddings" in weight_groups(model)["head"]
    _, shuffled = next(shuffled_models(model, "cascading", 0))
    assert not torch.equal(shuffled.head.text_embeddings, model.head.text_embeddings)
    assert torch.equal(shuffled.head.logit_scale, model.head.logit_scale)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning")
def test_quantised_weights_are_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    packed = quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    model = cl.BlackBoxModel(packed, grid=(2, 2), image_size=(8, 8))
    with pytest.raises(InputError, match="packed weights cannot be shuffled"):
        weight_groups(model)
