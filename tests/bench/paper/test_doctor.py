"""`caap-lab doctor`: what it finds and what it says of the rest, and that its costs are those that runs have."""

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

import caap_lab as cl
from caap_lab import InputError, cli
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.bench import run_cost
from caap_lab.bench.benchmark import run_plan
from caap_lab.bench.paper.doctor import doctor
from caap_lab.bench.paper.needs import Checking, data_part
from caap_lab.bench.paper.profiles import paper_plan
from caap_lab.bench.paper.settings import PaperSettings, given_settings
from caap_lab.bench.run_cost import architecture, curve_passes, measured
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.variant import parse_variant
from helpers import published_layouts
from helpers.imagenet import imagenet_folder
from helpers.paper_models import cnn_folder, head_file, vit_folder
from helpers.passes import Passes

NAMES = ("ViT-L/16", "CLIP-L/14", "DINOv2-L/14", "DeiT3-L/16")


@pytest.fixture
def imagenet(tmp_path: Path) -> str:
    return imagenet_folder(tmp_path)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Small models with ImageNet's classes in the place of the four large ones."""
    folder = tmp_path_factory.mktemp("models")
    return [f"{name}={vit_folder(folder / str(place))}" for place, name in enumerate(NAMES)]


@pytest.fixture
def head(tmp_path: Path) -> str:
    return head_file(tmp_path / "head.safetensors")


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
    found = measured(body, size.image_size)
    assert found is not None and 0 < found.seconds < 5 and all(p.is_meta for p in body.parameters())
    half = measured(body, size.image_size, precision="float16")
    assert half is not None and 1.9 < found.weights_bytes / half.weights_bytes < 2.1 and half.bytes_per_image is None
    with pytest.raises(InputError, match="TF32 needs an NVIDIA GPU"):
        measured(body, size.image_size, precision="tf32")
    monkeypatch.setattr(run_cost, "free_memory", lambda device: 10**6)
    assert measured(body, size.image_size) is None
    assert cli.main(["doctor", "--tables", "3"]) == 1
    assert "ViT-B/16 was not timed: its weights do not fit into the free memory of cpu." in capsys.readouterr().out


