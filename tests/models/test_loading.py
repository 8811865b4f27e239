"""Checkpoints load whole or not at all and run no code; a missing network fails fast."""

import argparse
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from caap_lab.data.scenes import demo_images
from caap_lab.errors import CheckpointError, InputError
from caap_lab.models import hub, load
from caap_lab.models.checkpoint import count_classes, load_into, read_state_dict
from caap_lab.models.families import read_spec
from caap_lab.models.load import BUNDLED, list_models, load_model

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
SMALL_NAME = "test_vit"  # timm's own: width 64, 6 blocks, 160 pixels


def small_vit(seed: int = 0, **changes: Any) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(**{**SIZES, **changes}).eval()


def copy_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def named_file(tmp_path: Path) -> Path:
    """Random weights of timm's smallest ViT, with 5 classes."""
    torch.manual_seed(1)
    path = tmp_path / "model.safetensors"
    save_file(timm.create_model(SMALL_NAME, num_classes=5).state_dict(), path)
    return path


# -- reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".bin"])
def test_read_every_format(tmp_path: Path, ending: str) -> None:
    state = small_vit().state_dict()
    path = tmp_path / f"weights{ending}"
    (save_file if ending == ".safetensors" else torch.save)(state, path)
    assert same(read_state_dict(path), state)
    assert same(read_state_dict(str(path)), state)


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state},
    "model_state": lambda state: {"model_state": state},
    "model_ema": lambda state: {"model_ema": state},
    "nested": lambda state: {"state_dict": {"model": state}},
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
    "module.model.": lambda state: {f"module.model.{name}": value for name, value in state.items()},
    "backbone.": lambda state: {"model": {f"backbone.{name}": value for name, value in state.items()}},
    "arguments": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, name="deit")},
    "numbers": lambda state: {**state, "epoch": 3},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_unwrap(tmp_path: Path, kind: str) -> None:
    state = small_vit().state_dict()
    torch.save(WRAPPED[kind](state), tmp_path / "weights.pth")
    assert same(read_state_dict(tmp_path / "weights.pth"), state)


