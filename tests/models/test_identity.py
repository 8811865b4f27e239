"""A number belongs to the model that made it: every change inside a model is seen, and nothing else is."""

import copy
import pickle
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from os import environ
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import caap_lab as cl
from caap_lab import ActivationStore, HookedViT, InputError, Patch
from caap_lab.attribution.map import AttributionMap
from caap_lab.digests.fingerprint import fingerprint, same_model
from caap_lab.digests.tensors import checksum
from helpers.models import FAMILIES, build, random_images

IMAGE = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1))


def negate(vit: nn.Module) -> None:
    vit.blocks[0].attn.qkv.weight.data.neg_()


def roll_heads(vit: nn.Module) -> None:
    weight = vit.blocks[1].attn.proj.weight
    weight.data.copy_(weight.data.roll(8, dims=1))


def change_one(vit: nn.Module) -> None:
    vit.blocks[3].mlp.fc2.weight.data[1, 5] += 1e-4


def swap_two(vit: nn.Module) -> None:
    weight = vit.blocks[0].mlp.fc1.weight.data
    weight[0, [3, 4]] = weight[0, [4, 3]].clone()


def set_eps(vit: nn.Module) -> None:
    vit.blocks[1].norm1.eps = 0.1


def set_activation(vit: nn.Module) -> None:
    vit.blocks[1].mlp.act = nn.ReLU().eval()


def set_scale(vit: nn.Module) -> None:
    vit.blocks[2].attn.scale *= 2


def set_dropout(vit: nn.Module) -> None:
    vit.blocks[2].mlp.drop1.p = 0.5


def rebind_forward(vit: nn.Module) -> None:
    act = vit.blocks[1].mlp.act
    plain, factor = act.forward, 0.5
    act.forward = lambda x: factor * plain(x)


def put_in_a_partial(vit: nn.Module) -> None:
    vit.blocks[1].mlp.act.forward = partial(torch.clamp, min=0.25)


EDITS = (negate, roll_heads, change_one, swap_two, set_eps, set_activation, set_scale, set_dropout, rebind_forward,
         put_in_a_partial)  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_every_change_inside_is_seen(edit: Callable[[nn.Module], None]) -> None:
    model = build("vit")
    before, store = cl.caap(model, IMAGE, 0), model.record(IMAGE, "resid_pre", layers=1, progress=False)
    old = model.fingerprint
    edit(model.vit)
    assert model.fingerprint != old
    after, fresh = cl.caap(model, IMAGE, 0), cl.caap(HookedViT(model.vit), IMAGE, 0)
    assert torch.equal(after.all_scores, fresh.all_scores) and after.fingerprint == fresh.fingerprint
    with pytest.raises(InputError, match="cannot be used with"):
        model.run_patched(IMAGE, Patch("resid_pre", 1, source=store))
    with pytest.raises(InputError, match="was made by another model"):
        cl.insertion_deletion(model, IMAGE, before)


