"""What a stranger may give wrongly for the paper's run is refused in a sentence, before a trial is written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from caap_lab import cli
from helpers import published_layouts as layouts
from helpers.stranger import PET, Stranger, stranger

Given = Callable[[Stranger, Path], list[str]]
"""Writes what is wrong below a folder, and returns the options of the command line."""

ONE_VIT = ["--tables", "1", "--without", "CLIP-L/14", "DINOv2-L/14", "DeiT3-L/16", "--methods", "Rollout"]
ONE_DINO = ["--tables", "1", "--without", "CLIP-L/14", "ViT-L/16", "DeiT3-L/16", "--methods", "Rollout"]
ONE_CNN = ["--tables", "14", "--without", "ResNet-50", "DenseNet-161", "VGG-16", "--methods", "CAAP"]
MASKS = ["--tables", "2", "--without", "CLIP-L/14", "DINOv2-L/14", "DeiT3-L/16", "--methods", "Rollout"]
OWN = ["--tables", "3", "--methods", "Rollout"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    return stranger(tmp_path_factory.mktemp("stranger"))


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command said, without line ends."""
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


# --- weights, heads, classes ---


def resnet50_file(world: Stranger, tmp: Path) -> list[str]:
    state = timm.create_model("resnet50", channels=(8, 8, 8, 8)).state_dict()
    save_file(state, tmp / "resnet50.safetensors")
    return [*world.given(models={"ResNet-18": f"resnet18:checkpoint={tmp}/resnet50.safetensors"}), *ONE_CNN]


def narrow_head(world: Stranger, tmp: Path) -> list[str]:
    save_file({"weight": torch.ones(1000, 7), "bias": torch.zeros(1000)}, tmp / "head.safetensors")
    return [*world.given(heads={"DINOv2-L/14": f"{tmp}/head.safetensors"}), *ONE_DINO]


MODELS: dict[str, tuple[Given, str]] = {
    "no weights": (
        lambda world, tmp: [*world.given(models={"ViT-L/16": "vit_tiny_patch16_224:checkpoint=gone.pth"}), *ONE_VIT],
        "gone.pth",
    ),
    "weights of a ResNet-50": (resnet50_file, "does not fit resnet18"),
    "no head": (
        lambda world, tmp: [*world.given("DINOv2-L/14", "head DINOv2-L/14"), *ONE_DINO],
        "dinov2_vitl14_linear_head.pth",
    ),
    "head for another width": (narrow_head, "reads 7 features"),
    "classes of Pet for ImageNet": (
        lambda world, tmp: [*world.given(models={"ViT-L/16": world.models[PET]}), *ONE_VIT],
        "It has 37 classes, and ImageNet has 1,000.",
    ),
    "classes of ImageNet for Pet": (
        lambda world, tmp: [*world.given(models={PET: world.models["ViT-B/16"]}), *OWN],
        "It has 1,000 classes (ImageNet-1k's), and Oxford-IIIT-Pet has 37.",
    ),
    "no classifier": (lambda world, tmp: [*world.given(PET), *OWN], "caap-lab train"),
}


# --- photos and masks ---


def copied(world: Stranger, name: str, tmp: Path) -> Path:
    """A copy of the folder of a data set, to change."""
    folder = Path(world.data[name].partition(":")[2].partition("?")[0])
    return Path(shutil.copytree(folder, tmp / folder.name))


def damaged_photo(world: Stranger, tmp: Path) -> list[str]:
    folder = copied(world, "ImageNet-1K", tmp)
    for path in folder.rglob("*.JPEG"):
        path.write_bytes(path.read_bytes()[:300])
    return [*world.given(data={"ImageNet-1K": f"imagenet:{folder}"}), *ONE_VIT]


def no_masks(world: Stranger, tmp: Path) -> list[str]:
    folder = copied(world, "ImageNet-S", tmp)
    shutil.rmtree(folder / "validation-segmentation")
    photos = world.data["ImageNet-1K"].partition(":")[2]
    return [*world.given(data={"ImageNet-S": f"imagenet-s:{folder}?images={photos}"}), *MASKS]


