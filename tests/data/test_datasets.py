"""Data sets in their published layouts, made small: a few tiny photos under the published names."""

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

import caap_lab as cl
from caap_lab import ImageSet, InputError, Preprocessing, open_images
from caap_lab.data.image_set import read_list
from caap_lab.data.imagenet_s import MERGED
from caap_lab.data.scenes import KINDS
from caap_lab.models.classes import ClassNames

WNIDS = ClassNames.imagenet1k().ids
SIZE = (12, 8)  # width, height
ORIENTATION = 0x0112


def photo(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, quality=100, exif=exif)
    return path


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def labels_of(images: ImageSet) -> dict[str, int | None]:
    return {sample.name: sample.label for sample in images}


# --- ImageNet ---

# Truth of the first validation photos, as published: number -> (WordNet id, class index, ILSVRC2012_ID).
TRUTH = {1: ("n01751748", 65, 490), 2: ("n09193705", 970, 361), 3: ("n02105855", 230, 171)}
EXPECTED = {f"ILSVRC2012_val_{number:08d}": index for number, (_, index, _) in TRUTH.items()}


def val_photos(folder: Path) -> None:
    for number in TRUTH:
        photo(folder / f"ILSVRC2012_val_{number:08d}.JPEG", number)


def devkit(folder: Path) -> None:
    """Ground truth and meta.mat with the devkit's fields; the last synset is an inner node, as in the devkit."""
    write(folder / "ILSVRC2012_validation_ground_truth.txt", "".join(f"{t[2]}\n" for t in TRUTH.values()))
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    kinds += [("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O")]
    synsets = np.zeros((len(TRUTH) + 1, 1), kinds)
    for row, (number, name) in enumerate([*((t[2], t[0]) for t in TRUTH.values()), (1001, "n00001740")]):
        children = np.array([], np.uint16) if number <= 1000 else np.array([1, 2], np.uint16)
        synsets[row, 0] = (np.uint16(number), name, "words", "gloss", len(children), children, 0, np.uint16(1300))
    savemat(folder / "meta.mat", {"synsets": synsets})


def test_the_truth_used_here_is_the_order_of_imagenet1k():
    assert all(WNIDS[index] == name for name, index, _ in TRUTH.values())


@pytest.mark.parametrize("form", ["devkit", "caffe", "caffe_wnid", "kaggle", "synsets", "json", "json_stem"])
def test_imagenet_flat_with_every_form_of_labels(tmp_path, form):
    val_photos(tmp_path / "val")
    names = [f"ILSVRC2012_val_{number:08d}" for number in TRUTH]
    if form == "devkit":
        devkit(tmp_path / "ILSVRC2012_devkit_t12" / "data")
    elif form == "caffe":
        lines = [f"{name}.JPEG {t[1]}\n" for name, t in zip(names, TRUTH.values(), strict=True)]
        write(tmp_path / "val.txt", "".join(lines))
    elif form == "caffe_wnid":
        lines = [f"val/{t[0]}/{name}.JPEG {t[0]}\n" for name, t in zip(names, TRUTH.values(), strict=True)]
        write(tmp_path / "val" / "val.txt", "".join(lines))
    elif form == "kaggle":
        rows = [
            f"{name},{t[0]} 111 108 422 332 {t[0]} 0 0 1 1 \n" for name, t in zip(names, TRUTH.values(), strict=True)
        ]
        write(tmp_path / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "".join(reversed(rows)))
    elif form == "synsets":
        lines = [f"{t[0]}\n" for t in TRUTH.values()]
        write(tmp_path / "imagenet_2012_validation_synset_labels.txt", "".join(lines))
    else:
        end = ".JPEG" if form == "json" else ""
        content = {f"{name}{end}": {"label": t[1]} for name, t in zip(names, TRUTH.values(), strict=True)}
        write(tmp_path / "val" / "labels.json", json.dumps(content))
    for path in (tmp_path, tmp_path / "val"):
        images = open_images(f"imagenet:{path}")
        assert labels_of(images) == EXPECTED
        assert images.class_names == ClassNames.imagenet1k()
        assert not images.has_masks


