"""ImageNet-S: masks with photos beside them or elsewhere, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from caap_lab import InputError, open_images
from caap_lab.data.imagenet_s import MERGED
from helpers import published_layouts as published
from helpers.published_layouts import S50_CLASSES, S_LABELS, WNIDS, labels_of, s_mask, write_array, write_noise

SIZE = (12, 8)  # width, height
IDS = np.zeros((SIZE[1], SIZE[0]), int)
IDS[:2], IDS[2:4, :6], IDS[5] = 1, 50, 1000
NAMES = list(S_LABELS)


def imagenet_s(root: Path, wnids: list[str], ids: np.ndarray) -> None:
    """A photo and a mask per class, numbered from 1."""
    for number, name in enumerate(wnids, start=1):
        write_array(root / "validation-segmentation" / name / f"ILSVRC2012_val_{number:08d}.png", s_mask(ids))
        write_noise(root / "validation" / name / f"ILSVRC2012_val_{number:08d}.JPEG", number)


def expect_published(source: str) -> None:
    """Photos, labels and masks of the copy as published."""
    images = open_images(source)
    assert labels_of(images) == S_LABELS and images.has_masks
    for number, sample in enumerate(images, start=1):
        own, other = published.objects(number)
        label = S_LABELS[sample.name]
        following = S50_CLASSES[(S50_CLASSES.index(label) + 1) % len(S50_CLASSES)]
        own[:3] = other[:3] = False
        assert set(sample.regions.masks) == {label, following}
        assert (sample.regions.masks[label] == own).all() and (sample.regions.masks[following] == other).all()
        assert sample.image.size == published.SIZE
    assert labels_of(open_images(images.source)) == S_LABELS


def test_complete_folders_say_the_class_ids(tmp_path):
    # Fifty classes in sorted order: class id 1 is the first, 50 the last.
    imagenet_s(tmp_path / "ImageNetS50", list(WNIDS[100:150]), IDS)
    for path in (tmp_path, tmp_path / "ImageNetS50"):
        images = open_images(f"imagenet-s:{path}")
        assert labels_of(images) == {f"ILSVRC2012_val_{i + 1:08d}": 100 + i for i in range(50)}
        regions = images[7].regions
        assert set(regions.masks) == {100, 149}
        assert (regions.masks[100] == (IDS == 1)).all() and (regions.masks[149] == (IDS == 50)).all()
        assert (regions.ignored == (IDS == 1000)).all()


def test_a_part_needs_the_categories_and_sorts_them(tmp_path):
    # As first published the list is unsorted; class ids are those of the sorted list. 700 needs the G channel.
    root = tmp_path / "ImageNetS919"
    ids = np.where(IDS == 50, 700, IDS)
    imagenet_s(root, ["n01440764", "n02808440"], ids)
    with pytest.raises(InputError, match=r"has 2 of 919 class folders.*ImageNetS_categories_im919.txt"):
        open_images(f"imagenet-s:{root}")
    left_out = set(MERGED.values()) | {name for name in WNIDS if name not in {"n01440764", *MERGED}}
    categories = sorted(set(WNIDS) - set(sorted(left_out - set(MERGED.values()))[:76]) - set(MERGED.values()))
    assert len(categories) == 919
    published.write_text(root / "ImageNetS_categories_im919.txt", "\n".join(reversed(categories)))
    regions = open_images(f"imagenet-s:{tmp_path}")[0].regions
    assert (regions.masks[WNIDS.index(categories[0])] == (ids == 1)).all()
    assert (regions.masks[WNIDS.index(categories[699])] == (ids == 700)).all()


def test_merged_classes_share_their_mask(tmp_path):
    # One image of "bathtub" is labelled so; "tub" has the same pixels, whichever of the two a model answers.
    wnids = sorted([*WNIDS[:49], "n02808440"])
    ids = np.full((SIZE[1], SIZE[0]), wnids.index("n02808440") + 1)
    imagenet_s(tmp_path / "ImageNetS50", wnids, ids)
    sample = open_images(f"imagenet-s:{tmp_path}").only([f"ILSVRC2012_val_{len(wnids):08d}"])[0]
    bathtub, tub = WNIDS.index("n02808440"), WNIDS.index("n04493381")
    assert sample.label == bathtub
    assert set(sample.regions.masks) == {bathtub, tub}
    masks = sample.regions.masks
    assert masks[tub] is masks[bathtub]


@pytest.mark.parametrize("layout", published.IMAGENET)
def test_photos_from_every_layout_of_imagenet(tmp_path, layout):
    imagenet = published.IMAGENET[layout](tmp_path / "imagenet")
    expect_published(published.imagenet_s_zipped(tmp_path / "s", imagenet))


def test_photos_are_paired_by_name_where_folders_differ(tmp_path):
    expect_published(published.imagenet_s(tmp_path / "s"))
    validation = tmp_path / "s" / "ImageNetS50" / "validation"
    own = validation / WNIDS[S_LABELS[NAMES[3]]] / f"{NAMES[3]}.JPEG"
    (validation / WNIDS[574]).mkdir()
    own.rename(validation / WNIDS[574] / own.name)  # where ImageNet has it
    expect_published(f"imagenet-s:{tmp_path / 's'}")
    published.write_photo(own, 4)
    with pytest.raises(InputError, match=rf"two photos {NAMES[3]}: .*{WNIDS[574]}.* and .*{WNIDS[695]}"):
        open_images(f"imagenet-s:{tmp_path / 's'}")


def test_photos_elsewhere_are_told_in_words(tmp_path, monkeypatch):
    imagenet = published.devkit(tmp_path / "im?ages=net")
    source = published.imagenet_s_zipped(tmp_path / "s?", imagenet)
    expect_published(source)
    folder, _, images = source.removeprefix("imagenet-s:").partition("?images=")
    alone = open_images(f"imagenet-s:{folder}", images=images)
    assert alone.source == source and labels_of(alone) == S_LABELS
    with pytest.raises(InputError, match=r"masks but no photos.*'imagenet-s:.*ImageNetS50\?images=FOLDER'"):
        open_images(f"imagenet-s:{folder}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for place, photos in (("~/s?", "~/im?ages=net"), ("s?", "im?ages=net/val"), ("~/s?/ImageNetS50", images)):
        assert labels_of(open_images(f"imagenet-s:{place}?images={photos}")) == S_LABELS
    for text, message in [
        ("?images=", r"has no path after images="),
        ("?images=nowhere", r"images=nowhere does not exist"),
        ("?image=nowhere", r"image= is not an option of 'imagenet-s', which takes images="),
        ("?labels=nowhere", r"labels= is not an option of 'imagenet-s', which takes images="),
    ]:
        with pytest.raises(InputError, match=message):
            open_images(f"imagenet-s:s?{text}")
    Path("empty").mkdir()
    with pytest.raises(InputError, match=r"empty is not laid out as expected. Looked for: photos ILSVRC2012_val"):
        open_images("imagenet-s:s??images=empty")


def test_missing_and_doubled_files_are_counted_and_named(tmp_path):
    imagenet = published.class_folders(tmp_path / "imagenet")
    source = published.imagenet_s_zipped(tmp_path / "s", imagenet)
    for name in (NAMES[1], NAMES[2]):
        (tmp_path / "imagenet" / "val" / WNIDS[S_LABELS[name]] / f"{name}.JPEG").unlink()
    with pytest.raises(InputError, match=rf"images=.* has no validation photo {NAMES[1]} \(2 of 4"):
        open_images(source)
    published.imagenet_s(tmp_path / "complete")
    root = tmp_path / "complete" / "ImageNetS50"
    photo = root / "validation" / WNIDS[1] / f"{NAMES[0]}.JPEG"
    photo.rename(photo.with_name("other.JPEG"))
    with pytest.raises(InputError, match=rf"validation has no validation photo {NAMES[0]} \(1 of 4.*\?images=FOLDER"):
        open_images(f"imagenet-s:{root}")
    mask = root / "validation-segmentation" / WNIDS[3] / f"{NAMES[0]}.png"
    write_array(mask, s_mask(IDS))
    with pytest.raises(InputError, match=rf"two masks of {NAMES[0]}: .*{WNIDS[1]}.* and .*{WNIDS[3]}"):
        open_images(f"imagenet-s:{root}")
    mask.rename(mask.with_name("mask.png"))
    with pytest.raises(InputError, match=r"mask.png is not named after a validation photo"):
        open_images(f"imagenet-s:{root}")


def test_class_ids_that_do_not_exist_are_refused(tmp_path):
    imagenet_s(tmp_path / "ImageNetS50", list(WNIDS[:50]), np.full((SIZE[1], SIZE[0]), 51))
    with pytest.raises(InputError, match=r"class id 51; there are 50 classes"):
        _ = open_images(f"imagenet-s:{tmp_path}")[0].regions.masks