def no_trimaps(world: Stranger, tmp: Path) -> list[str]:
    folder = copied(world, "Oxford-IIIT-Pet", tmp)
    shutil.rmtree(folder / "annotations" / "trimaps")
    return [*world.given(data={"Oxford-IIIT-Pet": f"pet:{folder}"}), *OWN]


def with_masks(world: Stranger, tmp: Path, change: Callable[[np.ndarray], np.ndarray]) -> str:
    """ImageNet-S with other class ids in its masks."""
    folder = copied(world, "ImageNet-S", tmp)
    for path in folder.rglob("*.png"):
        name = path.stem
        own, other = layouts.objects(int(name[-8:]))
        first = layouts.S50_CLASSES.index(layouts.S_LABELS[name]) + 1
        ids = np.where(own, first, np.where(other, first % 50 + 1, 0))
        layouts.write_array(path, layouts.s_mask(change(ids)))
    return f"imagenet-s:{folder}?images={world.data['ImageNet-1K'].partition(':')[2]}"


def empty_masks(world: Stranger, tmp: Path) -> list[str]:
    return [*world.given(data={"ImageNet-S": with_masks(world, tmp, np.zeros_like)}), *MASKS]


def short_ground_truth(world: Stranger, tmp: Path) -> list[str]:
    source = layouts.devkit(tmp / "devkit")
    (path,) = (tmp / "devkit").rglob("ILSVRC2012_validation_ground_truth.txt")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    return [*world.given(data={"ImageNet-1K": source}), *ONE_VIT]


def one_class_folder(world: Stranger, tmp: Path) -> list[str]:
    (folder, *_) = sorted(path.parent for path in copied(world, "ImageNet-1K", tmp).rglob("*.JPEG"))
    return [*world.given(data={"ImageNet-1K": f"imagenet:{folder}"}), *ONE_VIT]


def two_revisions(world: Stranger, tmp: Path) -> list[str]:
    folder = copied(world, "ImageNet-Hard", tmp)
    file, *_ = sorted((folder / "data").iterdir())
    shutil.copy(file, file.with_name("validation-00000-of-00003-00000000000000ff.parquet"))
    return [*world.given(data={"ImageNet-Hard": f"imagenet-hard:{folder}"}), *OWN]


DATA: dict[str, tuple[Given, str]] = {
    "too few photos": (lambda world, tmp: [*world.given(images=None), *ONE_VIT], "ImageNet-1K has 4 images, and 500"),
    "damaged photos": (damaged_photo, "2 of 2 images cannot be used"),
    "no masks": (no_masks, "validation-segmentation"),
    "no trimaps": (no_trimaps, "trimaps"),
    "empty masks": (empty_masks, "no object"),
    "ground truth of another length": (short_ground_truth, "3"),
    "one class folder": (one_class_folder, "class folder"),
    "parquet files of two revisions": (two_revisions, "revision"),
}


DOCTOR_TOO = ("weights of a ResNet-50", "head for another width", "too few photos", "empty masks", "one class folder")
"""Cases in which `doctor` would look for nothing more than files, if it did not open them as a run does."""