class Gain(nn.Module):
    """An activation of the user's own."""

    gain = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * self.gain

    def twice(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self(x)


def test_the_users_own_modules_count_by_their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    model.vit.blocks[0].mlp.act = Gain().eval()
    found = {model.fingerprint}
    monkeypatch.setattr(Gain, "gain", 2.0)
    found.add(model.fingerprint)
    monkeypatch.setattr(Gain, "forward", lambda self, x: torch.tanh(x) * self.gain)
    found.add(model.fingerprint)
    monkeypatch.setattr(nn.GELU, "forward", lambda self, x: torch.relu(x))
    found.add(model.fingerprint)
    monkeypatch.undo()
    assert len(found) == 4 and model.fingerprint in found


GAIN, GAINS, ARGUMENTS = 1.0, {"act": [1.0]}, Namespace(gain=1.0)
HOLDER, OWN_MODULE = SimpleNamespace(inner=Gain()), ModuleType("own_settings")
HOLDER.inner.gain = 1.0
SQUASH, METHOD = torch.relu, Gain().forward


@dataclass(slots=True)
class Slotted:
    """Settings that have no dictionary of attributes."""

    gain: float = 1.0


SLOTTED = Slotted()


class Fixed:
    """A class of the user's own that is never made an object of."""

    values: ClassVar[dict[str, float]] = {"gain": 1.0}

    @staticmethod
    def gain() -> float:
        return 1.0


SETTINGS = {
    "dictionary": (lambda x: GAINS["act"][0] * torch.relu(x), lambda m: m.setitem(GAINS, "act", [2.0])),
    "inner function": (lambda x: (lambda y: GAIN * y)(torch.relu(x)), lambda m: m.setitem(globals(), "GAIN", 2.0)),
    "arguments": (lambda x: ARGUMENTS.gain * torch.relu(x), lambda m: m.setattr(ARGUMENTS, "gain", 2.0)),
    "object": (lambda x: HOLDER.inner.gain * torch.relu(x), lambda m: m.setattr(HOLDER.inner, "gain", 2.0)),
    "slots": (lambda x: SLOTTED.gain * torch.relu(x), lambda m: m.setattr(SLOTTED, "gain", 2.0)),
    "class": (lambda x: Fixed.values["gain"] * torch.relu(x), lambda m: m.setitem(Fixed.values, "gain", 2.0)),
    "static": (lambda x: Fixed.gain() * torch.relu(x), lambda m: m.setattr(Fixed, "gain", staticmethod(lambda: 2.0))),
    "function": (lambda x: SQUASH(x), lambda m: m.setitem(globals(), "SQUASH", torch.tanh)),
    "method": (lambda x: METHOD(x), lambda m: m.setitem(globals(), "METHOD", Gain().twice)),
    "module": (lambda x: OWN_MODULE.gain * torch.relu(x), lambda m: m.setattr(OWN_MODULE, "gain", 2.0)),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_that_the_users_code_reads_count(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    OWN_MODULE.__file__, OWN_MODULE.gain = str(tmp_path / "own_settings.py"), 1.0  # type: ignore[attr-defined]
    activation, change = SETTINGS[kind]
    model = build("vit")
    model.vit.blocks[1].mlp.act.forward = activation
    before, old = cl.caap(model, IMAGE, 0), model.fingerprint
    assert model.fingerprint == old
    change(monkeypatch)
    assert model.fingerprint != old
    after, fresh = cl.caap(model, IMAGE, 0), cl.caap(HookedViT(model.vit), IMAGE, 0)
    assert torch.equal(after.scores, fresh.scores) and not torch.equal(after.scores, before.scores)
    monkeypatch.undo()
    assert model.fingerprint == old


def test_what_the_environment_holds_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    model.vit.blocks[1].mlp.act.forward = lambda x: torch.relu(x) * float(environ.get("OWN_GAIN", 1))
    old = model.fingerprint
    monkeypatch.setenv("ANOTHER", "1")
    assert model.fingerprint == old


def test_tensors_that_are_no_weights_count() -> None:
    model = build("vit")
    act = model.vit.blocks[0].mlp.act
    act.register_buffer("shift", torch.zeros(2), persistent=False)
    act.hidden, act.inside = torch.ones(3), [nn.Linear(2, 2)]  # an attribute, and a module that torch does not know
    act.numbers = np.arange(3)
    found = {model.fingerprint}
    for change in (act.shift.data, act.hidden, act.inside[0].weight.data, act.numbers):
        change += 1
        found.add(model.fingerprint)
    model.vit.register_buffer("count", torch.tensor([1, 2]))
    found.add(model.fingerprint)
    model.vit.count.data += 1
    assert len({*found, model.fingerprint}) == 7


def test_what_changes_no_output_changes_no_fingerprint() -> None:
    model = build("vit")
    before = model.fingerprint
    model.vit.blocks[0].attn.fused_attn = not model.vit.blocks[0].attn.fused_attn
    model.vit.set_grad_checkpointing()
    model.vit.pretrained_cfg = {"url": "elsewhere"}
    act = model.vit.blocks[0].mlp.act
    act.forward = act.forward  # the same method, put on its own module
    with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: x)]):
        assert model.fingerprint == before
    copied = copy.deepcopy(model)
    assert copied.fingerprint == before and pickle.loads(pickle.dumps(copied.vit)) is not None
    assert HookedViT(copied.vit, name="other").fingerprint == before


def test_models_of_equal_weights_and_other_structure_differ() -> None:
    assert len({build(family).fingerprint for family in FAMILIES}) == len(FAMILIES)