class Malicious:
    """Runs a command when it is unpickled without restriction."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("kind", ["torch", "legacy", "plain"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    victim, path = tmp_path / "was_run", tmp_path / "evil.pth"
    content = {"model": small_vit().state_dict(), "extra": Malicious(victim)}
    if kind != "plain":
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    else:
        path.write_bytes(pickle.dumps({"extra": Malicious(victim)}))
    with pytest.raises(CheckpointError, match=r"(?s)Python objects.*nothing in it was run"):
        read_state_dict(path)
    assert not victim.exists()
    if kind != "plain":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert victim.exists(), "the file was harmless, so the test above proved nothing"


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    torch.save(small_vit(), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"\(timm.*safetensors"):
        read_state_dict(tmp_path / "module.pth")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(small_vit().state_dict(), whole)
    torch.save(small_vit().state_dict(), tmp_path / "whole.pth")
    cases: dict[str, tuple[bytes, str]] = {
        "cut.safetensors": (whole.read_bytes()[:5000], "damaged or not a safetensors"),
        "text.safetensors": (b"hello, this is text", "damaged or not a safetensors"),
        "cut.pth": ((tmp_path / "whole.pth").read_bytes()[:5000], "damaged or not a PyTorch"),
        "text.pth": (b"hello, this is text", "damaged or not a PyTorch"),
        "empty.pth": (b"", "is empty"),
        "pointer.safetensors": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "git lfs pull",
        ),
        "weights.npz": (b"PK", r"extension \.npz"),
        "safe.pth": (whole.read_bytes(), r"is a safetensors file .* rename it to safe\.safetensors"),
        "torch.safetensors": (
            (tmp_path / "whole.pth").read_bytes(),
            r"a PyTorch checkpoint .* rename it to torch\.pth",
        ),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_state_dict(tmp_path / name)
    with pytest.raises(CheckpointError, match="There is no checkpoint file"):
        read_state_dict(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_state_dict(tmp_path)
    torch.save({"epoch": 3, "optimizer": {"lr": 1}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no weights by name; found epoch, optimizer"):
        read_state_dict(tmp_path / "other.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_state_dict(tmp_path / "list.pth")


# -- loading into a model ----------------------------------------------------------------------------------


def test_load_into_copies_all(tmp_path: Path) -> None:
    source, vit = small_vit(0), small_vit(1)
    given = source.state_dict()
    before = copy_of(given)
    load_into(vit, given)
    assert same(vit.state_dict(), before) and same(given, before)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(vit(images), source(images))
    half = {name: value.half() for name, value in given.items()}
    load_into(vit, half)
    assert vit.head.weight.dtype == torch.float32
    assert torch.equal(vit.head.weight, source.head.weight.half().float())


def test_positions_are_resampled_to_another_image_size() -> None:
    small, large = small_vit(0), small_vit(1, img_size=48)
    load_into(large, small.state_dict())
    assert large.pos_embed.shape == (1, 37, 32)
    assert torch.equal(large.pos_embed[:, 0], small.pos_embed[:, 0])
    assert torch.equal(large.blocks[1].mlp.fc2.weight, small.blocks[1].mlp.fc2.weight)


def test_deit3_layer_scale_names_are_converted() -> None:
    source, vit = small_vit(0, init_values=0.1), small_vit(1, init_values=0.3)
    state = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v
        for name, v in source.state_dict().items()
    }
    load_into(vit, state)
    assert same(vit.state_dict(), source.state_dict())


def test_dinov2_layout_is_converted() -> None:
    source, vit = small_vit(0, init_values=0.1), small_vit(1, init_values=0.1)
    load_into(vit, {**source.state_dict(), "mask_token": torch.zeros(1, 32)})
    assert same(vit.state_dict(), source.state_dict())


def test_average_pooled_siglip_shares_files_with_the_attention_pooled_one() -> None:
    options: dict[str, Any] = {"class_token": False, "num_classes": 0, "fc_norm": False}
    source = small_vit(0, **options, global_pool="map")
    vit = small_vit(1, **options, global_pool="avg")
    with pytest.raises(CheckpointError, match="unexpected: attn_pool"):
        load_into(vit, source.state_dict())
    vit.pretrained_cfg = {"architecture": "vit_base_patch16_siglip_gap_224"}
    load_into(vit, source.state_dict())
    assert torch.equal(vit.norm.weight, source.norm.weight)


Change = Callable[[dict[str, Tensor]], None]
MISFITS: dict[str, tuple[Change, str]] = {
    "missing": (lambda s: s.pop("norm.weight"), "1 missing: norm.weight"),
    "unexpected": (lambda s: s.update(extra=torch.zeros(1)), "1 unexpected: extra"),
    "shape": (
        lambda s: s.update({"head.bias": torch.zeros(3)}),
        r"1 of another shape: head.bias is \[3\] instead of \[10\]",
    ),
    "nan": (lambda s: s["head.bias"].fill_(torch.nan), "head.bias in the checkpoint holds NaN"),
    "infinity": (lambda s: s["norm.weight"].fill_(torch.inf), "NaN or infinity"),
    "integers": (lambda s: s.update({"head.bias": torch.zeros(10, dtype=torch.int8)}), "int8"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_misfits_are_reported_and_nothing_is_loaded(kind: str) -> None:
    change, message = MISFITS[kind]
    state = copy_of(small_vit(0).state_dict())
    change(state)
    vit = small_vit(1)
    before = copy_of(vit.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_into(vit, state)
    assert same(vit.state_dict(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"embed_dim": 48},
            "This checkpoint has width 48 and 2 blocks; VisionTransformer has width 32 and 2",
        ),
        ({"depth": 3}, "This checkpoint has width 32 and 3 blocks; VisionTransformer has width 32 and 2"),
        (
            {"embed_dim": 48, "depth": 1, "num_classes": 0},
            r"(?s)width 48 and 1 blocks.*\d+ missing.*, \.\.\.",
        ),
        ({"patch_size": 4}, "patches of 4 x 4 pixels; VisionTransformer reads 8 x 8"),
        ({"reg_tokens": 2}, "1 unexpected: reg_token"),
        ({"class_token": False, "global_pool": "avg"}, "does not fit"),
        ({"num_classes": 7}, r"head.weight is \[7, 32\] instead of \[10, 32\]"),
    ],
)
def test_checkpoints_of_other_models_say_what_differs(changes: dict[str, Any], message: str) -> None:
    vit = small_vit(1)
    before = copy_of(vit.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_into(vit, small_vit(0, **changes).state_dict())
    assert same(vit.state_dict(), before)


def test_a_checkpoint_of_another_kind_is_reported() -> None:
    resnet = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).state_dict()
    with pytest.raises(CheckpointError, match=r"(?s)missing.*unexpected"):
        load_into(small_vit(), resnet)


def test_count_classes() -> None:
    assert count_classes(small_vit().state_dict()) == 10
    assert count_classes(small_vit(num_classes=0).state_dict()) == 0
    assert count_classes({"visual.proj": torch.zeros(768, 512)}) == 512


# -- models by name ----------------------------------------------------------------------------------------


def test_load_model_from_a_local_file(named_file: Path) -> None:
    model = load_model(SMALL_NAME, checkpoint=named_file, mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    assert same(model.vit.state_dict(), load_file(named_file))
    assert (model.model_name, model.n_classes, model.spec.n_layers) == (SMALL_NAME, 5, 6)
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.1, 0.2, 0.3), (1, 1, 1))
    assert model.class_names.names[:2] == ("class 0", "class 1")
    assert not model.vit.training
    assert model(Image.new("RGB", (60, 50))).shape == (1, 5)


def test_options(named_file: Path) -> None:
    names = ("a", "b", "c", "d", "e")
    model = load_model(SMALL_NAME, checkpoint=named_file, image_size=(96, 64), class_names=names, dtype="float64")
    assert model.spec.grid == (6, 4) and model.preprocessing.image_size == (96, 64)
    assert model.dtype == torch.float64 and model.class_names.names == names
    assert load_model(SMALL_NAME, checkpoint=named_file, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_the_crop_of_photos_and_masks(named_file: Path) -> None:
    photo = Image.effect_noise((300, 200), 90).convert("RGB")
    model = load_model(SMALL_NAME, checkpoint=named_file, image_size=224, crop_pct=0.875)
    by_hand = photo.resize((384, 256), Image.Resampling.BICUBIC).crop((80, 16, 304, 240))
    assert torch.equal(model.preprocessing(photo), replace(model.preprocessing, crop_pct=1.0)(by_hand))
    mask = np.zeros((200, 300), bool)
    mask[:, 60:] = True  # less than what is cut off on the left: 80 of 384 pixels are 62 of 300
    assert model.preprocessing.mask(mask).all()
    assert not load_model(SMALL_NAME, checkpoint=named_file, image_size=224, crop_pct=1).preprocessing.mask(mask).all()


def test_a_head_from_a_file(named_file: Path, tmp_path: Path) -> None:
    headless = tmp_path / "headless.pth"
    state = {name: value for name, value in load_file(named_file).items() if not name.startswith("head.")}
    torch.save({"model": state}, headless)
    with pytest.raises(InputError, match="no classifier"):
        load_model(SMALL_NAME, checkpoint=headless).target(0)
    linear = {"weight": torch.randn(3, 64), "bias": torch.zeros(3)}
    save_file(linear, tmp_path / "head.safetensors")
    model = load_model(SMALL_NAME, checkpoint=headless, head=tmp_path / "head.safetensors")
    assert model.n_classes == 3 and torch.equal(model.vit.head.weight, linear["weight"])


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"mean": (0.5, 0.5)}, "mean=.* three numbers"),
    ({"std": (0.5, 0.5, 0)}, "std=.* greater than 0"),
    ({"dtype": "int8"}, "dtype='int8' is not one of float32"),
    ({"dtype": torch.int32}, "is not one of float32"),
    ({"device": "gpu"}, "is not a device"),
    ({"device": "meta"}, "not available"),
    ({"crop_pct": 87.5}, "crop_pct=87.5 is not a number above 0 and at most 1"),
    ({"crop_pct": "all"}, "crop_pct='all' is not a number"),
    ({"image_size": 100}, "not a whole number of patches"),
    ({"image_size": (160, 0)}, "image_size"),
    ({"image_size": "160"}, "image_size"),
    ({"image_size": 160.0}, "image_size"),
    ({"checkpoint": "gone.safetensors"}, "There is no checkpoint file"),
    ({"head": "gone.safetensors"}, "There is no head file"),
    ({"name": "vit_tiny_patch16_225"}, "Nearest: .*vit_tiny_patch16_224"),
    ({"name": "qqqqq"}, "There is no model named 'qqqqq'"),
    ({"name": "vit_tiny_patch16_224.mine"}, "Known: vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    ({"name": "swin_tiny_patch4_window7_224"}, "swin_tiny.* attention stays within windows.*`cl.wrap"),
    ({"name": "vit_base_patch16_xp_224"}, "attention and MLP side by side"),
    ({"name": 3}, "name of a model, not int"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_bad_arguments_are_refused_before_weights_are_read(
    named_file: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(load, "read_state_dict", lambda path: pytest.fail("weights were read"))
    monkeypatch.setattr(load, "fetch_weights", lambda *arguments: pytest.fail("the hub was asked"))
    arguments = {"name": SMALL_NAME, "checkpoint": named_file, **change}
    with pytest.raises(InputError, match=message):
        load_model(**arguments)


def test_a_device_that_is_not_there(named_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="sees 0 CUDA devices"):
        load_model(SMALL_NAME, checkpoint=named_file, device="cuda")


def test_misfit_names_the_file(named_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model.safetensors: .*width 64 and 6 blocks; vit_tiny_patch16_224 has"):
        load_model("vit_tiny_patch16_224", checkpoint=named_file)
    with pytest.raises(InputError, match="3 class names were given for a head of 5"):
        load_model(SMALL_NAME, checkpoint=named_file, class_names=["a", "b", "c"])


def test_list_models() -> None:
    names = list_models()
    assert len(names) > 150 and "vit_base_patch16_224" in names and "deit3_base_patch16_224" in names
    assert not {"convnext_tiny", "vit_base_patch16_xp_224"} & set(names)
    assert [name for name in names if (BUNDLED / f"{name}.json").exists()] == names[: len(list(BUNDLED.glob("*.json")))]
    assert "deit_tiny_patch16_224" in list_models("deit_*") and list_models("nothing*") == []
    shown = repr(names)
    assert shown.startswith(f"{len(names)} models") and len(shown.splitlines()) < len(names) / 2
    assert "CLIP (" in shown and "more" in shown and isinstance(names, list)
    few = list_models("deit3*")
    assert repr(few).startswith("8 models\nDeiT III (8)\n  ") and all(name in repr(few) for name in few)
    assert repr(list_models("nothing*")) == "[]"
    assert "vit_tiny_patch16_224.augreg_in21k_ft_in1k" in list_models("vit_tiny_patch16_224.*")


@pytest.mark.slow
def test_listed_names_are_exactly_the_supported_ones() -> None:
    listed = list_models("*")
    for name in timm.list_models(module=["vision_transformer", "deit", "eva"]):
        with torch.device("meta"):
            vit = timm.create_model(name)
        if name in listed:
            read_spec(vit)
        else:
            with pytest.raises(InputError):
                read_spec(vit)


# -- the hub -----------------------------------------------------------------------------------------------

ASK_DEAD_HUB = """
import time
from caap_lab.models.load import load_model
start = time.monotonic()
try:
    load_model("vit_tiny_patch16_224")
