"""A folder that PEFT saved loads as base model and adapter together, merged."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import caap_lab as cl
from caap_lab.errors import CheckpointError, InputError
from helpers.checkpoints import change_json, put_in_cache, save_transformers

pytestmark = [
    pytest.mark.xdist_group("transformers"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT asks for it
]


def train(base: Any, folder: Path, **options: Any) -> Any:
    """An adapter on a base model, its weights random, saved; the model that has it comes back."""
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, init_lora_weights=False, **options)
    adapted = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "modules_to_save" in name:
                parameter.normal_()
    adapted.save_pretrained(folder)
    return adapted


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with an adapter on a ViT of 5 classes, and the live model."""
    folder = tmp_path_factory.mktemp("adapters")
    names = dict(enumerate(["cat", "dog", "cow", "hen", "pig"]))
    save_transformers(folder / "base", id2label=names)
    from transformers import ViTForImageClassification

    base = ViTForImageClassification.from_pretrained(folder / "base")
    return folder / "adapter", train(base, folder / "adapter", target_modules=["q_proj", "v_proj", "fc1"])


def check(model: Any, original: Any, size: int = 32) -> None:
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = original(images)
        expected = getattr(expected, "logits", expected)
        assert (model(images) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_an_adapter_is_merged_into_the_base_that_it_names(trained: tuple[Path, Any]) -> None:
    folder, live = trained
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = cl.load_model(folder)
    check(model, live)
    with live.disable_adapter(), pytest.raises(AssertionError):
        check(model, live)
    assert model.model_name == "adapter" and model.class_names.names[:2] == ("cat", "dog")
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)  # the base model's
    m = cl.caap(model, torch.randn(3, 32, 32), target="dog")
    assert m.scores.shape == (4, 4)


def test_an_adapter_from_before_transformers_renamed_modules(trained: tuple[Path, Any], tmp_path: Path) -> None:
    folder, live = trained
    shutil.copytree(folder, tmp_path / "older")
    former = [
        (".layers.", ".encoder.layer."),
        ("attention.q_proj", "attention.attention.query"),
        ("attention.v_proj", "attention.attention.value"),
        ("mlp.fc1", "intermediate.dense"),
    ]
    state = {}
    for name, value in load_file(folder / "adapter_model.safetensors").items():
        for new, old in former:
            name = name.replace(new, old)
        state[name] = value
    assert any("encoder.layer.1.intermediate.dense.lora_A" in name for name in state)
    save_file(state, tmp_path / "older" / "adapter_model.safetensors")
    settings = tmp_path / "older" / "adapter_config.json"
    change_json(settings, target_modules=["query", "value", "intermediate.dense"])
    check(cl.load_model(tmp_path / "older"), live)
    change_json(settings, alpha_pattern={"query": 4})
    with pytest.raises(InputError, match=r"had other module names, and its rank_pattern or alpha_pattern"):
        cl.load_model(tmp_path / "older")


def test_a_classifier_that_was_trained_with_it(tmp_path: Path) -> None:
    from transformers import ViTForImageClassification

    save_transformers(tmp_path / "base", "ViTModel")  # has no classifier
    base = ViTForImageClassification.from_pretrained(tmp_path / "base", num_labels=3)
    live = train(base, tmp_path / "adapter", target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
    (tmp_path / "base" / "preprocessor_config.json").rename(tmp_path / "adapter" / "preprocessor_config.json")
    state = load_file(tmp_path / "base" / "model.safetensors")
    save_file(
        {name: value for name, value in state.items() if "pooler" not in name}, tmp_path / "base" / "model.safetensors"
    )
    change_json(
        tmp_path / "adapter" / "adapter_config.json",
        auto_mapping={"base_model_class": "ViTForImageClassification", "parent_library": "transformers"},
    )
    model = cl.load_model(tmp_path / "adapter")
    assert model.n_classes == 3 and model.class_names.name(0) == "class 0"
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)  # the adapter's own
    check(model, live)


def test_an_adapter_on_a_model_that_timm_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = timm.create_model("test_vit", num_classes=5, img_size=32)
    timm.models.save_for_hf(body, tmp_path / "base", safe_serialization=True)
    body.reset_classifier(3)
    live = train(body, tmp_path / "adapter", target_modules=["qkv", "fc2"], modules_to_save=["head"])
    change_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "base"))
    model = cl.load_model(tmp_path / "adapter")
    assert model.n_classes == 3
    check(model, live)


def test_a_base_on_the_hub_comes_from_the_cache(
    trained: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, live = trained
    put_in_cache(monkeypatch, tmp_path / "cache", "someone/base", folder.parent / "base", "abc")
    shutil.copytree(folder, tmp_path / "adapter")
    change_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="someone/base")
    check(cl.load_model(tmp_path / "adapter"), live)
    put_in_cache(monkeypatch, tmp_path / "cache", "someone/adapter", tmp_path / "adapter", "def")
    check(cl.load_model("hf-hub:someone/adapter"), live)


def test_adapters_that_cannot_be_loaded_are_told(
    trained: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "changed")
    changed = tmp_path / "changed"
    state = load_file(folder / "adapter_model.safetensors")
    save_file(
        {**state, "base_model.model.extra.lora_A.weight": torch.zeros(2, 2)}, changed / "adapter_model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"does not fit its base model .*: 1 weights are .*extra\.lora_A"):
        cl.load_model(changed)
    (changed / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json but no weights; looked for adapter_model"):
        cl.load_model(changed)
    shutil.copy(folder / "adapter_model.safetensors", changed)
    for change, message in (
        ({"base_model_name_or_path": None}, "does not name its base model"),
        ({"base_model_name_or_path": str(folder)}, "is itself an adapter"),
        ({"base_model_name_or_path": "/gone/base"}, "base"),
        ({"target_modules": ["nothing"]}, "does not fit its base model"),
    ):
        shutil.copy(folder / "adapter_config.json", changed)
        change_json(changed / "adapter_config.json", **change)
        with pytest.raises(InputError, match=message):
            cl.load_model(changed)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match="PEFT is not installed: pip install peft"):
        cl.load_model(folder)
