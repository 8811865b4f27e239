"""Benchmarks of models from folders and repositories: known by the content of what is read, wherever it lies."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import caap_lab as cl
from caap_lab.bench.identity import weights_digest
from caap_lab.bench.paper.doctor import doctor
from caap_lab.bench.paper.settings import given_settings
from caap_lab.bench.run_folder import RunFolder
from caap_lab.variant import parse_variant
from helpers.checkpoints import PROCESSOR, change_json, put_in_cache, save_transformers

pytestmark = pytest.mark.xdist_group("transformers")
OTHERS = ("CLIP-B/16", "DINOv2-B/14", "DeiT3-B/16")
"""Of table 4, beside ViT-B/16: making each takes a second."""
QUICK: dict[str, Any] = {"progress": False, "protocol": "xplique", "images": 1}


def digest(text: str) -> str:
    return weights_digest(parse_variant(text))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A ViT of transformers for 10 digits, with its image processor."""
    save_transformers(tmp_path / "saved", num_labels=10)
    return tmp_path / "saved"


def test_a_folder_is_known_by_what_is_read_of_it(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(str(saved))
    (saved / "README.md").write_text("not read")
    assert digest(f"mine={saved}:image_size=64") == first
    shutil.copytree(saved, tmp_path / "elsewhere=b")
    assert digest(str(tmp_path / "elsewhere=b")) == first
    put_in_cache(monkeypatch, tmp_path / "cache", "someone/vit", saved, "abc")
    assert digest("hf-hub:someone/vit") == digest("label=hf-hub:someone/vit@abc:dtype=float64") == first
    found = {first}
    change_json(saved / "preprocessor_config.json", image_mean=[0.3, 0.3, 0.3])
    found.add(digest(str(saved)))
    change_json(saved / "config.json", layer_norm_eps=0.1)
    found.add(digest(str(saved)))
    save_transformers(saved, processor={**PROCESSOR, "image_mean": [0.3, 0.3, 0.3]}, num_labels=10, hidden_size=48)
    found.add(digest(str(saved)))
    assert len(found) == 4
    with pytest.raises(cl.InputError, match="There is no folder"):
        digest(str(tmp_path / "gone"))


def test_an_adapter_counts_with_its_base(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "adapter").mkdir()
    for name, content in (
        ("base/config.json", '{"architecture": "test_vit"}'),
        ("base/model.safetensors", "weights"),
        ("adapter/adapter_config.json", f'{{"base_model_name_or_path": "{tmp_path / "base"}"}}'),
        ("adapter/adapter_model.safetensors", "more"),
    ):
        (tmp_path / name).write_text(content)
    found = [digest(str(tmp_path / "adapter"))]
    for name in ("base/model.safetensors", "adapter/adapter_model.safetensors"):
        (tmp_path / name).write_text("other")
        found.append(digest(str(tmp_path / "adapter")))
    assert len(set(found)) == 3


def test_a_benchmark_runs_on_a_folder_and_goes_on_where_it_lies_elsewhere(saved: Path, tmp_path: Path) -> None:
    def run(folder: Path) -> Any:
        result = cl.benchmark(f"mine={folder}", "rollout", "demo:single", out=tmp_path / "run", **QUICK)
        assert result.failed.empty
        return result.to_dataframe()

    before = run(saved)
    assert before["fingerprint"][0] == cl.load_model(saved).fingerprint
    run(saved.rename(tmp_path / "moved"))
    assert len(RunFolder(tmp_path / "run").rows()) == 1
    change_json(tmp_path / "moved" / "preprocessor_config.json", image_mean=[0.3, 0.3, 0.3])
    after = run(tmp_path / "moved")
    assert len(RunFolder(tmp_path / "run").rows()) == 2
    assert after["scores"][0].tolist() != before["scores"][0].tolist()


def test_what_cannot_be_loaded_is_refused_before_the_run(saved: Path, tmp_path: Path) -> None:
    other = shutil.copytree(saved, tmp_path / "other")
    change_json(other / "config.json", model_type="swin", architectures=["SwinModel"])
    for text, message in (
        (str(other), "its attention stays within windows"),
        (str(tmp_path / "gone"), "There is no folder"),
        ("google/vit", "write hf-hub:google/vit"),
        (f"{saved}:checkpoint={saved / 'model.safetensors'}", "has weights of its own"),
        (f"{saved}:head=gone.pth", "The head file gone.pth cannot be read"),
        (f"{saved}:image_size=30", "not a whole number of patches"),
    ):
        with pytest.raises(cl.InputError, match=message):
            cl.benchmark(text, "rollout", "demo:single", out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_doctor_looks_for_folders_and_repositories_and_downloads_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_cache(monkeypatch, tmp_path / "cache", "someone/vit", saved, "abc")

    def part(text: str) -> Any:
        report = doctor(given_settings(models=[f"ViT-B/16={text}"], tables=[4], without=OTHERS), timing=False)
        (found,) = [part for part in report.weights if part.name == "ViT-B/16"]
        return found

    assert part(str(saved)).here and "is a folder" in part(str(saved)).report
    assert part("hf-hub:someone/vit").here and "in the Hugging Face cache" in part("hf-hub:someone/vit").report
    assert not part("hf-hub:someone/other").here
    assert part("hf-hub:someone/other").report == "hf-hub:someone/other is not in the Hugging Face cache"
    assert "There is no folder" in part(str(tmp_path / "gone")).report