except ValueError as error:
    print(type(error).__name__, error)
print("seconds", time.monotonic() - start)
"""


def test_dead_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *args, **kwargs: "http://127.0.0.1:9/weights")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be reached.*timm/vit_tiny_patch16_224.augreg.*checkpoint="):
        load_model("vit_tiny_patch16_224")
    assert time.monotonic() - start < 15


@pytest.mark.slow
@pytest.mark.parametrize("offline", ["0", "1"])
def test_dead_network_in_a_fresh_process_fails_fast_with_the_way_out(tmp_path: Path, offline: str) -> None:
    dead = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": offline}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ASK_DEAD_HUB],
        env={**os.environ, **dead},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    message, seconds = done.stdout.strip().rsplit("seconds ", 1)
    assert message.startswith("InputError")
    assert "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k" in message and "checkpoint=" in message
    assert ("HF_HUB_OFFLINE" if offline == "1" else "cannot be reached") in message
    assert float(seconds) < 15
    assert time.monotonic() - start < 100


def test_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 0.3)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    end, answered = threading.Event(), []

    def never(*args: object, **options: object) -> None:
        end.wait(300)
        answered.append("too late")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", never)
    with pytest.raises(InputError, match=r"cannot be reached.*timm/some.*no answer.*checkpoint="):
        hub.fetch_weights("some", "timm/some")
    assert not answered
    end.set()


def fill_cache(folder: Path, repository: str, filename: str, weights: Path) -> None:
    """Lay a file where huggingface_hub keeps its cache."""
    place = folder / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "snapshots" / "abc" / filename).write_bytes(weights.read_bytes())


@pytest.mark.parametrize("filename", ["model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"])
def test_cached_weights_need_no_network(
    tmp_path: Path, named_file: Path, monkeypatch: pytest.MonkeyPatch, filename: str
) -> None:
    weights = named_file
    if filename.endswith(".bin"):
        weights = tmp_path / "weights.bin"
        torch.save(load_file(named_file), weights)
    repository = timm.get_pretrained_cfg(SMALL_NAME).hf_hub_id
    fill_cache(tmp_path / "cache", repository, filename, weights)
    look_up = huggingface_hub.try_to_load_from_cache
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda *args, **kwargs: look_up(*args, **{**kwargs, "cache_dir": tmp_path / "cache"}),
    )
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *args, **kwargs: pytest.fail("network used"))
    assert same(load_model(SMALL_NAME).vit.state_dict(), load_file(named_file))


def test_download_takes_the_first_file_that_exists(
    named_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "pytorch_model.bin"
    torch.save(load_file(named_file), weights)
    asked: list[str] = []

    def metadata(url: str, **options: Any) -> None:
        asked.append(url.rsplit("/", 1)[-1])
        if not url.endswith("pytorch_model.bin"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such file")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name, **options: str(weights))
    assert same(load_model(SMALL_NAME).vit.state_dict(), load_file(named_file))
    assert asked == ["model.safetensors", "pytorch_model.bin"]


def test_a_name_without_public_weights() -> None:
    with pytest.raises(InputError, match="timm has no weights for vit_base_patch16_gap_224"):
        load_model("vit_base_patch16_gap_224")


# -- the bundled model -------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like caap_lab/models/weights with a random model named demo."""
    save_file(
        {name: value.half() for name, value in small_vit().state_dict().items()},
        tmp_path / "demo.safetensors",
    )
    card = {
        "architecture": "VisionTransformer",
        "architecture_kwargs": SIZES,
        "head": "linear",
        "input_size": [3, SIZES["img_size"], SIZES["img_size"]],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "class_names": list("0123456789"),
        "weights": "demo.safetensors",
    }
    (tmp_path / "demo.json").write_text(json.dumps(card))
    monkeypatch.setattr(load, "BUNDLED", tmp_path)
    return tmp_path


