"""Photos become the tensors that timm makes of them; batches are checked before a model sees them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.preprocess import INTERPOLATIONS, Preprocessing, as_batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = Preprocessing((32, 32), MEAN, STD, crop_pct=0.9)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def small_vit(**options: object) -> VisionTransformer:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=10, **options)


@pytest.mark.parametrize("photo_size", [(50, 37), (37, 90), (20, 20), (32, 32), (7, 300)])
@pytest.mark.parametrize("image_size", [(32, 32), (40, 24)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_equals_timm(photo_size: tuple[int, int], image_size: tuple[int, int], crop_pct: float, crop_mode: str) -> None:
    config = {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
    }
    photo = noise(*photo_size)
    theirs = create_transform(input_size=(3, *image_size), is_training=False, **config)(photo)
    ours = Preprocessing(image_size, **config)(photo)
    assert ours.shape == (3, *image_size) and ours.dtype == torch.float32
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_interpolation_equals_timm(interpolation: str) -> None:
    theirs = create_transform((3, 32, 32), interpolation=interpolation, mean=MEAN, std=STD, crop_pct=0.9)
    ours = Preprocessing((32, 32), MEAN, STD, interpolation, crop_pct=0.9)
    assert torch.equal(ours(noise(50, 60)), theirs(noise(50, 60)))


def test_from_timm() -> None:
    vit = small_vit()
    vit.pretrained_cfg = {"mean": MEAN, "std": (0.5,) * 3, "crop_pct": 0.95, "interpolation": "bilinear"}
    found = Preprocessing.from_timm(vit)
    assert found == Preprocessing((32, 32), MEAN, (0.5,) * 3, "bilinear", 0.95, "center")
    theirs = create_transform(**{**resolve_model_data_config(vit), "input_size": (3, 32, 32)}, is_training=False)
    assert torch.equal(found(noise(45, 61)), theirs(noise(45, 61)))
    changed = Preprocessing.from_timm(vit, mean=[0.1, 0.2, 0.3], std=[1, 1, 1])
    assert (changed.mean, changed.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


def test_from_timm_refuses_other_channels() -> None:
    with pytest.raises(InputError, match="reads 1 channels"):
        Preprocessing.from_timm(small_vit(in_chans=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.5, 0.5)}, "three numbers"),
        ({"mean": "abc"}, "three numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "three numbers"),
        ({"mean": 0.5}, "three numbers"),
        ({"mean": (123.7, 116.3, 103.5)}, "divide by 255"),
        ({"std": (0.2, 0.2, 0.0)}, "greater than 0"),
        ({"std": (0.2, -0.2, 0.2)}, "greater than 0"),
        ({"std": (0.2,) * 4}, "three numbers"),
        ({"image_size": (0, 32)}, "image_size"),
        ({"image_size": (32, 32, 3)}, "image_size"),
        ({"image_size": 32}, "image_size=32 is not a"),
        ({"crop_pct": 0}, "crop_pct"),
        ({"crop_pct": 1.5}, "crop_pct"),
        ({"interpolation": "cubic"}, "bicubic"),
        ({"crop_mode": "centre"}, "center, squash, border"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing(**{"image_size": (32, 32), "mean": MEAN, "std": STD, **change})


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("photo_size", [(80, 50), (50, 80)])
def test_mask_covers_what_the_photo_shows(crop_mode: str, photo_size: tuple[int, int]) -> None:
    preprocessing = Preprocessing((32, 32), (0, 0, 0), (1, 1, 1), crop_pct=0.9, crop_mode=crop_mode)
    width, height = photo_size
    mask = np.zeros((height, width), dtype=bool)
    mask[10:35, 15:45] = True
    photo = Image.fromarray(np.where(mask[..., None], np.uint8([255, 255, 255]), np.uint8(0)))
    seen = preprocessing(photo)[0]
    found = preprocessing.mask(mask)
    assert found.dtype == torch.bool and found.shape == (32, 32)
    assert 50 < int(found.sum()) < 1000
    clear = (seen < 0.02) | (seen > 0.98)
    assert clear.float().mean() > 0.8
    assert torch.equal(found[clear], seen[clear] > 0.5)


def test_mask_forms_and_padding() -> None:
    array = np.zeros((40, 60), dtype=np.uint8)
    array[5:20, 5:30] = 3
    forms = [
        array,
        array > 0,
        array.astype(float),
        torch.from_numpy(array),
        torch.from_numpy(array).bfloat16(),
        Image.fromarray(array),
    ]
    masks = [SMALL.mask(form) for form in forms]
    assert all(torch.equal(mask, masks[0]) for mask in masks) and masks[0].any()
    border = Preprocessing((32, 32), MEAN, STD, crop_mode="border")
    full = border.mask(np.ones((16, 64)))
    assert full[12:20].all() and not full[:12].any() and not full[20:].any()


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((0, 4)), np.zeros(4), np.full((4, 4), np.nan), "x"])
def test_bad_masks_are_refused(bad: object) -> None:
    with pytest.raises(InputError, match="mask"):
        SMALL.mask(bad)


def test_to_rgb_undoes_the_normalisation() -> None:
    exact = Preprocessing((32, 32), MEAN, STD)
    photo = noise(32, 32)
    assert (exact.to_rgb(exact(photo)) == np.asarray(photo)).all()
    assert exact.to_rgb(exact(photo).half()).dtype == np.uint8
    assert (exact.to_rgb(torch.full((3, 4, 5), 100.0)) == 255).all()
    assert exact.to_rgb(torch.full((3, 4, 5), -100.0)).shape == (4, 5, 3)
    with pytest.raises(InputError, match=r"\[1, 3, 32, 32\]"):
        exact.to_rgb(exact(photo)[None])


def test_batch_of_every_form(tmp_path: Path) -> None:
    photo = noise(50, 60)
    photo.save(tmp_path / "photo.png")
    path = tmp_path / "photo.png"
    tensor = SMALL(photo)
    for form in (path, str(path), photo, np.asarray(photo), tensor, tensor[None]):
        assert torch.equal(as_batch(form, SMALL), tensor[None])
        assert torch.equal(as_batch([form], SMALL), tensor[None])
    other = torch.rand(2, 3, 32, 32)
    batch = as_batch([photo, other, (str(path), tensor)], SMALL)
    assert torch.equal(batch, torch.stack([tensor, *other, tensor, tensor]))


def test_batch_keeps_number_format_and_gradient() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert as_batch(torch.rand(3, 32, 32).to(dtype), SMALL).dtype == dtype
    leaf = torch.rand(2, 3, 32, 32, requires_grad=True)
    as_batch([leaf, noise(40, 40)], SMALL).sum().backward()
    assert leaf.grad is not None and bool((leaf.grad == 1).all())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.rand(3, 32, 40), r"\[3, 32, 32\].*this one is \[3, 32, 40\]"),
        (torch.rand(32, 32, 3), "takes preprocessed tensors"),
        (torch.rand(1, 1, 3, 32, 32), "takes preprocessed tensors"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "floating-point"),
        (torch.zeros(3, 32, 32, dtype=torch.bool), "floating-point"),
        (torch.rand(0, 3, 32, 32), "batch is empty"),
        (torch.full((3, 32, 32), torch.nan), "NaN or infinity"),
        (torch.full((3, 32, 32), -torch.inf), "NaN or infinity"),
        (torch.zeros(3, 32, 32, device="meta"), "'meta', and has no values"),
        (SimpleNamespace(image=torch.rand(3, 32, 32)), r"is not an image\. It has one: give its \.image"),
        ([], "No images"),
        ([[], []], "No images"),
        (None, "NoneType is not an image"),
        ({"image": 1}, "dict is not an image"),
        ([torch.rand(3, 32, 32), 7], "int is not an image"),
        (np.zeros((8, 8, 3)), r"uint8 \[height, width, 3\]"),
        (np.zeros((8, 8), dtype=np.uint8), r"uint8 \[height, width, 3\]"),
        (np.zeros((3, 32, 32), dtype=np.uint8), r"uint8 \[height, width, 3\]"),
        ("gone.png", "There is no image file"),
    ],
)
def test_bad_batches_are_refused(bad: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_batch(bad, SMALL)


@pytest.mark.gpu
def test_batch_keeps_device() -> None:
    on_gpu = torch.rand(3, 32, 32, device="cuda")
    assert as_batch([noise(40, 40), on_gpu], SMALL).device == on_gpu.device


def test_is_hashable_and_frozen() -> None:
    assert hash(SMALL) == hash(Preprocessing([32, 32], list(MEAN), list(STD), crop_pct=0.9))
    with pytest.raises(AttributeError):
        SMALL.crop_pct = 1.0
    assert not isinstance(SMALL, nn.Module)
