"""Checkpoints as training scripts write them: the model's weights are found, or the error names what to choose."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.checkpoint import read_state_dict
from caap_lab.models.load import load_model

State = dict[str, Tensor]


def small_vit(seed: int = 0, n_classes: int = 5) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=2, num_classes=n_classes).eval()


RAW, OTHER, HEADLESS = (small_vit(seed, n).state_dict() for seed, n in ((0, 5), (1, 5), (0, 0)))
DINO_HEAD = {"head.mlp.0.weight": torch.ones(4, 8), "head.last_layer.weight_g": torch.ones(4, 1)}
ADAM: Any = {"state": {0: {"exp_avg": RAW["cls_token"]}}, "param_groups": [{"lr": 0.1}]}


def under(prefix: str, state: State) -> State:
    """Weights with something in front of their names."""
    return {prefix + name: value for name, value in state.items()}


class AttributeDict(dict[str, Any]):
    """As Lightning's, under whose name it is written."""


def in_lightning(state: State, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What Lightning saves, hyper-parameters in a mapping of its own class among it."""
    module: Any = types.ModuleType("lightning.fabric.utilities.data")
    module.AttributeDict = AttributeDict
    for name in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(AttributeDict, "__module__", module.__name__)
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**under("model.", state), "criterion.weight": torch.ones(5)},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [ADAM],
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(lr=0.1, folder=Path("runs"), layers=[1, 2]),
    }


WRAPPED: dict[str, tuple[State, Callable[[], Any]]] = {
    "compiled": (RAW, lambda: under("_orig_mod.", RAW)),
    "compiled in DataParallel": (RAW, lambda: under("module._orig_mod.", RAW)),
    "one block compiled": (RAW, lambda: {n.replace("blocks.0.", "blocks.0._orig_mod."): v for n, v in RAW.items()}),
    "DataParallel": (RAW, lambda: DataParallel(small_vit()).state_dict()),
    "averaged by torch": (RAW, lambda: AveragedModel(small_vit()).state_dict()),
    "net.": (RAW, lambda: under("net.", RAW)),
    "encoder.": (HEADLESS, lambda: {"state_dict": under("encoder.", HEADLESS)}),
    "module.vit.": (RAW, lambda: under("module.vit.", RAW)),
    "model_state_dict": (RAW, lambda: {"model_state_dict": under("module.", RAW), "optimizer_state_dict": ADAM}),
    "ema": (RAW, lambda: {"ema": {"module": RAW}, "optimizer": ADAM, "epoch": 3}),
    "teacher": (
        HEADLESS,
        lambda: {"teacher": {**under("backbone.", HEADLESS), **DINO_HEAD}, "dino_loss": {"center": torch.ones(1, 4)}},
    ),
    "student": (HEADLESS, lambda: {"student": {**under("module.backbone.", HEADLESS), **under("module.", DINO_HEAD)}}),
    "teacher in names": (
        HEADLESS,
        lambda: {"model": {**under("teacher.backbone.", HEADLESS), "teacher.dino_head.mlp.0.weight": torch.ones(2)}},
    ),
    "an attribute of one's own": (RAW, lambda: {"state_dict": under("module.clf.", RAW)}),
    "a counter beside": (RAW, lambda: {**RAW, "n_averaged": torch.tensor(3)}),
    "a key of one's own": (RAW, lambda: {"best": RAW, "scheduler": {"x": torch.ones(1)}, "metrics": [1, 2]}),
}


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_in_what_training_puts_around_them(tmp_path: Path, kind: str) -> None:
    expected, make = WRAPPED[kind]
    torch.save(make(), tmp_path / "weights.pth")
    assert same(read_state_dict(tmp_path / "weights.pth"), expected)


def test_lightnings_checkpoints_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as lightning:
        torch.save(in_lightning(RAW, lightning), tmp_path / "last.ckpt")
    assert "lightning" not in sys.modules
    assert same(read_state_dict(tmp_path / "last.ckpt"), RAW)


SEVERAL: dict[str, tuple[Callable[[], Any], tuple[str, str]]] = {
    "keys": (lambda: {"student": RAW, "teacher": OTHER}, ("student", "teacher")),
    "raw and averaged": (
        lambda: {"model_state_dict": RAW, "ema_state_dict": OTHER},
        ("model_state_dict", "ema_state_dict"),
    ),
    "with heads of their own": (
        lambda: {"state_dict": RAW, "teacher": {**under("backbone.", OTHER), **DINO_HEAD}},
        ("state_dict", "teacher"),
    ),
    "in front of names": (lambda: {**under("student.", RAW), **under("teacher.", OTHER)}, ("student", "teacher")),
    "behind a prefix": (
        lambda: under("module.", {**under("student.", RAW), **under("teacher.", OTHER)}),
        ("student", "teacher"),
    ),
    "in front of names, of one's own": (
        lambda: {"state_dict": under("module.", {**under("encoder_q.", RAW), **under("encoder_k.", OTHER)})},
        ("encoder_q", "encoder_k"),
    ),
    "deep": (lambda: {"run": {"net": RAW, "ema": {"module": OTHER}}}, ("net", "ema")),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_of_several_the_error_names_the_keys_and_a_key_chooses(tmp_path: Path, kind: str) -> None:
    make, (first, second) = SEVERAL[kind]
    path = tmp_path / "weights.pth"
    torch.save(make(), path)
    with pytest.raises(CheckpointError, match=r"Choose one, as with checkpoint_key='") as refused:
        read_state_dict(path)
    assert f"'{first}'" in str(refused.value) and f"'{second}'" in str(refused.value)
    assert same(read_state_dict(path, first), RAW)
    assert same(read_state_dict(path, second), OTHER)
    with pytest.raises(CheckpointError, match=r"no weights under checkpoint_key='best'; it has some under '"):
        read_state_dict(path, "best")


AVERAGES = {
    "torch_ema": ("ema.shadow_params", lambda tensors: {"ema": {"decay": 0.9, "shadow_params": tensors}}),
    "lightning": ("optimizer_states.0.ema", lambda tensors: {"optimizer_states": [{**ADAM, "ema": tensors}]}),
    "top": ("averaged", lambda tensors: {"averaged": tuple(tensors)}),
}


@pytest.mark.parametrize("key", ["model", "state_dict", "weights"])
@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_without_names_are_not_passed_over(tmp_path: Path, kind: str, key: str) -> None:
    place, around = AVERAGES[kind]
    tensors, other = [t + 1 for t in small_vit().parameters()], [torch.ones(3, 3)] * len(RAW)
    torch.save({key: RAW, **around(tensors)}, tmp_path / "averaged.pt")
    with pytest.raises(CheckpointError, match=rf"averaged ones without names as '{place}'.*checkpoint_key='{key}'"):
        read_state_dict(tmp_path / "averaged.pt")
    assert torch.equal(read_state_dict(tmp_path / "averaged.pt", key)["cls_token"], RAW["cls_token"])
    torch.save({key: RAW, **around(other)}, tmp_path / "other.pt")  # averages of something else
    assert read_state_dict(tmp_path / "other.pt").keys() == RAW.keys()


def test_a_head_beside_a_backbone_is_named_and_not_left_out_silently(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**under("backbone.", HEADLESS), "classifier.weight": torch.ones(3, 8)}, path)
    with pytest.raises(CheckpointError, match=r"under 'backbone', and other weights: classifier\.weight\."):
        read_state_dict(path)
    assert same(read_state_dict(path, "backbone"), HEADLESS)
    torch.save({"backbone": HEADLESS, "classifier": {"weight": torch.ones(3, 8)}}, path)
    with pytest.raises(CheckpointError, match="'backbone' and 'classifier'; it is not clear which to load"):
        read_state_dict(path)


def test_load_model_takes_the_key(tmp_path: Path) -> None:
    student, teacher = load_model("demo").vit.state_dict(), load_model("demo").vit.state_dict()
    teacher = {name: value * 2 for name, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher}, tmp_path / "both.pth")
    model = load_model("demo", checkpoint=tmp_path / "both.pth", checkpoint_key="teacher")
    assert torch.equal(model.body.state_dict()["cls_token"], teacher["cls_token"])
    with pytest.raises(InputError, match="give the file as checkpoint="):
        load_model("demo", checkpoint_key="teacher")


def test_adapters_are_no_weights_of_a_model(tmp_path: Path) -> None:
    vit: nn.Module = small_vit()
    adapted = peft.get_peft_model(vit, peft.LoraConfig(r=2, target_modules=["qkv"]))
    torch.save(adapted.state_dict(), tmp_path / "live.pth")
    folder = tmp_path / "adapter"
    folder.mkdir()
    adapted.peft_config["default"].save_pretrained(folder)
    save_file(peft.get_peft_model_state_dict(adapted), folder / "adapter_model.safetensors")
    for path in (tmp_path / "live.pth", folder / "adapter_model.safetensors", folder):
        with pytest.raises(CheckpointError, match=r"adapter.*cl\.wrap\(peft\.PeftModel\.from_pretrained\("):
            load_model("demo", checkpoint=path)