def test_the_fingerprint_holds_nothing_of_the_process() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2, eps=1e-6), nn.GELU()).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.arange(weight.numel()).view(weight.shape))
    assert fingerprint(model) == "ed5046484c7836b7-2e1f6e5c"  # found by another process on another day
    model[2].forward = lambda x: x * 2
    found = fingerprint(model)
    model[2].forward = lambda x: x * 2
    assert fingerprint(model) == found != fingerprint(model[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_the_checksum_sees_order_and_sign(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3000, generator=generator)
    x = numbers > 0 if dtype is torch.bool else (1000 * numbers).to(dtype)
    first, second = 7, int((x != x[7]).nonzero()[0])
    swapped = x.clone()
    swapped[[first, second]] = x[[second, first]]
    found = {checksum([x]), checksum([swapped]), checksum([x.roll(1)]), checksum([x.roll(1021)]), checksum([x.flip(0)])}
    assert len(found) == 5 and checksum([x.clone()]) in found
    assert dtype is torch.bool or checksum([-x]) not in found


def test_fingerprints_of_earlier_versions_are_compared_by_weights(tmp_path: Path) -> None:
    model = build("vit")
    weights = model.fingerprint.split("-")[0]
    assert len(weights) == 16 and same_model(weights, model.fingerprint) and not same_model("0" * 16, model.fingerprint)
    old = replace(model.record(IMAGE, "resid_pre", layers=1, progress=False), fingerprint=weights)
    opened = ActivationStore.open(old.save(tmp_path / "store"), model)
    assert model.run_patched(IMAGE, Patch("resid_pre", 1, source=opened)).shape == (1, 7)
    old_map = replace(cl.caap(model, IMAGE, 0), fingerprint=weights, image_digest="")
    assert cl.insertion_deletion(model, IMAGE, old_map).insertion >= 0


def test_a_store_says_whether_weights_or_structure_differ() -> None:
    model = build("vit")
    store = model.record(IMAGE, "resid_pre", layers=1, progress=False)
    model.vit.norm.eps = 0.5
    with pytest.raises(InputError, match="weights are the same, but not the structure"):
        store.require_model(model)
    model.vit.norm.weight.data += 1
    with pytest.raises(InputError, match="weights are not the same"):
        store.require_model(model)


def test_maps_know_their_model_and_image(tmp_path: Path) -> None:
    model = build("vit")
    images = random_images(model, 2)
    maps = cl.attribute(model, images, "rollout", 0, progress=False)
    assert maps[0].image_digest != maps[1].image_digest
    loaded = [AttributionMap.load(m.save(tmp_path / f"{i}.safetensors")) for i, m in enumerate(maps)]
    assert [m.image_digest for m in loaded] == [m.image_digest for m in maps]
    assert len(cl.insertion_deletion(model, images, loaded, progress=False)) == 2
    with pytest.raises(InputError, match="Map 0 was made for another image"):
        cl.insertion_deletion(model, images, loaded[::-1])
    with pytest.raises(InputError, match="Map 1 was made for another image"):
        cl.insertion_deletion(model, images[0], loaded)
    barely = images[:1].clone()
    barely[0, 0, 0, 0] += 1e-3  # less than a pixel value of the picture that the map keeps
    with pytest.raises(InputError, match="another image"):
        cl.insertion_deletion(model, barely, loaded[0])
    other = build("vit")
    other.vit.head.bias.data += 1
    with pytest.raises(InputError, match="was made by another model"):
        cl.insertion_deletion(other, images[0], loaded[0])
    by_hand = replace(loaded[0], fingerprint="", image_digest="")
    assert cl.insertion_deletion(other, images[1], by_hand).insertion >= 0


def test_map_files_without_a_digest_are_read(tmp_path: Path) -> None:
    model = build("vit")
    m = replace(cl.attribute(model, IMAGE, "rollout", 0), image_digest="")
    assert AttributionMap.load(m.save(tmp_path / "map.safetensors")).image_digest == ""


def test_kept_means_follow_their_images_and_the_normalisation() -> None:
    model = build("vit")
    images = random_images(model, 3)
    blank = cl.blanks.mean_activations(images)
    first = cl.caap(model, IMAGE, 0, blank=blank)
    images[0] += 1
    second = cl.caap(model, IMAGE, 0, blank=blank)
    assert not torch.equal(first.scores, second.scores)
    fresh = cl.caap(model, IMAGE, 0, blank=cl.blanks.mean_activations(images))
    assert torch.equal(second.scores, fresh.scores)
    photos = [(100 * np.ones((32, 32, 3))).astype(np.uint8)]
    blank = cl.blanks.mean_activations(photos)
    before = cl.caap(model, IMAGE, 0, blank=blank)
    model.preprocessing = replace(model.preprocessing, mean=(0.1, 0.2, 0.3))
    after = cl.caap(model, IMAGE, 0, blank=blank)
    fresh = cl.caap(model, IMAGE, 0, blank=cl.blanks.mean_activations(photos))
    assert torch.equal(after.scores, fresh.scores) and not torch.equal(after.scores, before.scores)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_block_that_became_another_module_is_said(layer: int) -> None:
    model = build("vit")
    model.vit.blocks[layer] = nn.Identity().eval()
    for run in (lambda: model(IMAGE[None]), lambda: cl.caap(model, IMAGE, 0)):
        with pytest.raises(InputError, match=rf"blocks\[{layer}\] is now of the class Identity.*cl.ablate_layers"):
            run()
