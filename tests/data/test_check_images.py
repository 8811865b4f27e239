"""Every image opened before a run."""

import warnings

import numpy as np
import pytest

import caap_lab as cl
from caap_lab import InputError, open_images
from caap_lab.bench.trial import seen_masks
from caap_lab.data.check_images import image_problems
from caap_lab.data.image_set import Regions
from helpers import published_layouts as published
from helpers.published_layouts import S_LABELS, WNIDS, objects, s_mask, write_array, write_text


def test_copies_as_published_have_no_problems(tmp_path):
    filters = list(warnings.filters)
    for source in published.all_five(tmp_path).values():
        assert image_problems(open_images(source), progress=False) == {}
    assert image_problems(open_images("demo:two")[:3]) == {}
    assert list(warnings.filters) == filters


def test_metrics_refuse_a_mask_without_objects():
    with pytest.raises(InputError, match="The mask marks no object"):
        seen_masks(cl.load_model("demo"), Regions({}), None)


def test_damaged_photos_and_masks_are_named(tmp_path):
    imagenet = published.class_folders(tmp_path / "imagenet")
    images = open_images(published.imagenet_s_zipped(tmp_path / "s", imagenet))
    folder = tmp_path / "s" / "ImageNetS50" / "validation-segmentation"
    masks = {name: folder / WNIDS[index] / f"{name}.png" for name, index in S_LABELS.items()}
    first, second, third, fourth = S_LABELS
    photo = tmp_path / "imagenet" / "val" / WNIDS[S_LABELS[first]] / f"{first}.JPEG"
    photo.write_bytes(photo.read_bytes()[:-200])
    write_array(masks[second], s_mask(np.where(objects(2)[0], 1000, 0)))
    write_array(masks[third], s_mask(np.ones((4, 4), int)))
    write_text(masks[fourth], "no image")
    found = image_problems(images, progress=False)
    said = ["truncated", "marks no object", "4 x 4 pixels but its photo 96 x 80", "not an image"]
    assert list(found) == [first, second, third, fourth]
    for (name, text), expected in zip(found.items(), said, strict=True):
        assert name in text and expected in text