@pytest.mark.parametrize("case", [*MODELS, *DATA])
def test_what_is_missing_or_unfit(
    case: str, world: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, sentence = {**MODELS, **DATA}[case]
    options = given(world, tmp_path)
    assert cli.main(["bench", "--profile", "paper", *options, "--out", str(tmp_path / "run")]) == 2
    assert sentence in printed(capsys) and not (tmp_path / "run").exists()
    if case in DOCTOR_TOO:
        assert cli.main(["doctor", "--no-timing", *options]) == 1
        assert sentence in printed(capsys)


# --- names ---

NAMES = {
    "--models ViT-L16=x": "models: 'ViT-L16' is not one of the paper's names. Nearest: ViT-L/16",
    "--models Pets/ViT-B/16=x": "'Pets' in 'Pets/ViT-B/16' is not one of the paper's data sets",
    "--models ViT-L/16=vit_larg_patch16_224": "There is no model named 'vit_larg_patch16_224'",
    "--head DINO-L/14=x": "heads: 'DINO-L/14' is not one of the paper's names. Nearest: DINOv2-L/14",
    "--image-list Imagenet=x": "image_lists: 'Imagenet' is not one of the paper's names. Nearest: ImageNet-",
    "--image-list ImageNet-1K=gone.txt": "gone.txt",
    "--data imagenett:x": "'imagenett:x' is not one of the paper's data sets",
    "--methods CAPP": "methods: 'CAPP' is not one of the paper's names. Nearest: CAAP",
    "--without MDAA": "without: 'MDAA' is not one of the paper's names. Nearest: MDA",
    "--tables 16": "The paper has no table 16",
    "--images table16=3": "The paper has no table 16",
    "--protocol raise": "no protocol 'raise'",
    "--precision fp8": "precision is 'fp8'",
    "--device cuda:99": "cuda:99",
    "--profile paper.tml": "There is no profile or file 'paper.tml'",
}
LOOKED_UP = ("--models ViT-L/16=vit_larg_patch16_224", "--image-list ImageNet-1K=gone.txt")
"""What `doctor` reports as missing, as other weights and photos."""


@pytest.mark.parametrize("words", NAMES)
def test_names_that_are_none(words: str, world: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--profile", "paper", *ONE_VIT, "--data", world.data["ImageNet-1K"], *words.split()]
    given += [] if "--images" in words else ["--images", "2"]
    given += [] if "--models" in words else ["--models", f"ViT-L/16={world.models['ViT-L/16']}"]
    for command in ("bench", "figures fig01", *(() if words in LOOKED_UP else ("doctor",))):
        assert cli.main([*command.split(), *given, "--out", str(tmp_path / "run")]) == 2
        assert NAMES[words] in printed(capsys) and not (tmp_path / "run").exists()


# --- figures ---


def one_class_each(world: Stranger, tmp: Path) -> list[str]:
    source = with_masks(world, tmp, lambda ids: np.where(ids == ids.max(), ids.max(), 0))
    return [*world.given(data={"ImageNet-S": source})]


FIGURES: dict[str, tuple[Given, str]] = {
    "fig07 --tables 14": (lambda world, tmp: world.given(), "fig07 reads tables 1, 2, which the run does not have"),
    "fig06": (lambda world, tmp: world.given("ImageNet-S"), "there is no ImageNet-S (--data imagenet-s:PATH)"),
    "fig10": (lambda world, tmp: world.given(models={"DeiT3-S/16": f"{tmp}/none"}), "/none"),
    "fig03": (one_class_each, "no photo has masks of two classes"),
    "fig01 --photos ILSVRC2012_val_00000009": (lambda world, tmp: world.given(), "there is no ILSVRC2012_val_00000009"),
    "fig11 --target aardvarc": (lambda world, tmp: world.given(), "aardvarc"),
    "fig41": (lambda world, tmp: world.given(), "There is no figure or table 'fig41'"),
}


@pytest.mark.parametrize("words", FIGURES)
def test_figures_without_what_they_show(
    words: str, world: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, sentence = FIGURES[words]
    options = [*given(world, tmp_path), *words.split()[1:]]
    assert cli.main(["figures", words.split()[0], "--profile", "paper", *options, "--out", str(tmp_path / "out")]) == 2
    assert sentence in printed(capsys) and not list((tmp_path / "out").rglob("*.*"))


# --- classifiers ---


def test_photos_that_a_classifier_cannot_be_trained_on(
    world: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, data = world.models["ViT-B/16"], world.data["Food-101"]
    assert cli.main(["train", backbone, "--data", data, "--out", str(tmp_path / "out")]) == 2
    assert "fewer than two photos" in printed(capsys) and not (tmp_path / "out").exists()