def test_bundled_model_from_its_card(bundle: Path) -> None:
    model = load_model("demo")
    assert list_models()[0] == "demo"
    assert (model.model_name, model.n_classes, model.dtype) == ("demo", 10, torch.float32)
    assert model.class_names.names == tuple("0123456789") and model.target("7") == 7
    scene = Image.new("RGB", (32, 32), (255, 0, 127))
    assert (model.preprocessing.to_rgb(model.preprocess(scene)[0])[0, 0] == (255, 0, 127)).all()
    assert load_model("demo", image_size=48).spec.grid == (6, 6)
    other = bundle / "other.safetensors"
    save_file(small_vit(5).state_dict(), other)
    assert torch.equal(load_model("demo", checkpoint=other).vit.head.weight, small_vit(5).head.weight)


def test_missing_bundle_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "BUNDLED", tmp_path)
    for name in ("demo", "demo-clip"):
        with pytest.raises(
            InputError, match=f"bundled weights of '{name}' are missing.*caap_lab.training.train {name}"
        ):
            load_model(name)


def test_demo_reads_photos() -> None:
    """Through PIL images and the model's own preprocessing; test_demo_world.py checks the card's accuracy."""
    model = load_model("demo")
    scenes = demo_images("single", 50, seed=7)
    with torch.no_grad():
        guesses = model([scene.image for scene in scenes]).argmax(dim=1).tolist()
    assert sum(guess == scene.label for guess, scene in zip(guesses, scenes, strict=True)) >= 45


