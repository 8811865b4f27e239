"""The user's own photos: a folder of them, a folder per class, and masks beside them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

import caap_lab as cl
from caap_lab import InputError, Preprocessing, open_images
from caap_lab.models.classes import ClassNames
from helpers.published_layouts import labels_of
from helpers.published_layouts import write_array as save
from helpers.published_layouts import write_noise as photo
from helpers.published_layouts import write_text as write

SIZE = (12, 8)  # width, height


def test_folder_flat_with_and_without_labels(tmp_path):
    for name in ("b.png", "a.jpg", "c.webp"):
        photo(tmp_path / name)
    write(tmp_path / "notes.txt", "")
    write(tmp_path / "._a.jpg", "left behind by macOS")
    images = open_images(f"folder:{tmp_path}")
    assert labels_of(images) == {"a.jpg": None, "b.png": None, "c.webp": None}
    assert images.class_names is None and not images.has_labels and not images.has_masks
    with pytest.raises(InputError, match=r"a.jpg has no mask"):
        _ = images[0].regions.masks
    write(tmp_path / "labels.json", json.dumps({"a.jpg": 281, "b": {"accept_ids": [7, 8], "note": "two are right"}}))
    images = open_images(f"folder:{tmp_path}")
    assert labels_of(images) == {"a.jpg": 281, "b.png": 7, "c.webp": None}
    assert images[1].other_labels == (8,)
    assert images.class_names == ClassNames.imagenet1k()
    other = write(tmp_path / "other" / "mine.json", json.dumps({"a": 1, "b": 0, "c": 1}))
    write(tmp_path / "other" / "classes.txt", "cat\ndog\n")
    images = open_images(f"folder:{tmp_path}", labels=other)
    assert labels_of(images) == {"a.jpg": 1, "b.png": 0, "c.webp": 1}
    assert images.class_names is not None and images.class_names.names == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1000}', "has class 1000, but ImageNet-1k.*classes.txt.*0 to 999"),
        ('{"a": -1}', "not class indices"),
        ('{"a": "cat"}', "not class indices"),
        ('{"a": true}', "not class indices"),
        ('{"a": {"accept_ids": 3.5}}', "not class indices"),
        ('{"a": {"objects": ["a.png"]}}', '"objects" should be a list like'),
        ("[1, 2]", "photos with their class indices"),
        ('{"z": 1}', "has none of the photos in .*, such as a.jpg"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_folder_refuses_labels_that_do_not_fit(tmp_path, content, message):
    photo(tmp_path / "a.jpg")
    write(tmp_path / "labels.json", content)
    with pytest.raises(InputError, match=message):
        open_images(f"folder:{tmp_path}")


def test_folder_of_class_folders(tmp_path):
    for name in ("dog/1.jpg", "cat/1.jpg", "cat/2.jpg"):
        photo(tmp_path / "own" / name)
        photo(tmp_path / "wordnet" / name.replace("dog", "n01440764").replace("cat", "n15075141"))
    images = open_images(f"folder:{tmp_path / 'own'}")
    assert labels_of(images) == {"cat/1.jpg": 0, "cat/2.jpg": 0, "dog/1.jpg": 1}
    assert images.class_names is not None and images.class_names.names == ("cat", "dog")
    images = open_images(f"folder:{tmp_path / 'wordnet'}")
    assert labels_of(images) == {"n01440764/1.jpg": 0, "n15075141/1.jpg": 999, "n15075141/2.jpg": 999}
    assert images.class_names == ClassNames.imagenet1k()
    with pytest.raises(InputError, match=r"which are labels already"):
        open_images(f"folder:{tmp_path / 'own'}", labels=write(tmp_path / "labels.json", "{}"))
    photo(tmp_path / "own" / "stray.jpg")
    with pytest.raises(InputError, match=r"photos in it and also in the folder cat"):
        open_images(f"folder:{tmp_path / 'own'}")


INSIDE = np.zeros((SIZE[1], SIZE[0]), bool)
INSIDE[1:4, 2:9] = True


@pytest.mark.parametrize("form", ["L", "1", "RGB", "P", "P_other_order", "grey_edge"])
def test_masks_in_every_colour_mode(tmp_path, form):
    photo(tmp_path / "images" / "a.jpg")
    grey = np.where(INSIDE, np.uint8(255), np.uint8(0))
    if form == "grey_edge":  # several grey values are no classes
        grey[1, 2] = 3
        grey[3, 3] = 128
    image = Image.fromarray(grey)
    if form.startswith("P"):
        black_first = form == "P"
        image = Image.fromarray((INSIDE if black_first else ~INSIDE).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 255, 255, 255] if black_first else [255, 255, 255, 0, 0, 0])
    elif form in ("1", "RGB"):
        image = image.convert(form)
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / "a.png")
    images = open_images(f"masks:{tmp_path}")
    regions = images[0].regions
    assert images.has_masks and not images.has_labels
    assert list(regions.masks) == [None] and regions.ignored is None
    expected = INSIDE.copy()
    expected[1, 2] = form != "grey_edge"  # 3 of 255 is less than half covered
    assert (regions.masks[None] == expected).all()


def test_masks_with_labels_and_several_objects(tmp_path):
    for name in ("one.jpg", "two.jpg", "three.jpg"):
        photo(tmp_path / "images" / name)
    left, right = np.zeros_like(INSIDE), np.zeros_like(INSIDE)
    left[:, :4], right[:, 8:] = True, True
    save(tmp_path / "masks" / "one.png", np.where(INSIDE, np.uint8(255), np.uint8(0)))
    void = np.where(left, np.uint8(2), np.where(right, np.uint8(255), np.uint8(0)))  # as PASCAL VOC has it
    save(tmp_path / "masks" / "three.png", void)
    for name, mask in (("two__cat", left), ("two__dog", right), ("two__puppy", INSIDE)):
        save(tmp_path / "masks" / f"{name}.png", mask.astype(np.uint8))
    union = open_images(f"masks:{tmp_path}").only(["two.jpg"])[0].regions.masks
    assert list(union) == [None] and (union[None] == (left | right | INSIDE)).all()
    objects = [
        {"mask": "two__cat.png", "label": 281},
        {"mask": "two__dog.png", "accept_ids": [207, 208]},
        {"mask": "two__puppy.png", "label": 207},
    ]
    write(tmp_path / "labels.json", json.dumps({"one": 5, "two.jpg": {"objects": objects}}))
    images = open_images(f"masks:{tmp_path}")
    assert labels_of(images) == {"one.jpg": 5, "three.jpg": None, "two.jpg": 281}
    one, three, two = (sample.regions for sample in images)
    assert list(one.masks) == [5] and (one.masks[5] == INSIDE).all()
    assert (three.masks[None] == left).all()
    assert three.ignored is not None and (three.ignored == right).all()
    assert list(two.masks) == [281, 207, 208]
    assert (two.masks[281] == left).all() and (two.masks[208] == right).all()
    assert (two.masks[207] == (right | INSIDE)).all()
    write(tmp_path / "labels.json", json.dumps({"one": {"objects": [{"mask": "none.png", "label": 1}]}}))
    with pytest.raises(InputError, match=r"lists the mask none.png, which is not in"):
        open_images(f"masks:{tmp_path}")


def test_masks_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"images/\*.jpg and masks/\*.png. Found: nothing"):
        open_images(f"masks:{tmp_path}")
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / "images" / name)
    save(tmp_path / "masks" / "a.png", np.ones((SIZE[1], SIZE[0]), np.uint8))
    with pytest.raises(InputError, match=r"no mask b.png for b.jpg \(1 of 2"):
        open_images(f"masks:{tmp_path}")
    save(tmp_path / "masks" / "b.png", np.ones((SIZE[0], SIZE[1]), np.uint8))
    with pytest.raises(InputError, match=r"b.png has 8 x 12 pixels but its photo 12 x 8"):
        _ = open_images(f"masks:{tmp_path}")[1].regions.masks
    write(tmp_path / "masks" / "b.png", "no image")
    with pytest.raises(InputError, match=r"b.png is not an image"):
        _ = open_images(f"masks:{tmp_path}")[1].regions.masks


# An upright mask is known by its size, so only where the rotation swaps width and height.
@pytest.mark.parametrize(
    ("form", "orientation"),
    [
        *((form, turn) for form in ("stored", "own_exif") for turn in range(1, 9)),
        *(("upright", t) for t in (1, 5, 6, 7, 8)),
    ],
)
def test_masks_turn_with_their_photo(tmp_path, form, orientation):
    """The mask is the photo's own bright part, so the two agree whichever way up they are."""
    stored = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    stored[:3, :5] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(stored).save(tmp_path / "images" / "a.png", exif=exif)
    if form == "upright":
        cl.load_image(tmp_path / "images" / "a.png").convert("L").save(tmp_path / "masks" / "a.png")
    else:
        Image.fromarray(stored).save(tmp_path / "masks" / "a.png", **({"exif": exif} if form == "own_exif" else {}))
    sample = open_images(f"masks:{tmp_path}")[0]
    assert (sample.regions.masks[None] == (np.asarray(sample.image)[..., 0] > 0)).all()


def test_masks_survive_the_models_preprocessing(tmp_path):
    bright = np.zeros((40, 60), np.uint8)
    bright[8:30, 20:44] = 255
    save(tmp_path / "images" / "a.png", bright)
    save(tmp_path / "masks" / "a.png", bright)
    sample = open_images(f"masks:{tmp_path}")[0]
    preprocessing = Preprocessing(image_size=(20, 20), mean=(0, 0, 0), std=(1, 1, 1), interpolation="nearest")
    mask = preprocessing.mask(sample.regions.masks[None])
    assert mask.shape == (20, 20)
    assert (mask == (preprocessing(sample.image)[0] > 0.5)).all()


def test_a_folder_without_its_kind_is_named_with_it(tmp_path: Path) -> None:
    photo = tmp_path / "cat.jpg"
    photo.touch()
    for given in (str(tmp_path), tmp_path, str(photo)):
        with pytest.raises(cl.InputError, match=re.escape(f"as in {f'folder:{tmp_path}'!r}")):
            cl.open_images(given)  # type: ignore[arg-type]
