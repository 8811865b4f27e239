"""The page "Bring your model": its snippets run, in order, in a folder that holds what they read."""

import warnings
from pathlib import Path

import pytest
import timm
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import caap_lab as cl
from tests.helpers.snippets import run_snippets

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 4}
NAMES = ["cat", "dog", "rabbit"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint and the folder that the page speaks of; timm's models are built small."""
    create = timm.create_model

    def small(name: str, **options: object) -> torch.nn.Module:
        sizes = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)} if "swin" in name else SMALL
        return create(name, **{**options, **sizes})

    monkeypatch.setattr(timm, "create_model", small)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    weights = small("vit_tiny_patch16_224", num_classes=4).state_dict()
    torch.save({"epoch": 3, "model_state_dict": {f"_orig_mod.{name}": w for name, w in weights.items()}}, "mine.pt")
    labels = dict(enumerate(NAMES))
    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        image_size=64,
        patch_size=16,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )
    ViTForImageClassification(config).save_pretrained("my-vit", safe_serialization=True)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained("my-vit")
    return tmp_path


def test_the_snippets_of_the_page_run(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"transformers|peft|torch")
        names = run_snippets("bring_your_model.md", at_least=9)
    printed = capsys.readouterr().out
    assert "changes the computation" in printed and "cl.wrap(model[1])" in printed
    model = names["model"]
    assert isinstance(model, cl.BlackBoxModel) and model.grid == (7, 7)


def test_the_folder_of_the_page_says_its_classes_and_computes_the_same(files: Path) -> None:
    model = cl.load_model("my-vit")
    assert list(model.class_names.names) == NAMES and model.preprocessing.image_size == (64, 64)
    original = ViTForImageClassification.from_pretrained("my-vit").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), original(x).logits, rtol=1e-4, atol=1e-6)
