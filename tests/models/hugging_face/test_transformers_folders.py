"""A folder that transformers saved loads as the model that it is: scores, sizes, classes, and words where it cannot."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import caap_lab as cl
from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.classes import ClassNames
from caap_lab.models.hugging_face.reading import class_names
from helpers.checkpoints import SAVED, change_json, save_transformers

pytestmark = pytest.mark.xdist_group("transformers")


def scores(original: Any, images: torch.Tensor, **options: Any) -> torch.Tensor:
    """What users of the original read, by transformers alone."""
    with torch.no_grad():
        if hasattr(original, "get_image_features"):
            original = original.vision_model if not hasattr(original, "visual_projection") else original
        if hasattr(original, "visual_projection"):
            pooled = original.vision_model(pixel_values=images, **options).pooler_output
            return original.visual_projection(pooled)
        given = original(pixel_values=images, **options)
    found = getattr(given, "logits", None)
    return given.pooler_output if found is None else found


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max())


def check_same(folder: Path, kind: str) -> None:
    original = save_transformers(folder, kind)
    model = cl.load_model(str(folder))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert close(model(images), scores(original, images))
    assert model.model_name == folder.name and not model.vit.training and model.dtype == torch.float32
    assert model.preprocessing.mean == (0.1, 0.2, 0.3) and model.preprocessing.std == (0.4, 0.5, 0.6)
    assert model.spec.grid == (4, 4)


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "Dinov2WithRegistersModel", "CLIPModel"])
def test_scores_are_the_originals(tmp_path: Path, kind: str) -> None:
    check_same(tmp_path / "mine", kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAVED)
def test_scores_are_the_originals_for_every_class(tmp_path: Path, kind: str) -> None:
    check_same(tmp_path / "mine", kind)


def check_other_size(folder: Path, kind: str, size: tuple[int, int]) -> None:
    original = save_transformers(folder, kind)
    model = cl.load_model(folder, image_size=size)
    assert model.preprocessing.image_size == size and model.spec.grid == (size[0] // 8, size[1] // 8)
    images = torch.randn(1, 3, *size)
    any_size = kind.startswith("DINOv3") or kind.startswith("Dinov2")
    options = {} if any_size else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        assert close(model(images), scores(original, images, **options))


def test_another_image_size_is_resampled_as_transformers_does(tmp_path: Path) -> None:
    check_other_size(tmp_path, "ViTForImageClassification", (24, 48))
    with pytest.raises(InputError, match=r"image_size=\(24, 44\) is not a whole number of patches: .* 8 x 8 pixels"):
        cl.load_model(tmp_path, image_size=(24, 44))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(24, 48), (64, 64)])
@pytest.mark.parametrize("kind", [kind for kind in SAVED if not kind.startswith("Beit")])
def test_another_image_size_for_every_class(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    check_other_size(tmp_path, kind, size)


def test_a_model_for_any_size_takes_that_of_its_image_processor(tmp_path: Path) -> None:
    original = save_transformers(tmp_path, "Dinov2ForImageClassification", image_size=64)
    change_json(
        tmp_path / "preprocessor_config.json",
        image_processor_type="BitImageProcessor",
        size={"shortest_edge": 48},
        crop_size={"height": 40, "width": 40},
        do_center_crop=True,
    )
    model = cl.load_model(tmp_path)
    assert model.preprocessing.image_size == (40, 40) and model.preprocessing.crop_mode == "center"
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert close(model(images), scores(original, images))
    assert cl.load_model(tmp_path, image_size=64).spec.grid == (8, 8)


def test_files_that_disagree_on_the_size_are_refused_until_it_is_said(tmp_path: Path) -> None:
    original = save_transformers(tmp_path)
    original.config.name_or_path = str(tmp_path)  # as after from_pretrained
    change_json(tmp_path / "preprocessor_config.json", size={"height": 40, "width": 40})
    for model in (lambda **size: cl.load_model(tmp_path, **size), lambda **size: cl.wrap(original, **size)):
        with pytest.raises(
            InputError, match=r"built for images of 32 x 32 .* outputs 40 x 40\. Choose one: image_size="
        ):
            model()
        assert model(image_size=32).spec.grid == (4, 4)
        assert model(image_size=40).spec.grid == (5, 5)


def test_what_does_not_fit_the_patches_of_a_model_in_memory_is_refused(tmp_path: Path) -> None:
    original = save_transformers(tmp_path)
    with pytest.raises(InputError, match=r"image_size=\(24, 44\) is not a whole number of patches: .* 8 x 8 pixels"):
        cl.wrap(original, image_size=(24, 44))
    with pytest.raises(InputError, match=r"grid=\(2, 2\).*4 x 4.*BlackBoxModel"):
        cl.wrap(original, grid=(2, 2), preprocessing=cl.Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3))


def test_options_go_before_the_checkpoints_files(tmp_path: Path) -> None:
    names = [f"thing {index}" for index in range(5)]
    save_transformers(tmp_path, id2label=dict(enumerate(["one", "two", "three", "four", "five"])))
    assert cl.load_model(tmp_path).class_names.names == ("one", "two", "three", "four", "five")
    model = cl.load_model(tmp_path, mean=(0.5, 0.5, 0.5), std=(1, 1, 1), class_names=names, dtype="float64")
    assert model.preprocessing.mean == (0.5, 0.5, 0.5) and model.preprocessing.std == (1, 1, 1)
    assert model.class_names.names == tuple(names) and model.dtype == torch.float64
    head = tmp_path / "head.safetensors"
    save_file({"weight": torch.randn(3, 32), "bias": torch.zeros(3)}, head)
    model = cl.load_model(tmp_path, head=head)
    assert model.n_classes == 3 and model.class_names.name(0) == "class 0"
    with pytest.raises(InputError, match="has weights of its own"):
        cl.load_model(tmp_path, checkpoint=tmp_path / "model.safetensors")


def test_labels_that_are_numbers_are_no_names_and_imagenets_bring_their_ids(tmp_path: Path) -> None:
    save_transformers(tmp_path)
    assert cl.load_model(tmp_path).class_names.names[0] == "class 0"
    imagenet = ClassNames.imagenet1k()
    spelt = [name.split(",")[0] for name in imagenet.names]
    spelt[3] = "another spelling"
    named = class_names(spelt)
    assert named is not None and named.find("n02123045") == imagenet.find("n02123045")
    assert named.names[3] == "another spelling"
    swapped = class_names(spelt[::-1])
    assert swapped is not None and swapped.ids == ()


def test_without_an_image_processor_the_familys_own_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_transformers(tmp_path, processor=None)
    with caplog.at_level(logging.WARNING, "caap_lab"):
        model = cl.load_model(tmp_path)
    assert model.preprocessing.mean == (0.5, 0.5, 0.5) and model.preprocessing.image_size == (32, 32)
    assert "has no preprocessor_config.json" in caplog.text and "mean=... and std=" in caplog.text
    caplog.clear()
    cl.load_model(tmp_path, mean=(0.2, 0.2, 0.2), std=(0.3, 0.3, 0.3))
    assert not caplog.records


def test_weights_in_several_files_or_as_pickles(tmp_path: Path) -> None:
    original = save_transformers(tmp_path)
    images = torch.randn(1, 3, 32, 32)
    expected = scores(original, images)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with torch.no_grad():
        assert close(cl.load_model(tmp_path)(images), expected)
    (tmp_path / "pytorch_model.bin").unlink()
    places = {name: f"model-0000{index % 2 + 1}-of-00002.safetensors" for index, name in enumerate(sorted(state))}
    for file in set(places.values()):
        save_file({name: state[name] for name in state if places[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with torch.no_grad():
        assert close(cl.load_model(tmp_path)(images), expected)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match="does not say which file holds which weight"):
        cl.load_model(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"names gone\.safetensors, which does not exist"):
        cl.load_model(tmp_path)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json but no weights; looked for model\.safetensors"):
        cl.load_model(tmp_path)


def test_older_files_without_a_pooler_load(tmp_path: Path) -> None:
    save_transformers(tmp_path, "ViTModel")
    state = load_file(tmp_path / "model.safetensors")
    save_file({n: v for n, v in state.items() if not n.startswith("pooler")}, tmp_path / "model.safetensors")
    model = cl.load_model(tmp_path)
    assert model.n_classes == 32 and model.spec.n_layers == 2


MISFITS: dict[str, tuple[Any, str]] = {
    "missing": (lambda s: s.pop("vit.layernorm.weight"), r"1 missing: vit\.layernorm\.weight"),
    "unexpected": (lambda s: s.update(extra=torch.zeros(1)), "1 unexpected: extra"),
    "shape": (
        lambda s: s.update({"classifier.bias": torch.zeros(3)}),
        r"of another shape: classifier\.bias is \[3\] instead of \[5\]",
    ),
    "nan": (lambda s: s["classifier.bias"].fill_(torch.nan), r"classifier\.bias of .* holds NaN or infinity"),
}


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    save_transformers(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    for change, message in MISFITS.values():
        changed = {name: value.clone() for name, value in state.items()}
        change(changed)
        save_file(changed, path)
        with pytest.raises(CheckpointError, match=message):
            cl.load_model(tmp_path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        cl.load_model(tmp_path)


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"model_type": "swin", "architectures": ["SwinForImageClassification"]},
        r"is a SwinForImageClassification, which is not supported: its attention stays within windows.*cl\.wrap",
    ),
    ({"model_type": "hiera", "architectures": ["HieraModel"]}, "within units of a mask"),
    ({"model_type": "siglip2", "architectures": ["Siglip2Model"]}, "not as one grid"),
    ({"model_type": "bert", "architectures": ["BertModel"]}, "BertModel, which is not supported. Supported are"),
    ({"model_type": "mine", "architectures": ["MyModel"]}, "transformers does not know the model type 'mine'"),
    (
        {"architectures": ["MyModel"], "auto_map": {"AutoModel": "mine.MyModel"}},
        r"MyModel, which transformers does not have\. Code in a checkpoint is never run",
    ),
    ({"architectures": None}, 'add it, for example "architectures"'),
    ({"model_type": None}, "names neither a timm architecture"),
    ({"architectures": ["ViTForMaskedImageModeling"]}, "predicts masked patches"),
    ({"architectures": ["DeiTModel"]}, "has the type 'vit', which does not match DeiTModel"),
    ({"hidden_act": "foo"}, r"config\.json of .* cannot be used: KeyError: 'foo'"),
    ({"hidden_size": "wide"}, r"config\.json of .* cannot be used: .*hidden_size"),
    ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights"),
]


def test_what_is_not_supported_is_refused_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_transformers(tmp_path)
    first = (tmp_path / "config.json").read_text()
    (tmp_path / "mine.py").write_text("raise SystemExit('code of the checkpoint was run')")
    monkeypatch.setattr(
        "caap_lab.models.hugging_face.module.read_tensors", lambda path: pytest.fail("weights were read")
    )
    for change, message in REFUSED:
        (tmp_path / "config.json").write_text(first)
        change_json(tmp_path / "config.json", **change)
        with pytest.raises(InputError, match=message):
            cl.load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        cl.load_model(tmp_path)


def test_maps_and_photos_work_as_with_any_model(tmp_path: Path) -> None:
    save_transformers(tmp_path, id2label=dict(enumerate(["cat", "dog", "cow", "hen", "pig"])))
    model = cl.load_model(tmp_path)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    m = cl.caap(model, photo, target="dog")
    assert m.target_name == "dog" and m.scores.shape == (4, 4) and bool(torch.isfinite(torch.as_tensor(m.scores)).all())
