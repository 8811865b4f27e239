"""What an image of a data set is, and what a data set is: digests and sources."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caap_lab import ImageSet, InputError, open_images
from caap_lab.data.image_set import Regions, Sample
from caap_lab.models.classes import ClassNames


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_a_digest_covers_pixels_labels_and_masks_and_nothing_else() -> None:
    inside = np.zeros((6, 8), bool)
    inside[2:4, 3:5] = True

    def sample(**changes: object) -> Sample:
        return replace(
            Sample("a", lambda: Image.fromarray(pixels()), 3, lambda: Regions({3: inside}, ~inside), (4,)), **changes
        )

    moved = np.roll(inside, 1, axis=1)
    others = [
        sample(read_image=lambda: Image.fromarray(pixels(1))),
        sample(read_image=lambda: Image.fromarray(pixels().reshape(8, 6, 3))),
        sample(label=2),
        sample(label=None),
        sample(other_labels=(5,)),
        sample(other_labels=()),
        sample(label=4, other_labels=(3,)),
        sample(read_regions=None),
        sample(read_regions=lambda: Regions({3: moved}, ~inside)),
        sample(read_regions=lambda: Regions({None: inside}, ~inside)),
        sample(read_regions=lambda: Regions({3: inside, 5: inside}, ~inside)),
        sample(read_regions=lambda: Regions({3: inside})),
        sample(read_regions=lambda: Regions({3: inside}, ~moved)),
        sample(read_regions=lambda: Regions({3: inside[:, :4], 4: inside[:, 4:]}, ~inside[:, :4])),
    ]
    assert len({one.digest() for one in [sample(), *others]}) == 1 + len(others)
    # Where it lies, what it is called and the order in which masks were found decide no number.
    assert sample(name="b").digest() == sample().digest()
    twice = [Regions({3: inside, 5: moved}), Regions({5: moved, 3: inside})]
    assert len({sample(read_regions=lambda found=found: found).digest() for found in twice}) == 1
    assert sample().digest() == "6f71bd37d5252650c383faca66355bb1"  # in every process and on every machine


def test_a_digest_follows_the_file_and_the_names_of_the_classes(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels())
    images = open_images(f"folder:{tmp_path}")
    before = images.digest_of("a.png")
    assert before == images[0].digest() == images.digest_of("a.png")
    save(tmp_path / "a.png", pixels(1))
    assert images.digest_of("a.png") != before

    sample = Sample("a", lambda: Image.fromarray(pixels()), 0)
    named = [ImageSet("own", "own:", (sample,), ClassNames(names)).digest_of("a") for names in (("cat",), ("dog",))]
    assert len({*named, sample.digest()}) == 3


def held(images: ImageSet) -> list[tuple[str, int | None, str]]:
    return [(sample.name, sample.label, images.digest_of(sample.name)) for sample in images]


def test_a_source_opens_the_same_set_again_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("here", "there"):
        save(tmp_path / place / "photos" / "a.png", pixels(len(place)))
    labels = tmp_path / "here" / "elsewhere?" / "labels?labels=.json"
    labels.parent.mkdir()
    labels.write_text(json.dumps({"a.png": 7}))
    monkeypatch.chdir(tmp_path / "here")
    here = open_images("folder:photos")
    labelled = open_images("folder:photos", labels="elsewhere?/labels?labels=.json")
    (tmp_path / "link").symlink_to("here/photos")
    assert open_images(f"folder:{tmp_path}/link").source == here.source == f"folder:{tmp_path}/here/photos"
    assert labelled.source == f"{here.source}?labels={labels}"

    monkeypatch.chdir(tmp_path / "there")
    there = open_images("folder:photos")
    assert there.source != here.source
    assert held(there) != held(here), "a set reads its own files wherever the program goes"
    assert held(open_images(here.source)) == held(here) != held(labelled)
    assert held(open_images(labelled.source)) == held(labelled)
    assert open_images(labelled.source).source == labelled.source


def test_a_source_with_photos_from_elsewhere(tmp_path: Path) -> None:
    name = "n01440764/ILSVRC2012_val_00000293"
    ids = np.zeros((6, 8, 3), np.uint8)
    ids[1:3, 1:3, 0] = 1
    save(tmp_path / "ImageNetS50" / "validation-segmentation" / f"{name}.png", ids)
    (tmp_path / "ImageNetS50" / "ImageNetS_categories_im50.txt").write_text("n01440764\n")
    save(tmp_path / "val" / f"{name}.JPEG", pixels())
    images = open_images(f"imagenet-s:{tmp_path / 'ImageNetS50'}", images=tmp_path / "val")
    assert held(open_images(images.source)) == held(images)
    assert images.source == f"imagenet-s:{tmp_path / 'ImageNetS50'}?images={tmp_path / 'val'}"


def test_a_source_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", pixels())
    (tmp_path / "labels.json").write_text(json.dumps({"a.png": 7}))
    text = f"folder:{tmp_path}/photos?labels={tmp_path}/labels.json"
    with pytest.raises(InputError, match="already contains labels"):
        open_images(text, labels=tmp_path / "labels.json")
    with pytest.raises(InputError, match="There is no folder"):
        open_images(text.replace("photos", "other"))
    with pytest.raises(InputError, match=r"no\.json does not exist"):
        open_images(f"folder:{tmp_path}/photos?labels={tmp_path}/no.json")
    save(tmp_path / f"photos?labels={tmp_path}" / "labels.json" / "b.png", pixels())
    with pytest.raises(InputError, match="2 readings exist"):
        open_images(text)
