"""Photos come out as transformers' own image processors make them, and what cannot be done is said."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from caap_lab.errors import InputError
from caap_lab.models.hugging_face.preprocessing import from_settings, read_preprocessing

pytestmark = pytest.mark.xdist_group("transformers")

BIT = {
    "image_processor_type": "BitImageProcessor",
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "size": {"shortest_edge": 256},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
}
FILES: dict[str, dict[str, Any]] = {
    "vit, of 2021": {
        **{"feature_extractor_type": "ViTFeatureExtractor", "do_normalize": True, "do_resize": True, "size": 64},
        **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2},
    },
    "deit, of 2021": {
        **{"feature_extractor_type": "DeiTFeatureExtractor", "do_normalize": True, "do_resize": True, "size": 256},
        **{"do_center_crop": True, "crop_size": 224, "image_mean": [0.5] * 3, "image_std": [0.2] * 3, "resample": 3},
    },
    "clip, of 2021": {
        **{"feature_extractor_type": "CLIPFeatureExtractor", "do_normalize": True, "do_resize": True, "size": 224},
        **{"do_center_crop": True, "crop_size": 224, "image_mean": [0.48, 0.45, 0.40], "image_std": [0.27, 0.26, 0.27]},
        "resample": 3,
    },
    "dinov2": BIT,
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 96, "width": 64}, "resample": 3},
    "dinov3, saved as fast": {
        **{"image_processor_type": "DINOv3ViTImageProcessorFast", "do_center_crop": None, "crop_size": None},
        **{"size": {"height": 64, "width": 64}, "resample": 2, "data_format": "channels_first", "device": None},
    },
    "scaled to -1 to 1": {
        **{"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64}, "resample": 2},
        **{"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
    },
    "not normalised": {
        **{"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64}, "resample": 1},
        "do_normalize": False,
    },
}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Smooth, as photos are, with an odd number of pixels to crop at both sides."""
    pixels = np.random.default_rng(0).integers(0, 256, (301, 417, 3), dtype=np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4))


@pytest.mark.parametrize("kind", FILES)
def test_photos_come_out_as_from_transformers(tmp_path: Path, photo: Image.Image, kind: str) -> None:
    from transformers import AutoImageProcessor

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(FILES[kind]))
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    theirs = AutoImageProcessor.from_pretrained(str(tmp_path))(photo, return_tensors="pt")["pixel_values"][0]
    preprocessing = read_preprocessing(tmp_path)
    assert preprocessing is not None
    ours = preprocessing(photo)
    assert ours.shape == theirs.shape
    # Pillow and torchvision round what they resize in other ways: by a level or two of 255
    assert (ours - theirs).abs().max() <= 2.5 / 255 / min(preprocessing.std)
    assert (ours - theirs).abs().mean() <= 0.6 / 255 / min(preprocessing.std)


def test_crops_come_back_to_the_size_that_is_resized_to() -> None:
    for edge, crop in [(248, 224), (256, 224), (235, 224), (439, 384), (518, 518), (366, 320)]:
        found = from_settings(
            {**BIT, "do_resize": True, "size": {"shortest_edge": edge}, "crop_size": {"height": crop, "width": crop}},
            "file",
        )
        assert math.floor(crop / found.crop_pct) == edge and found.image_size == (crop, crop)


def test_a_processor_file_of_a_model_with_text(tmp_path: Path) -> None:
    settings = {**FILES["siglip"], "image_mean": [0.1, 0.1, 0.1]}
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": settings, "processor_class": "SiglipProcessor"})
    )
    found = read_preprocessing(tmp_path)
    assert found is not None and found.mean == (0.1, 0.1, 0.1) and found.image_size == (96, 64)
    assert read_preprocessing(tmp_path / "nothing") is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"do_pad": True}, "do_pad is on"),
    ({"do_flip_channel_order": True}, "do_flip_channel_order is on"),
    ({"rescale_offset": True}, "rescale_offset is on"),
    ({"do_resize": False}, "do_resize is off"),
    ({"do_center_crop": False}, r"resized to \{'shortest_edge': 256\}, not cropped"),
    ({"size": {"shortest_edge": 256, "longest_edge": 512}}, "timm's transform cannot do"),
    ({"crop_size": {"height": 224, "width": 192}}, "cropped to 224 x 192"),
    ({"size": {"shortest_edge": 200}}, "of 200 x 200 are cropped unevenly to 224 x 224"),
    ({"image_processor_type": "ConvNextImageProcessor"}, "is ConvNextImageProcessor, whose steps are not known"),
    ({"resample": 9}, "resample 9 is not one"),
    ({"image_mean": [127, 127, 127]}, "divide by 255"),
    ({"image_mean": None}, "mean=.* is not three numbers"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_done_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_settings({**BIT, "do_resize": True, **change}, "preprocessor_config.json")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    for content in ("{", '{"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "mine.Mine"}}'):
        path.write_text(content)
        (tmp_path / "mine.py").write_text("raise SystemExit('code of the checkpoint was run')")
        with pytest.raises(InputError, match=r"image processor in .* cannot be read: .* pass it to cl.wrap"):
            read_preprocessing(tmp_path)