# -- real weights ------------------------------------------------------------------------------------------


def test_real_vit_tiny_agrees_with_plain_timm(shared: Path) -> None:
    folder = shared / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    meta = json.loads((folder / "meta.json").read_text())
    name, mean, std = meta["timm_model"], meta["mean"], meta["std"]
    model = load_model(name, checkpoint=folder / "model.safetensors", mean=mean, std=std)
    plain = timm.create_model(name).eval()
    plain.load_state_dict(load_file(folder / "model.safetensors"))
    config = {**resolve_model_data_config(plain), "mean": tuple(mean), "std": tuple(std)}
    transform = create_transform(**config, is_training=False)
    labels = json.loads((shared / "images" / "imagenet-val" / "labels.json").read_text())
    photos = sorted((shared / "images" / "imagenet-val").glob("*.JPEG"))[:8]
    with torch.no_grad():
        ours = model(photos)
        theirs = plain(torch.stack([transform(Image.open(path).convert("RGB")) for path in photos]))
    assert torch.equal(ours.argmax(dim=1), theirs.argmax(dim=1))
    assert torch.equal(ours, theirs)
    right = [
        labels[path.name]["label"] == guess for path, guess in zip(photos, ours.argmax(dim=1).tolist(), strict=True)
    ]
    assert sum(right) >= 4