class _Clocked(torch.nn.Module):
    """A model whose runs take so many seconds, and more per image, by a clock of its own."""

    def __init__(self, each_run: float, each_image: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.each_run, self.each_image = each_run, each_image
        self.now, self.batches = 0.0, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.now += self.each_run + len(images) * self.each_image
        self.batches.append(len(images))
        return images


@pytest.mark.parametrize(
    ("each_run", "each_image", "batch_size", "at_once"),
    [(0.005, 0.001, 64, 64), (0.005, 0.001, 8, 8), (0.005, 0.045, 64, 10), (1.0, 2.0, 64, 1)],
    ids=["small model", "small batch", "half a second", "large model"],
)
def test_a_pass_is_timed_as_a_run_makes_it(
    monkeypatch: pytest.MonkeyPatch, each_run: float, each_image: float, batch_size: int, at_once: int
) -> None:
    """Many images at once, so that what a run takes besides its images counts once per batch."""
    model = _Clocked(each_run, each_image)
    monkeypatch.setattr(run_cost.time, "perf_counter", lambda: model.now)
    found = measured(model, (8, 8), batch_size=batch_size)
    assert found is not None and found.seconds == pytest.approx(each_run / at_once + each_image)
    assert set(model.batches) == {1, at_once}


# --- the report ---


def test_cells_are_those_of_the_plan(imagenet: str, head: str, large: list[str]) -> None:
    options = {"models": large, "heads": {"DINOv2-L/14": head}, "tables": [1, 10, 12], "images": 2}
    settings = given_settings(data=[imagenet], **options)
    report = doctor(settings, timing=False)
    plan = paper_plan(settings)
    assert sum(one.trials for one in report.costs) == len(plan.trials) == 4 * 2 * (10 + 1 + 2)
    assert report.complete and report.possible == report.tables == (1, 10, 12)
    vit, size = report.costs[0], ModelSize.of(cl.load_model(large[0].partition("=")[2]))
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
    settings = given_settings(models=models, tables=[14])
    report = doctor(settings, timing=False, quick=True)
    assert [part.here for part in report.weights] == [True, True, False, False]
    told = [part.report for part in report.weights]
    assert told[0] == "timm/resnet18.tv_in1k is in the Hugging Face cache"
    assert told[1] == f"resnet50 in {tmp_path / 'weights.safetensors'}"
    assert "is empty" in told[2] and "There is no model named 'vgg61'" in told[3]
    assert [one.model for one in report.costs] == ["ResNet-18", "ResNet-50", "DenseNet-161"]  # what size vgg61 has?
    opened = doctor(settings, timing=False).weights  # with no data to run them on
    assert not any(part.here for part in opened)
    assert "fc.bias" in opened[1].report and opened[2].report == told[2]


def test_a_file_for_another_model_or_other_classes_is_not_here(imagenet: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    other = timm.create_model("resnet26t")
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    models = [
        f"ResNet-18=resnet14t:checkpoint={tmp_path / 'other.safetensors'}",
        f"ResNet-50={cnn_folder(tmp_path / 'ten', 10)}",
        f"DenseNet-161={cnn_folder(tmp_path / 'cnn')}:image_sise=32",
        f"VGG-16={cnn_folder(tmp_path / 'same')}",
    ]
    settings = given_settings(data=[imagenet], models=models, tables=[14], images=2)
    report = doctor(settings, timing=False)
    assert [part.here for part in report.weights] == [False, False, False, True]
    assert [part.unfit for part in report.weights] == [True, True, False, False]  # a misspelt option is no file
    told = [part.report for part in report.weights]
    assert "does not fit" in told[0] or "layer1" in told[0]
    assert told[1].startswith("It has 10 classes, and ImageNet has 1,000. Use a model with its classes: --models")
    assert "a model has no option 'image_sise'. Nearest: image_size" in told[2]
    assert not report.possible and not report.complete
    found = {spec.label: spec for spec in paper_plan(settings).studies[0].models}
    for name, part in zip(found, report.weights, strict=True):  # a run says the same
        if not part.here:
            alone = given_settings(settings, without=[other for other in found if other != name])
            with pytest.raises(cl.InputError) as raised:
                run_plan(paper_plan(alone), tmp_path / "run", progress=False)
            assert part.report.splitlines()[0] in str(raised.value)


def test_heads_and_data_that_do_not_fit(tmp_path: Path, imagenet: str, head: str, large: list[str]) -> None:
    (tmp_path / "food-101" / "meta").mkdir(parents=True)
    (tmp_path / "food-101" / "images").mkdir()
    (tmp_path / "food-101" / "meta" / "classes.txt").write_text("soup")
    (tmp_path / "food-101" / "meta" / "test.txt").write_text("soup/1\n")
    (tmp_path / "empty").mkdir()
    data = [imagenet, f"food101:{tmp_path / 'food-101'}", f"pet:{tmp_path / 'empty'}", "imagenet-hard:nowhere"]
    own = {"data": data, "models": large, "tables": [1, 3], "images": 1}
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


def test_heads_of_models_that_take_none(head: str, tmp_path: Path) -> None:
    cnn = f"ResNet-18={cnn_folder(tmp_path / 'cnn')}"
    settings = given_settings(models=[cnn], heads={"ResNet-18": head}, tables=[14], without=["VGG-16", "DenseNet-161"])
    (part,) = doctor(settings, timing=False, quick=True).heads
    assert not part.here and "is a CNN and keeps its own head" in part.report
    with pytest.raises(cl.InputError, match="is not a device"):
        doctor(settings, timing=False, device="gpu")


def test_every_photo_that_a_run_draws_is_opened(imagenet: str) -> None:
    last = sorted(Path(imagenet.partition(":")[2]).rglob("*.JPEG"))[-1]
    last.write_bytes(last.read_bytes()[:200])
    part = data_part(given_settings(data=[imagenet], images=3), "ImageNet-1K", Checking())
    assert part.report.startswith("1 of 3 images cannot be used:") and last.name in part.report and not part.here
    part = data_part(given_settings(data=[imagenet], tables=[14]), "ImageNet-1K", Checking())
    assert part.report == "ImageNet-1K has 3 images, and 500 are due: --images 3 if that is meant."


def test_classifiers_are_parts_of_their_own(tmp_path: Path, large: list[str]) -> None:
    pet = published_layouts.pet(tmp_path / "pets")
    settings = given_settings(data=[pet], tables=[3], images=2)
    report = doctor(settings, timing=False, quick=True)
    assert [(part.name, part.here) for part in report.classifiers] == [
        ("Oxford-IIIT-Pet/ViT-B/16", False),
        ("Food-101/ViT-B/16", False),
    ]
    assert report.classifiers[0].report == (
        f"`caap-lab train vit_base_patch16_224.augreg2_in21k_ft_in1k --data {pet} --out FOLDER` trains it; --models "
        '"Oxford-IIIT-Pet/ViT-B/16=FOLDER"'
    )
    assert "--data food101:PATH" in report.classifiers[1].report and not report.possible
    given = ["Oxford-IIIT-Pet/ViT-B/16=" + vit_folder(tmp_path / "37", 37), f"ViT-B/16={vit_folder(tmp_path / 'vit')}"]
    report = doctor(given_settings(settings, models=given), timing=False)
    assert [part.here for part in (*report.weights, *report.classifiers)] == [True, True, False]
    assert report.possible == (3,) and not report.complete
    assert report.left_out == ("Table 3 is left out in part: there is no copy of ImageNet-Hard and Food-101.",)
    wrong = f"Oxford-IIIT-Pet/ViT-B/16={vit_folder(tmp_path / '5', 5)}"
    report = doctor(given_settings(settings, models=[wrong, given[1]]), timing=False)
    assert [part.here for part in (*report.weights, *report.classifiers)] == [True, False, False]
    assert report.classifiers[0].report.startswith("It has 5 classes, and Oxford-IIIT-Pet has 37.")
    assert not report.possible