def test_imagenet_class_folders_and_kaggle_have_the_names_of_the_flat_folder(tmp_path):
    for number, (name, _, _) in TRUTH.items():
        photo(tmp_path / "a" / "val" / name / f"ILSVRC2012_val_{number:08d}.JPEG", number)
        photo(tmp_path / "b" / "ILSVRC/Data/CLS-LOC/val" / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    rows = [f"ILSVRC2012_val_{number:08d},{t[0]} 1 2 3 4\n" for number, t in TRUTH.items()]
    write(tmp_path / "b" / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "".join(rows))
    for path in ("a", "a/val", "b"):
        images = open_images(f"imagenet:{tmp_path / path}")
        assert labels_of(images) == EXPECTED
        assert list(EXPECTED) == [sample.name for sample in images]
        assert images[1].image.size == SIZE


def test_imagenet_labels_from_a_file_elsewhere(tmp_path):
    val_photos(tmp_path / "val")
    devkit(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"not sorted into class folders.*LOC_val_solution.csv.*labels="):
        open_images(f"imagenet:{tmp_path}")
    file = tmp_path / "elsewhere" / "ILSVRC2012_validation_ground_truth.txt"
    assert labels_of(open_images(f"imagenet:{tmp_path}", labels=file)) == EXPECTED
    (tmp_path / "elsewhere" / "meta.mat").unlink()
    with pytest.raises(InputError, match=r"ILSVRC2012_ID.*meta.mat.*ILSVRC2012_devkit_t12"):
        open_images(f"imagenet:{tmp_path}", labels=file)
    write(tmp_path / "elsewhere" / "meta.mat", "no MATLAB file")
    with pytest.raises(InputError, match=r"does not explain"):
        open_images(f"imagenet:{tmp_path}", labels=file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ILSVRC2012_val_00000001.JPEG 65\n", r"no label for ILSVRC2012_val_00000002 \(2 of 3"),
        ("ILSVRC2012_val_00000001.JPEG 1000\n", "'1000' where a WordNet id .* or a class index 0 to 999"),
        ("cat.jpg 65\n", "'cat.jpg 65', not a validation photo"),
        ("", "lists no labels"),
    ],
)
def test_imagenet_refuses_labels_that_do_not_fit(tmp_path, text, message):
    val_photos(tmp_path)
    write(tmp_path / "val.txt", text)
    with pytest.raises(InputError, match=message):
        open_images(f"imagenet:{tmp_path}")


# --- ImageNet-S ---


def s_mask(ids: np.ndarray) -> np.ndarray:
    """RGB as published: class id = R + 256 G."""
    return np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)


def imagenet_s(root: Path, wnids: list[str], ids: np.ndarray, photos: bool = True) -> None:
    for number, name in enumerate(wnids, start=1):
        save(root / "validation-segmentation" / name / f"ILSVRC2012_val_{number:08d}.png", s_mask(ids))
        if photos:
            photo(root / "validation" / name / f"ILSVRC2012_val_{number:08d}.JPEG", number)


IDS = np.zeros((SIZE[1], SIZE[0]), int)
IDS[:2], IDS[2:4, :6], IDS[5] = 1, 50, 1000


def test_imagenet_s_complete_folders_say_the_class_ids(tmp_path):
    # Fifty classes in sorted order: class id 1 is the first, 50 the last.
    wnids = list(WNIDS[100:150])
    imagenet_s(tmp_path / "ImageNetS50", wnids, IDS)
    for path in (tmp_path, tmp_path / "ImageNetS50"):
        images = open_images(f"imagenet-s:{path}")
        assert labels_of(images) == {f"ILSVRC2012_val_{i + 1:08d}": 100 + i for i in range(50)}
        regions = images[7].regions
        assert set(regions.masks) == {100, 149}
        assert (regions.masks[100] == (IDS == 1)).all() and (regions.masks[149] == (IDS == 50)).all()
        assert (regions.ignored == (IDS == 1000)).all()
    assert images.has_masks