# -- files that hold more than one thing, or less than they say -------------------------------------------------


@pytest.mark.parametrize("first", ["state_dict_ema", "model_ema"])
@pytest.mark.parametrize("second", ["state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_of_raw_and_averaged_weights_those_that_timm_takes(
    tmp_path: Path, first: str, second: str, prefix: str
) -> None:
    raw, averaged = small_vit(0).state_dict(), small_vit(1).state_dict()
    averaged = {f"{prefix}{name}": value for name, value in averaged.items()}
    torch.save({"epoch": 9, second: raw, first: averaged}, tmp_path / "checkpoint.pth.tar")
    by_timm = load_state_dict(str(tmp_path / "checkpoint.pth.tar"))
    assert same(read_state_dict(tmp_path / "checkpoint.pth.tar"), by_timm)
    torch.save({"model": raw, "state_dict": small_vit(2).state_dict()}, tmp_path / "both.pth")
    assert same(read_state_dict(tmp_path / "both.pth"), load_state_dict(str(tmp_path / "both.pth")))


@pytest.mark.parametrize(
    ("key", "other"), [("model", "ema"), ("state_dict", "teacher"), ("model", "model_state"), ("model_ema", "swa")]
)
def test_two_sets_of_which_timm_chooses_none_are_refused(tmp_path: Path, key: str, other: str) -> None:
    raw, averaged = small_vit(0).state_dict(), small_vit(1).state_dict()
    for content in (averaged, {"module." + name: value for name, value in averaged.items()}, {"model": averaged}):
        torch.save({key: raw, other: content}, tmp_path / "two.pth")
        with pytest.raises(
            CheckpointError, match=rf"as '{key}' and '{other}'. Choose one, as with checkpoint_key='{key}'"
        ):
            read_state_dict(tmp_path / "two.pth")
    torch.save({"student": raw, "teacher": averaged}, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"weights as 'student' and 'teacher'; it is not clear which to load"):
        read_state_dict(tmp_path / "two.pth")
    # What else training keeps is no second set.
    torch.save(
        {
            "model": raw,
            "optimizer": {"state": {0: {"exp_avg": raw["head.bias"]}}},
            "criterion": {"w": raw["head.bias"]},
        },
        tmp_path / "one.pth",
    )
    assert same(read_state_dict(tmp_path / "one.pth"), raw)


def test_what_unpacks_to_far_more_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, packed = tmp_path / "stored.pth", tmp_path / "packed.pth"
    torch.save({"head.weight": torch.zeros(1000, 1000)}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert packed.stat().st_size < 20_000
    assert read_state_dict(stored)["head.weight"].shape == (1000, 1000)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
        with pytest.raises(CheckpointError, match=r"would unpack to 4,00\d,\d+; weights do not compress so well"):
            read_state_dict(packed)
    small = {name: value for name, value in small_vit().state_dict().items()}
    for bad in (
        torch.zeros(1).expand(10**9, 24),
        torch.sparse_coo_tensor(size=(10**9, 24), check_invariants=True),
        torch.empty(9, 24, device="meta"),
    ):
        torch.save({**small, "head.weight": bad}, stored)
        with pytest.raises(CheckpointError, match=r"head.weight in .*(cannot hold|sparse, quantised or without)"):
            read_state_dict(stored)


def test_paths_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(CheckpointError, match=r"pipe.pth is a pipe or a device"):
        read_state_dict(tmp_path / "pipe.pth")
    for call in (read_state_dict, lambda path: load_model("demo", checkpoint=path)):
        with pytest.raises(CheckpointError, match=r"cannot be read|There is no checkpoint file"):
            call(f"{'a' * 5000}.pth")


@pytest.mark.parametrize("size", [100_000_000, (64, 10**9), 0, -64])
def test_image_sizes_that_nothing_can_hold_are_refused(size: Any) -> None:
    with pytest.raises(InputError, match="image_size="):
        load_model("demo", image_size=size)
