"""Classifiers from a backbone and photos: what is written, what is measured, going on after a stop, refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.layers import GluMlp
from timm.models import save_for_hf
from timm.models.vision_transformer import VisionTransformer

import caap_lab as cl
from caap_lab import cli
from caap_lab.bench.pairing import label_of
from caap_lab.models.classes import ClassNames
from caap_lab.models.extra_tokens import extended
from caap_lab.training import classifier_backbone, classifier_features, classifier_full
from caap_lab.training.classifier import train_classifier
from caap_lab.training.classifier_backbone import Backbone, open_backbone
from caap_lab.training.classifier_data import open_training_data
from caap_lab.training.classifier_folder import TrainingFolder
from caap_lab.training.classifier_linear import choose_strength, fit
from caap_lab.training.classifier_reading import random_crop

COLOURS = {"Sea_blue": (40, 60, 200), "leaf green": (50, 190, 60), "red": (200, 50, 40)}
EACH = 10
SIZES: Any = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 4}


def photo(colour: tuple[int, int, int], number: int) -> Image.Image:
    """A colour under noise, which hides it from one pixel and not from many."""
    rng = np.random.default_rng([*colour, number])
    return Image.fromarray(np.clip(rng.normal(colour, 60, (36, 40, 3)), 0, 255).astype(np.uint8))


def train(model: str, data: str, out: Path, **options: object) -> object:
    return train_classifier(model, data, out, progress=False, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained ViT of one block for images of 32 pixels, as timm saves it, with four other classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_for_hf(timm.create_model("vit_tiny_patch16_224", **SIZES), str(path), safe_serialization=True)
    return str(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photos in each of three class folders."""
    root = tmp_path_factory.mktemp("photos")
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(EACH):
            photo(colour, number).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def linear(tiny: str, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classifiers") / "linear"
    train(tiny, f"folder:{photos}", out)
    return out


def test_a_linear_classifier_opens_with_the_classes_of_its_photos(linear: Path, photos: Path) -> None:
    images = cl.open_images(f"folder:{photos}")
    model = cl.load_model(linear)
    assert model.class_names == images.class_names and model.n_classes == 3
    card = json.loads((linear / "training.json").read_text())
    guesses = model([sample.image for sample in images]).argmax(1)
    right = int((guesses == torch.tensor([sample.label for sample in images])).sum())
    assert card["accuracy"]["training"] == {"right": right, "photos": 30} and right > 20
    assert card["accuracy"]["held-out"]["photos"] == 3 and "test" not in card["accuracy"]
    assert card["command"].startswith("caap-lab train ") and card["feature"] == "the class token"
    assert sorted(path.name for path in linear.iterdir()) == ["config.json", "model.safetensors", "training.json"]


def test_a_benchmark_tells_its_classes_by_the_names_of_the_photos(linear: Path, photos: Path) -> None:
    images, model = cl.open_images(f"folder:{photos}"), cl.load_model(linear)
    assert [label_of(sample, images, model) for sample in images[::EACH]] == [0, 1, 2]
    model = cl.load_model(linear, class_names=["red", "sea-blue", "leaf green"])
    assert [label_of(sample, images, model) for sample in images[::EACH]] == [1, 2, 0]


def test_a_finished_classifier_is_not_trained_again(
    linear: Path, tiny: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classifier_features, "read_photos", None)
    assert cli.main(["train", tiny, "--data", f"folder:{photos}", "--out", str(linear)]) == 0
    said = capsys.readouterr().out
    assert "of 30 training photos" in said and "of 3 held-out photos; the data set has no test split" in said
    assert f"open it with cl.load_model({str(linear)!r})" in said


def test_the_fit_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    x = (rng.normal(size=(60, 5)) + np.eye(5)[labels]) * [1, 10, 0.1, 3, 1] + 5
    head = fit(torch.from_numpy(x), torch.from_numpy(labels), 3, strength=0.02)
    scaled = (x - x.mean(0)) / x.std(0)
    theirs = LogisticRegression(C=1 / (0.02 * 60), tol=1e-8, max_iter=5000).fit(scaled, labels)
    shares = head(torch.from_numpy(x)).softmax(1).numpy()
    np.testing.assert_allclose(shares, theirs.predict_proba(scaled), atol=1e-4)


def test_regularisation_is_chosen_on_held_out_photos() -> None:
    """Features without meaning are fitted least; features that tell the class are not."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    noise = torch.randn(80, 40, generator=generator)
    telling = noise + 3 * (2 * labels[:, None] - 1)
    for features, weakest in ((noise, 10.0), (telling, 1.0)):
        _, tried = choose_strength(features[:40], labels[:40], features[40:], labels[40:], 2, progress=False)
        best = min(tried, key=lambda one: one.loss)
        assert best.strength == 10 if weakest == 10 else best.strength <= weakest and best.accuracy > 0.9


def stop_after(function: Callable[..., None], name: str) -> Callable[..., None]:
    """As Ctrl-C right after a file of this name was kept."""

    def and_stop(*given: object, **options: object) -> None:
        function(*given, **options)
        if name in given:
            raise KeyboardInterrupt

    return and_stop


def test_features_are_computed_once(
    linear: Path, tiny: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_features, "_SHARD", 8)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingFolder, "keep", stop_after(TrainingFolder.keep, "features-training-0000008"))
        train(tiny, f"folder:{photos}", tmp_path / "out", batch_size=8)
    seen: list[int] = []
    once = Backbone.features
    monkeypatch.setattr(Backbone, "features", lambda self, pixels: seen.append(len(pixels)) or once(self, pixels))
    train(tiny, f"folder:{photos}", tmp_path / "out", batch_size=8)
    assert seen == [8, 6]
    assert cl.load_model(tmp_path / "out")(torch.zeros(1, 3, 32, 32)).allclose(
        cl.load_model(linear)(torch.zeros(1, 3, 32, 32)), atol=1e-3
    )


def test_fine_tuning_goes_on_as_if_never_stopped(
    tiny: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"mode": "full", "epochs": 2, "learning_rate": 1e-3, "batch_size": 8}
    whole = train(tiny, f"folder:{photos}", tmp_path / "whole", **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingFolder, "keep", stop_after(TrainingFolder.keep, "epoch"))
        train(tiny, f"folder:{photos}", tmp_path / "stopped", **options)
    resumed = train(tiny, f"folder:{photos}", tmp_path / "stopped", **options)
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
    same = ("accuracy", "epochs", "settings", "images")
    assert {key: whole.card[key] for key in same} == {key: resumed.card[key] for key in same}
    assert len(whole.card["epochs"]) == 2 and whole.card["epochs"][-1]["loss"] < whole.card["epochs"][0]["loss"]
    assert "; before fine-tuning, the linear classifier had" in str(whole)
    assert whole.accuracy["training"] > 0.8 and whole.card["accuracy"]["training"]["photos"] == 27


@pytest.mark.parametrize("name", ["demo-dinov2", "demo-cnn", "distilled"])
def test_the_classifier_reads_what_the_models_own_head_reads(name: str, tmp_path: Path) -> None:
    """And what was put there comes back from the folder: `finish` compares the two."""
    if name == "distilled":
        sizes = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}
        body = timm.create_model("deit_tiny_distilled_patch16_224", **sizes)
        save_for_hf(body, str(tmp_path / name), safe_serialization=True)
        name = str(tmp_path / name)
    backbone = open_backbone(f"{name}:mean=[0.4,0.5,0.6]", torch.device("cpu"))
    pixels = torch.randn(2, 3, *backbone.preprocessing.image_size)
    with torch.no_grad():
        features = backbone.features(pixels)
        weight, bias = torch.randn(3, features.shape[1]), torch.randn(3)
        backbone.put_head(weight, bias)
        torch.testing.assert_close(backbone.body(pixels), features @ weight.T + bias)
    folder = TrainingFolder(tmp_path / "out")
    with folder.opened({}):
        opened = folder.finish(backbone, ClassNames(("a", "b", "c")), {"settings": {}, "accuracy": {}})
    assert opened.preprocessing.mean == (0.4, 0.5, 0.6)


def pets(root: Path) -> Path:
    """A copy of Oxford-IIIT Pet in its layout: four training and two test photos of two breeds."""
    for name in ("images", "annotations/trimaps"):
        (root / name).mkdir(parents=True)
    lines = []
    for index, (breed, colour) in enumerate({"great_pyrenees": (220, 220, 220), "Bombay": (30, 30, 30)}.items(), 1):
        for number in range(6):
            photo(colour, number).save(root / "images" / f"{breed}_{number}.jpg")
            Image.new("L", (40, 36), 1).save(root / "annotations" / "trimaps" / f"{breed}_{number}.png")
            lines.append(f"{breed}_{number} {index} 1 1")
    for name, chosen in (
        ("list", lines),
        ("trainval", [*lines[:4], *lines[6:10]]),
        ("test", [*lines[4:6], *lines[10:]]),
    ):
        (root / "annotations" / f"{name}.txt").write_text("\n".join(chosen))
    return root


def food(root: Path) -> Path:
    """A copy of Food-101 in its layout, of two dishes."""
    (root / "meta").mkdir(parents=True)
    for name, colour in {"pea_soup": (60, 200, 60), "tomato_soup": (220, 40, 30)}.items():
        (root / "images" / name).mkdir(parents=True)
        for number in range(6):
            photo(colour, number).save(root / "images" / name / f"{number}.jpg")
    (root / "meta" / "classes.txt").write_text("pea_soup\ntomato_soup")
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        lines = [f"{name}/{number}" for name in ("pea_soup", "tomato_soup") for number in numbers]
        (root / "meta" / f"{part}.txt").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize(
    ("make", "kind", "names"),
    [(pets, "pet", ("great pyrenees", "Bombay")), (food, "food101", ("pea soup", "tomato soup"))],
    ids=["pet", "food101"],
)
def test_published_splits_are_trained_and_tested_on(
    make: Callable[[Path], Path], kind: str, names: tuple[str, ...], tiny: str, tmp_path: Path
) -> None:
    root = make(tmp_path / "data")
    trained = train(tiny, f"{kind}:{root}", tmp_path / "out")
    counts = {part: counts["photos"] for part, counts in trained.card["accuracy"].items()}
    assert counts == {"training": 8, "held-out": 2, "test": 4} and trained.accuracy["test"] == 1
    assert "of 4 test photos" in str(trained) and cl.load_model(tmp_path / "out").class_names.names == names


def test_test_photos_are_not_trained_on(tiny: str, tmp_path: Path) -> None:
    root = pets(tmp_path / "data")
    with pytest.raises(cl.InputError, match=r"4 of 4 photos in .* are also test photos: great_pyrenees_4"):
        train(tiny, f"pet:{root}?labels={root}/annotations/test.txt", tmp_path / "out")
    (root / "annotations" / "trainval.txt").unlink()
    with pytest.raises(cl.InputError, match=r"has no annotations/trainval.txt, the list of its training photos"):
        open_training_data(f"pet:{root}")


def unlabelled(root: Path) -> str:
    photo((1, 2, 3), 0).save(root / "a.png")
    return "1 of 1 images of .* have no label, such as a.png"


def single_class(root: Path) -> str:
    (root / "cat").mkdir()
    for number in range(2):
        photo((1, 2, 3), number).save(root / "cat" / f"{number}.png")
    return "has only the class 'cat'"


def class_of_one_photo(root: Path) -> str:
    for name, count in (("cat", 2), ("dog", 1)):
        (root / name).mkdir()
        for number in range(count):
            photo((1, 2, 3), number).save(root / name / f"{number}.png")
    return "1 of 2 classes of .* have fewer than two photos: dog"


def classes_without_photos(root: Path) -> str:
    (root / "classes.txt").write_text("cat\ndog\nhorse\nbird\nfish")
    (root / "labels.json").write_text(json.dumps({f"{number}.png": number % 2 for number in range(4)}))
    for number in range(4):
        photo((1, 2, 3), number).save(root / f"{number}.png")
    return "3 of 5 classes of .* have fewer than two photos: horse, bird, fish"


def damaged(root: Path) -> str:
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(3):
            photo((1, 2, 3), number).save(root / name / f"{number}.png")
    (root / "cat" / "1.png").write_bytes((root / "cat" / "1.png").read_bytes()[:700])
    (root / "dog" / "2.png").write_text("no photo")
    return r"2 of 6 photos of .* cannot be read: cat/1.png \(.*truncated.*; dog/2.png"


@pytest.mark.parametrize("make", [unlabelled, single_class, class_of_one_photo, classes_without_photos, damaged])
def test_photos_that_no_classifier_can_be_trained_on_are_refused(
    make: Callable[[Path], str], tiny: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    expected = make(tmp_path / "data")
    with pytest.raises(cl.InputError, match=expected):
        train(tiny, f"folder:{tmp_path / 'data'}", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mode": "half"}, "mode='half' is not known; use one of linear, full"),
        ({"epochs": 0, "mode": "full"}, "epochs must be a whole number of at least 1"),
        ({"epochs": 3}, "epochs and learning_rate are only for mode 'full'"),
        ({"learning_rate": 2, "mode": "full"}, "learning_rate=2 must be above 0 and below 1"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"workers": -1}, "workers must be a whole number of at least 0, not -1"),
        ({"seed": -1}, "seed=-1"),
        ({"device": "cuda:99"}, "cuda:99' is not available"),
    ],
)
def test_settings_are_checked_first(options: dict[str, object], expected: str, tmp_path: Path) -> None:
    with pytest.raises(cl.InputError, match=expected):
        train("demo", "folder:nowhere", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_belongs_to_one_training(linear: Path, tiny: str, photos: Path, tmp_path: Path) -> None:
    data = f"folder:{photos}"
    with pytest.raises(cl.InputError, match=r"contains another training: mode is linear there but full here\."):
        train(tiny, data, linear, mode="full")
    with pytest.raises(cl.InputError, match=r"model is .*tiny there but demo here, seed is 0 there but 1 here"):
        train("demo", data, linear, seed=1)
    with pytest.raises(cl.InputError, match=r"data is .* there but .* here"):
        train(tiny, "demo:single", linear)
    (tmp_path / "letter.txt").write_text("Dear all")
    with pytest.raises(cl.InputError, match=r"already contains other files \(letter.txt\); use a new folder"):
        train(tiny, data, tmp_path)
    assert train(f"{tiny}/../tiny", data, linear).card["settings"]["model"] == tiny  # the same in other words
    with pytest.raises(cl.InputError, match="is a file; use a folder"):
        train(tiny, data, tmp_path / "letter.txt")


def test_the_same_folder_with_other_photos_is_another_training(linear: Path, tiny: str, photos: Path) -> None:
    photo((200, 50, 40), 99).save(photos / "red" / "99.png")
    try:
        with pytest.raises(cl.InputError, match=r"with the same name but different content: data"):
            train(tiny, f"folder:{photos}", linear)
    finally:
        (photos / "red" / "99.png").unlink()


def test_a_loss_that_is_no_number_stops_the_run(
    tiny: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_full, "_loss", lambda body, pixels, labels: body(pixels).sum() * float("nan"))
    with pytest.raises(cl.InputError, match="The loss of epoch 1 is nan; train with a smaller --learning-rate"):
        train(tiny, f"folder:{photos}", tmp_path / "out", mode="full", epochs=1)


@pytest.mark.parametrize("option", ["head=x.pth", "device=cuda", "class_names=[1]"])
def test_options_that_are_not_of_the_model_are_refused(option: str) -> None:
    with pytest.raises(cl.InputError, match=r"= of .* has no meaning in training"):
        open_backbone(f"demo:{option}", torch.device("cpu"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda: VisionTransformer(**SIZES), "comes from a folder of transformers or PEFT, .* Use timm's name"),
        (lambda: timm.create_model("vit_tiny_patch16_224", mlp_layer=GluMlp, **SIZES), "cannot be saved as a timm"),
        (
            lambda: extended(timm.create_model("vit_tiny_patch16_224", **SIZES), 1),
            "was changed after timm had built it",
        ),
    ],
    ids=["a twin", "a class as argument", "more tokens"],
)
def test_a_model_that_timm_would_not_build_again_is_refused(
    change: Callable[[], torch.nn.Module], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_backbone, "load_model", lambda name: cl.HookedViT(change()))
    with pytest.raises(cl.InputError, match=expected):
        open_backbone("folder/of/one", torch.device("cpu"))


def test_crops_depend_on_the_generator_alone() -> None:
    image = Image.new("RGB", (100, 80))
    sizes = [random_crop(image, np.random.default_rng(seed)).size for seed in range(50)]
    assert sizes == [random_crop(image, np.random.default_rng(seed)).size for seed in range(50)]
    shares = [width * height / 8000 for width, height in sizes]
    ratios = [width / height for width, height in sizes]
    assert 0.33 < min(shares) < 0.5 and 0.8 < max(shares) <= 1
    assert 0.73 < min(ratios) < 0.9 and 1.1 < max(ratios) < 1.36
    assert random_crop(Image.new("RGB", (300, 30)), np.random.default_rng(0)).size == (40, 30)