def test_imagenet_s_part_needs_the_categories_and_sorts_them(tmp_path):
    # As first published the list is unsorted; class ids are those of the sorted list. 700 needs the G channel.
    root = tmp_path / "ImageNetS919"
    ids = np.where(IDS == 50, 700, IDS)
    imagenet_s(root, ["n01440764", "n02808440"], ids)
    with pytest.raises(InputError, match=r"has 2 of 919 class folders.*ImageNetS_categories_im919.txt"):
        open_images(f"imagenet-s:{root}")
    left_out = set(MERGED.values()) | {name for name in WNIDS if name not in {"n01440764", *MERGED}}
    categories = sorted(set(WNIDS) - set(sorted(left_out - set(MERGED.values()))[:76]) - set(MERGED.values()))
    assert len(categories) == 919
    write(root / "ImageNetS_categories_im919.txt", "\n".join(reversed(categories)))
    images = open_images(f"imagenet-s:{tmp_path}")
    regions = images[0].regions
    assert (regions.masks[WNIDS.index(categories[0])] == (ids == 1)).all()
    assert (regions.masks[WNIDS.index(categories[699])] == (ids == 700)).all()


def test_imagenet_s_merged_classes_share_their_mask(tmp_path):
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


def test_imagenet_s_photos_from_the_users_imagenet(tmp_path):
    wnids = list(WNIDS[:50])
    imagenet_s(tmp_path / "ImageNetS50", wnids, IDS, photos=False)
    with pytest.raises(InputError, match=r"no photos.*images="):
        open_images(f"imagenet-s:{tmp_path}")
    for number in range(1, 51):
        photo(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    images = open_images(f"imagenet-s:{tmp_path}", images=tmp_path)
    assert images[3].label == 3
    assert images[3].image.size == SIZE
    assert (images[3].regions.masks[0] == (IDS == 1)).all()
    (tmp_path / "val" / "ILSVRC2012_val_00000007.JPEG").unlink()
    with pytest.raises(InputError, match=r"no validation photo ILSVRC2012_val_00000007 \(1 of 50"):
        open_images(f"imagenet-s:{tmp_path}", images=tmp_path)


def test_imagenet_s_refuses_class_ids_that_do_not_exist(tmp_path):
    imagenet_s(tmp_path / "ImageNetS50", list(WNIDS[:50]), np.full((SIZE[1], SIZE[0]), 51))
    with pytest.raises(InputError, match=r"class id 51; there are 50 classes"):
        _ = open_images(f"imagenet-s:{tmp_path}")[0].regions.masks


# --- ImageNet-Hard ---


def parquet(
    path: Path, labels: list[list[int]], first_seed: int = 0, column: str = "label", rows: int = 2
) -> list[bytes]:
    """A file as the hub has it, in row groups of a few rows; the photos' bytes come back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = []
    for seed in range(first_seed, first_seed + len(labels)):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        data.append(buffer.getvalue())
    table = pa.table(
        {
            "image": [{"bytes": image, "path": None} for image in data],
            column: labels,
            "origin": ["imagenet_sketch"] * len(labels),
            "english_label": [["name"]] * len(labels),
        }
    )
    pq.write_table(table, path, row_group_size=rows)
    return data


def test_imagenet_hard_reads_the_row_that_was_asked(tmp_path):
    first = parquet(tmp_path / "data" / "validation-00000-of-00002.parquet", [[3], [4, 9, 9], [5]])
    second = parquet(tmp_path / "data" / "validation-00001-of-00002.parquet", [[6]] * 11, 3, rows=10)
    images = open_images(f"imagenet-hard:{tmp_path}")
    assert [sample.label for sample in images] == [3, 4, 5, *[6] * 11]
    assert images[1].other_labels == (9,)
    assert images[4].name == "imagenet-hard-00004"
    for index, data in reversed(list(enumerate(first + second))):
        expected = np.asarray(Image.open(io.BytesIO(data)))
        assert (np.asarray(images[index].image) == expected).all()
    assert len(open_images(f"imagenet-hard:{tmp_path / 'data'}")) == 14


def test_imagenet_hard_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"validation-00000-of-\*.parquet.*Found: nothing.*taesiri"):
        open_images(f"imagenet-hard:{tmp_path}")
    file = tmp_path / "validation-00000-of-00001.parquet"
    parquet(file, [[1]], column="labels")
    with pytest.raises(InputError, match=r"has the columns image, labels, origin"):
        open_images(f"imagenet-hard:{tmp_path}")
    parquet(file, [[1000]])
    with pytest.raises(InputError, match=r"label \[1000\]"):
        open_images(f"imagenet-hard:{tmp_path}")
    file.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"cannot be read as parquet"):
        open_images(f"imagenet-hard:{tmp_path}")
    file.rename(tmp_path / "validation-00000-of-00003.parquet")
    with pytest.raises(InputError, match=r"has 1 of 3 parquet files"):
        open_images(f"imagenet-hard:{tmp_path}")


# --- Oxford-IIIT Pet and Food-101 ---

TRIMAP = np.full((SIZE[1], SIZE[0]), 2, np.uint8)
TRIMAP[2:6, 2:9], TRIMAP[3:5, 3:8] = 3, 1


def pets(root: Path) -> None:
    for stem in ("Abyssinian_1", "american_bulldog_100", "american_bulldog_101"):
        photo(root / "images" / f"{stem}.jpg")
        save(root / "annotations" / "trimaps" / f"{stem}.png", TRIMAP)
        write(root / "annotations" / "trimaps" / f"._{stem}.png", "left behind by macOS")
    header = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"
    rows = ["Abyssinian_1 1 1 1\n", "american_bulldog_100 2 2 1\n", "american_bulldog_101 2 2 1\n", "Bengal_5 6 1 2\n"]
    write(root / "annotations" / "list.txt", header + "".join(rows))
    write(root / "annotations" / "test.txt", "".join(rows[1::-1]))
    write(root / "annotations" / "trainval.txt", rows[2])


def test_pet_reads_trimaps(tmp_path):
    pets(tmp_path / "oxford-iiit-pet")
    for path in (tmp_path, tmp_path / "oxford-iiit-pet"):
        images = open_images(f"pet:{path}")
        assert labels_of(images) == {"american_bulldog_100": 1, "Abyssinian_1": 0}
    assert images.class_names is not None
    assert images.class_names.names == ("Abyssinian", "american bulldog", "class 2", "class 3", "class 4", "Bengal")
    regions = images[0].regions
    assert list(regions.masks) == [1]
    assert (regions.masks[1] == (TRIMAP == 1)).all()
    assert (regions.ignored == (TRIMAP == 3)).all()
    train = open_images(f"pet:{path}", labels=path / "annotations" / "trainval.txt")
    assert labels_of(train) == {"american_bulldog_101": 1}


def test_pet_says_what_is_wrong(tmp_path):
    pets(tmp_path)
    save(tmp_path / "annotations" / "trimaps" / "Abyssinian_1.png", TRIMAP - 1)
    with pytest.raises(InputError, match=r"no trimap"):
        _ = open_images(f"pet:{tmp_path}")[1].regions.masks
    write(tmp_path / "annotations" / "test.txt", "Abyssinian_1\n")
    with pytest.raises(InputError, match=r"the line 'Abyssinian_1'"):
        open_images(f"pet:{tmp_path}")
    (tmp_path / "annotations" / "test.txt").unlink()
    with pytest.raises(InputError, match=r"annotations/test.txt.*Found: annotations/, images/.*robots.ox.ac.uk"):
        open_images(f"pet:{tmp_path}")


def test_food101(tmp_path):
    root = tmp_path / "food-101"
    for name in ("apple_pie/1005649", "baby_back_ribs/1005293", "baby_back_ribs/1009396"):
        photo(root / "images" / f"{name}.jpg")
    write(root / "meta" / "classes.txt", "apple_pie\nbaby_back_ribs\n")
    write(root / "meta" / "labels.txt", "Apple pie\nBaby back ribs\n")
    write(root / "meta" / "test.txt", "baby_back_ribs/1005293\napple_pie/1005649\n")
    write(root / "meta" / "train.txt", "baby_back_ribs/1009396\n")
    for path in (tmp_path, root):
        images = open_images(f"food101:{path}")
        assert labels_of(images) == {"baby_back_ribs/1005293": 1, "apple_pie/1005649": 0}
    assert images.class_names is not None and images.class_names.names == ("Apple pie", "Baby back ribs")
    assert images[0].image.size == SIZE
    train = open_images(f"food101:{root}", labels=root / "meta" / "train.txt")
    assert labels_of(train) == {"baby_back_ribs/1009396": 1}
    write(root / "meta" / "test.txt", "sushi/1\n")
    with pytest.raises(InputError, match=r"'sushi/1', whose class"):
        open_images(f"food101:{root}")
    (root / "meta" / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"meta/classes.txt.*Found: images/, meta/.*food-101"):
        open_images(f"food101:{root}")


# --- folder and masks ---


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
        ('{"a": 1000}', "has class 1000, and ImageNet-1k.*classes.txt.*0 to 999"),
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
    with pytest.raises(InputError, match=r"photos in it and in the folder cat too"):
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
    with pytest.raises(InputError, match=r"b.png has 8 x 12 pixels and its photo 12 x 8"):
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
    exif[ORIENTATION] = orientation
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


# --- demo scenes ---


@pytest.mark.parametrize("kind", KINDS)
def test_demo_scenes_are_those_of_demo_images(kind):
    images = open_images(f"demo:{kind}")
    assert len(images) == 1000 and images.has_labels and images.has_masks
    assert images[12].name == f"{kind}-000012"
    scenes = cl.demo_images(kind, 40, seed=30_000)
    assert [sample.label for sample in images[:40]] == [scene.label for scene in scenes]
    for index in (39, 0, 12):
        sample, scene = images[index], scenes[index]
        assert (np.asarray(sample.image) == np.asarray(scene.image)).all()
        masks = sample.regions.masks
        assert list(masks) == list(scene.masks)
        assert all((masks[label] == scene.masks[label]).all() for label in scene.labels)


def test_demo_kind_that_does_not_exist():
    with pytest.raises(InputError, match=r"no kind of demo scene 'three'; the kinds are: single"):
        open_images("demo:three")


# --- all of them ---


def test_opening_reads_no_image(tmp_path):
    for number in (1, 2, 3):
        write(tmp_path / "val" / TRUTH[number][0] / f"ILSVRC2012_val_{number:08d}.JPEG", "no image")
        write(tmp_path / "own" / "images" / f"{number}.jpg", "no image")
        write(tmp_path / "own" / "masks" / f"{number}.png", "no image")
    images = open_images(f"imagenet:{tmp_path}")
    assert labels_of(images) == EXPECTED
    with pytest.raises(InputError, match=r"ILSVRC2012_val_00000001.JPEG is not an image"):
        images[0].image.load()
    assert len(open_images(f"masks:{tmp_path / 'own'}")) == 3
    file = tmp_path / "hard" / "validation-00000-of-00001.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"image": [{"bytes": b"no image", "path": "a.jpg"}], "label": [[1]]}), file)
    hard = open_images(f"imagenet-hard:{file.parent}")
    with pytest.raises(InputError, match=r"imagenet-hard-00000 in .* cannot be read as an image"):
        hard[0].image.load()


def test_sets_can_be_sent_to_other_processes(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    save(tmp_path / "masks" / "a.png", INSIDE.astype(np.uint8))
    for spec in (f"masks:{tmp_path}", "demo:single"):
        images = open_images(spec)
        copy = pickle.loads(pickle.dumps(images))
        assert (np.asarray(copy[0].image) == np.asarray(images[0].image)).all()
        assert list(copy[0].regions.masks) == list(images[0].regions.masks)


def test_samples_are_seeded_nested_and_recorded(tmp_path):
    images = open_images("demo:single")
    few, more = images.sample(5, seed=3), images.sample(50, seed=3)
    names = [sample.name for sample in more]
    assert [sample.name for sample in few] == names[:5]
    assert len(set(names)) == 50
    assert names != [sample.name for sample in images.sample(50, seed=4)]
    assert few.chosen == "5 of 1000, seed 3" and images.chosen == "all"
    assert few.source == "demo:single"
    again = images.only(read_list(more.save_list(tmp_path / "list.txt")))
    assert [sample.name for sample in again] == names
    assert images[2:4].chosen == "images 2 to 3 of all" and images[:1].chosen == "image 0 of all"
    assert images[:2].chosen == "images 0 to 1 of all" and images[-2:].chosen == "images 998 to 999 of all"
    assert images[:10:3].chosen == "images 0 to 9 in steps of 3 of all"
    with pytest.raises(InputError, match=r"1001 images were asked for, and demo:single has 1000"):
        images.sample(1001)
    with pytest.raises(InputError, match=r"no image 'cat' \(1 of 2"):
        images.only(["single-000001", "cat"])
    with pytest.raises(InputError, match=r"names no image"):
        read_list(write(tmp_path / "empty.txt", "\n"))


def test_a_list_of_the_flat_folder_works_with_class_folders(tmp_path):
    val_photos(tmp_path / "flat")
    write(tmp_path / "flat" / "val.txt", "".join(f"{name}.JPEG {index}\n" for name, index in EXPECTED.items()))
    for number, (name, _, _) in TRUTH.items():
        photo(tmp_path / "folders" / name / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    names = read_list(open_images(f"imagenet:{tmp_path / 'flat'}").sample(2).save_list(tmp_path / "list.txt"))
    assert [sample.name for sample in open_images(f"imagenet:{tmp_path / 'folders'}").only(names)] == names


@pytest.mark.parametrize("spec", ["photos", "cifar:photos", "folder:", "", "C:\\photos"])
def test_unknown_kinds_are_listed(spec):
    with pytest.raises(InputError, match=r"the kinds are: imagenet, imagenet-s, .*, and demo"):
        open_images(spec)


@pytest.mark.parametrize("kind", ["imagenet", "imagenet-s", "imagenet-hard", "pet", "food101", "folder", "masks"])
def test_other_layouts_are_refused_with_what_is_there(tmp_path, kind):
    for number in range(7):
        write(tmp_path / f"notes{number}.txt", "")
    with pytest.raises(InputError, match=r"Looked for: .* Found: notes0.txt, .*, notes4.txt and 2 more"):
        open_images(f"{kind}:{tmp_path}")
    with pytest.raises(InputError, match=r"There is no folder"):
        open_images(f"{kind}:{tmp_path / 'nowhere'}")


def test_options_are_refused_where_they_mean_nothing(tmp_path):
    with pytest.raises(InputError, match=r"labels= means nothing for 'imagenet-s'"):
        open_images(f"imagenet-s:{tmp_path}", labels=tmp_path)
    with pytest.raises(InputError, match=r"images= means nothing for 'demo'"):
        open_images("demo:single", images=tmp_path)
    with pytest.raises(InputError, match=r"labels=.*none.json does not exist"):
        open_images(f"folder:{tmp_path}", labels=tmp_path / "none.json")


# --- real photos ---


def test_shared_imagenet_photos(shared):
    folder = shared / "images" / "imagenet-val"
    truth = json.loads((folder / "labels.json").read_text())
    flat, known = open_images(f"folder:{folder}"), open_images(f"imagenet:{folder}")
    assert labels_of(flat) == {name: about["label"] for name, about in truth.items()}
    assert [s.label for s in known] == [s.label for s in flat]
    assert flat[0].image.size == (227, 227)
    samples = open_images(f"folder:{shared / 'images' / 'imagenet-samples'}")
    assert len(samples) == 125
    assert all(sample.name.startswith(WNIDS[sample.label or 0]) for sample in samples)
    assert not open_images(f"folder:{shared / 'images' / 'multi-object'}").has_labels


@pytest.mark.parametrize(("name", "count"), [("ecssd", 98), ("coco-multi", 33), ("pets", 18)])
def test_shared_photos_with_masks(shared, name, count):
    folder = shared / "images" / "segmented" / name
    images = open_images(f"masks:{folder}")
    assert len(images) == count and images.has_labels
    truth = json.loads((folder / "labels.json").read_text())
    for sample in images:
        about, regions, size = truth[Path(sample.name).stem], sample.regions, sample.image.size
        assert all(mask.shape == size[::-1] and mask.any() for mask in regions.masks.values())
        if name == "ecssd":
            file = np.asarray(Image.open(folder / "masks" / f"{Path(sample.name).stem}.png"))
            assert (regions.masks[about["label"]] == (file != 0)).all()
        elif name == "pets":
            file = np.asarray(Image.open(folder / "masks" / f"{Path(sample.name).stem}.png"))
            assert (regions.masks[about["accept_ids"][0]] == ((file == 1) | (file == 2))).all()
            assert regions.ignored is not None and (regions.ignored == (file == 255)).all()
        else:
            for item in about["objects"]:
                file = np.asarray(Image.open(folder / "masks" / item["mask"]))
                shown = regions.masks[item["accept_ids"][0]]
                assert (shown & (file != 0)).sum() == (file != 0).sum()


# --- folders as they are found ---


def test_folders_without_photos_are_no_classes(tmp_path):
    for name in ("b", "d"):
        photo(tmp_path / name / "1.jpg")
    before = labels_of(open_images(f"folder:{tmp_path}"))
    for name in ("a", "c", ".hidden", "lost+found", "__MACOSX"):
        (tmp_path / name).mkdir()
    write(tmp_path / "a" / "notes.txt", "no photo")
    photo(tmp_path / "@eaDir" / "1.jpg")
    images = open_images(f"folder:{tmp_path}")
    assert labels_of(images) == before == {"b/1.jpg": 0, "d/1.jpg": 1}
    assert images.class_names.names == ("b", "d")
    photo(tmp_path / "c" / "more" / "1.jpg")
    with pytest.raises(InputError, match=r"c has no photos in it, and its folder more has"):
        open_images(f"folder:{tmp_path}")


def test_folders_without_photos_do_not_change_imagenets_classes(tmp_path):
    for name in ("n01440764", "n02123045"):
        photo(tmp_path / name / "1.jpg")
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "empty").mkdir()
    assert list(labels_of(open_images(f"folder:{tmp_path}")).values()) == [0, 281]


def test_photos_with_unusual_endings_are_found(tmp_path):
    formats = {"a.jfif": "JPEG", "b.JPE": "JPEG", "c.webp": "WEBP", "d.avif": "AVIF", "e": "PNG", "f.jpg_large": "JPEG"}
    formats |= {"g.2024": "TIFF", "h.JP2": "JPEG2000", "i.PNM": "PPM"}
    for name, kind in formats.items():
        Image.new("RGB", SIZE, (9, 9, 9)).save(tmp_path / name, kind)
    for name in ("README", "classes.txt", "Thumbs.db", "data.npy", "notes.2024", "empty"):
        write(tmp_path / name, "" if name == "empty" else "P5 is no photo")
    images = open_images(f"folder:{tmp_path}")
    assert [sample.name for sample in images] == list(formats)
    assert all(sample.image.size == SIZE for sample in images)
    write(tmp_path / "j.HEIC", "")
    with pytest.raises(InputError, match=r"j.HEIC is a photo of a format that Pillow cannot read here"):
        open_images(f"folder:{tmp_path}")


@pytest.mark.parametrize("kind", ["folder", "masks", "imagenet", "imagenet-hard"])
def test_dangling_links_are_named(tmp_path, kind):
    ending = "parquet" if kind == "imagenet-hard" else "JPEG"
    name = f"ILSVRC2012_val_00000001.{ending}"
    folder = tmp_path / ("images" if kind == "masks" else "n01440764" if kind == "imagenet" else "")
    folder.mkdir(exist_ok=True)
    (folder / name).symlink_to("gone.JPEG")
    with pytest.raises(InputError, match=rf"{name} is a link to gone.JPEG, which does not exist"):
        open_images(f"{kind}:{tmp_path}")


def test_a_folder_called_like_a_parquet_file_is_named(tmp_path):
    (tmp_path / "validation-00000-of-00001.parquet").mkdir()
    with pytest.raises(InputError, match=r"parquet is a folder, and a file should be there"):
        open_images(f"imagenet-hard:{tmp_path}")


def test_pipes_are_not_waited_for(tmp_path):
    photo(tmp_path / "photos" / "a.jpg")
    os.mkfifo(tmp_path / "labels.json")
    with pytest.raises(InputError, match=r"labels.json is a pipe or a device"):
        open_images(f"folder:{tmp_path / 'photos'}", labels=tmp_path / "labels.json")
    os.mkfifo(tmp_path / "photos" / "labels.json")
    assert not open_images(f"folder:{tmp_path / 'photos'}").has_labels
    os.mkfifo(tmp_path / "photos" / "b.jpg")
    os.mkfifo(tmp_path / "photos" / "no_ending")
    with pytest.raises(InputError, match=r"b.jpg is a pipe or a device"):
        open_images(f"folder:{tmp_path / 'photos'}")


@pytest.mark.parametrize("seed", [-1, 1.5, "1", None, True])
def test_seeds_are_whole_numbers_from_0(seed):
    with pytest.raises(InputError, match=r"seed=.* is not a whole number from 0 on"):
        open_images("demo:single").sample(5, seed=seed)


@pytest.mark.parametrize("path", ["a" * 5000, "~no such user/x"])
def test_paths_that_cannot_be_are_refused(path):
    with pytest.raises(InputError, match=r"cannot be opened"):
        open_images(f"folder:{path}")
    with pytest.raises(InputError, match=r"cannot be read|There is no image file"):
        cl.load_image(path)
