"""`caap-lab doctor`: what it finds and what it says of the rest, and that its costs are those that runs have."""

from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

import caap_lab as cl
from caap_lab import cli
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.bench import run_cost
from caap_lab.bench.doctor import doctor
from caap_lab.bench.paper_settings import PaperSettings, given_settings
from caap_lab.bench.profiles import paper_plan
from caap_lab.bench.run_cost import architecture, curve_passes, seconds_per_pass
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.variant import parse_variant
from helpers.imagenet import imagenet_folder
from helpers.passes import Passes

LARGE = ["ViT-L/16=demo", "CLIP-L/14=demo-clip", "DINOv2-L/14=demo-dinov2", "DeiT3-L/16=demo-deit3"]


@pytest.fixture
def imagenet(tmp_path: Path) -> str:
    return imagenet_folder(tmp_path)


@pytest.fixture
def head(tmp_path: Path) -> Path:
    width = 2 * cl.load_model("demo-dinov2").spec.d_model
    save_file({"weight": torch.ones(10, width), "bias": torch.zeros(10)}, tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


# --- costs ---


@pytest.mark.parametrize("protocol", ["rise", "patches", "chefer"])
def test_cost_of_curves(protocol: str) -> None:
    model = cl.load_model("demo")
    image = cl.demo_images("single", 1)[0].image
    m = cl.attribute(model, image, "grad_cam", 3)
    with Passes(model) as passes:
        cl.insertion_deletion(model, image, m, protocol=protocol)
    assert passes.forwards == pytest.approx(curve_passes(curve_protocol(protocol), ModelSize.of(model)))


def test_sizes_need_no_weights() -> None:
    settings = PaperSettings()
    found = {
        name: architecture(settings.model("ImageNet-1K", name)) for name in ("ViT-B/16", "DINOv2-S/14", "ResNet-50")
    }
    assert all(p.is_meta for body, _ in found.values() for p in body.parameters())
    assert found["ViT-B/16"][1] == ModelSize("vit", (224, 224), (14, 14), 768)
    assert found["DINOv2-S/14"][1] == ModelSize("vit", (224, 224), (16, 16), 384)
    assert found["ResNet-50"][1] == ModelSize("cnn", (224, 224), (14, 14), 2048)
    assert curve_passes(curve_protocol("rise"), found["ViT-B/16"][1]) == 2 * 225


def test_a_pass_is_timed_and_its_memory_freed(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    body, size = architecture(parse_variant("resnet18.tv_in1k:image_size=64"))
    seconds = seconds_per_pass(body, size.image_size)
    assert seconds is not None and 0 < seconds < 5 and all(p.is_meta for p in body.parameters())
    monkeypatch.setattr(run_cost, "_free_memory", lambda device: 10**6)
    assert seconds_per_pass(body, size.image_size) is None
    assert cli.main(["doctor", "--tables", "3"]) == 1
    assert "A model without a time does not fit into the free memory." in capsys.readouterr().out


# --- the report ---


def test_cells_are_those_of_the_plan(imagenet: str, head: Path) -> None:
    options = {"models": LARGE, "heads": {"DINOv2-L/14": head}, "tables": [1, 10, 12], "images": 2}
    settings = given_settings(data=[imagenet], **options)
    report = doctor(settings, timing=False)
    plan = paper_plan(settings)
    assert sum(one.trials for one in report.costs) == len(plan.trials) == 4 * 2 * (10 + 1 + 2)
    assert report.complete and report.possible == report.tables == (1, 10, 12)
    (vit, *_), size = report.costs, ModelSize.of(cl.load_model("demo"))
    methods = [trial.method.name for trial in plan.trials if trial.model.label == vit.model]
    expected = sum(METHODS[method].passes(size) + curve_passes(plan.protocol, size) for method in methods)
    assert vit.passes == pytest.approx(expected) and vit.seconds is None


def test_weights_in_the_cache_and_in_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cached(repository: str, name: str, **rest: object) -> str | None:
        return "there" if "resnet18" in repository and name == "model.safetensors" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    save_file({"fc.bias": torch.zeros(2)}, tmp_path / "weights.safetensors")
    (tmp_path / "empty.safetensors").touch()
    models = [
        f"ResNet-50=resnet50:checkpoint={tmp_path / 'weights.safetensors'}",
        f"DenseNet-161=densenet161:checkpoint={tmp_path / 'empty.safetensors'}",
        "VGG-16=vgg61",
    ]
    report = doctor(given_settings(models=models, tables=[14]), timing=False)
    assert [part.here for part in report.weights] == [True, True, False, False]
    told = [part.report for part in report.weights]
    assert told[0] == "timm/resnet18.tv_in1k is in the Hugging Face cache"
    assert told[1] == f"resnet50 in {tmp_path / 'weights.safetensors'}"
    assert "is empty" in told[2] and "There is no model named 'vgg61'" in told[3]
    assert [one.model for one in report.costs] == ["ResNet-18", "ResNet-50", "DenseNet-161"]  # what size vgg61 has?


def test_heads_and_data_that_do_not_fit(tmp_path: Path, imagenet: str, head: Path) -> None:
    (tmp_path / "food-101" / "meta").mkdir(parents=True)
    (tmp_path / "food-101" / "images").mkdir()
    (tmp_path / "food-101" / "meta" / "classes.txt").write_text("soup")
    (tmp_path / "food-101" / "meta" / "test.txt").write_text("soup/1\n")
    (tmp_path / "empty").mkdir()
    data = [imagenet, f"food101:{tmp_path / 'food-101'}", f"pet:{tmp_path / 'empty'}", "imagenet-hard:nowhere"]
    own = {"data": data, "models": LARGE, "tables": [1, 3]}
    heads = {"DINOv2-L/14": head, "ViT-L/16": tmp_path / "none.pth"}
    report = doctor(given_settings(heads=heads, **own), timing=False)
    assert [(part.name, part.here) for part in report.heads] == [("ViT-L/16", False), ("DINOv2-L/14", True)]
    assert "There is no checkpoint file" in report.heads[0].report
    found = {part.name: part for part in report.data}
    assert found["ImageNet-1K"].report.startswith("3 images without masks in ") and found["ImageNet-1K"].here
    assert "1.jpg" in found["Food-101"].report  # the list is there, its photos are not
    assert "is not laid out as expected" in found["Oxford-IIIT-Pet"].report
    assert "There is no folder nowhere. The data set comes from" in found["ImageNet-Hard"].report
    assert not report.possible
    save_file({"weight": torch.ones(10, 7), "bias": torch.zeros(10)}, tmp_path / "wide.safetensors")
    report = doctor(given_settings(heads={"DINOv2-L/14": tmp_path / "wide.safetensors"}, **own), timing=False)
    assert "reads 7 features" in report.heads[0].report and not report.heads[0].here
