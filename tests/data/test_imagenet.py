"""ImageNet's validation photos in the layouts in which people have them, and what is refused."""

import json
from pathlib import Path

import pytest

from caap_lab import InputError, open_images
from caap_lab.data.imagenet_labels import GROUND_TRUTH, LABEL_FILES
from caap_lab.models.classes import ClassNames
from helpers import published_layouts as published
from helpers.published_layouts import SIZE, VAL_CLASSES, VAL_LABELS, WNIDS, labels_of, write_photo, write_text

NAMES = list(VAL_LABELS)


def flat(folder: Path, suffix: str = ".JPEG") -> Path:
    """Photos in one folder, without labels."""
    for number, name in enumerate(NAMES, start=1):
        write_photo(folder / f"{name}{suffix}", number)
    return folder


def label_file(folder: Path, name: str) -> Path:
    """One of the files of labels that are known by name."""
    if name == "LOC_val_solution.csv":
        return published.write_kaggle_labels(folder)
    if name == GROUND_TRUTH:
        return published.write_devkit(folder, {1: 490, 2: 361, 3: 171, 4: 1000})
    if name == "labels.json":
        return write_text(folder / name, json.dumps({one: {"label": index} for one, index in VAL_LABELS.items()}))
    if name == "val.txt":
        return write_text(folder / name, "".join(f"{one}.JPEG {index}\n" for one, index in VAL_LABELS.items()))
    return write_text(folder / name, "".join(f"{WNIDS[VAL_CLASSES[number]]}\n" for number in sorted(VAL_CLASSES)))


@pytest.mark.parametrize("layout", published.IMAGENET)
def test_every_layout_has_the_same_names_and_labels(tmp_path, layout):
    images = open_images(published.IMAGENET[layout](tmp_path / "here"))
    assert list(labels_of(images).items()) == list(VAL_LABELS.items())  # in the order of their numbers
    assert images.class_names == ClassNames.imagenet1k() and not images.has_masks
    assert all(sample.image.size == SIZE for sample in images)
    assert labels_of(open_images(images.source)) == VAL_LABELS
    for inner in ("val", "val_images", "data"):
        if (tmp_path / "here" / inner).is_dir():
            assert labels_of(open_images(f"imagenet:{tmp_path / 'here' / inner}")) == VAL_LABELS
    assert labels_of(open_images(f"imagenet:{tmp_path / 'here'}")) == VAL_LABELS


@pytest.mark.parametrize("name", LABEL_FILES)
def test_every_file_of_labels_is_found_beside_and_above_the_photos(tmp_path, name):
    for index, place in enumerate(("val", ".", "..", "data", "val/ILSVRC2012_devkit_t12/data")):
        folder = tmp_path / str(index) / "imagenet"
        flat(folder / "val")
        label_file(folder / place, name)
        for path in (folder, *([folder / "val"] if place != ".." else [])):
            assert labels_of(open_images(f"imagenet:{path}")) == VAL_LABELS


def test_labels_are_found_around_kaggles_folders(tmp_path):
    for place in (".", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC", "ILSVRC/Data/CLS-LOC/val"):
        root = tmp_path / place.replace("/", "-")
        innermost = flat(root / "ILSVRC/Data/CLS-LOC/val")
        published.write_kaggle_labels(root / place)
        for path in (innermost, root / "ILSVRC" / "Data", root / "ILSVRC", root):
            assert labels_of(open_images(f"imagenet:{path}")) == VAL_LABELS


def test_labels_of_a_file_elsewhere(tmp_path):
    flat(tmp_path / "val")
    file = published.write_devkit(tmp_path / "elsewhere", {1: 490, 2: 361, 3: 171, 4: 1})
    with pytest.raises(InputError, match=r"not sorted into class folders.*LOC_val_solution.csv.*'imagenet:.*\?labels="):
        open_images(f"imagenet:{tmp_path}")
    assert labels_of(open_images(f"imagenet:{tmp_path}", labels=file)) == VAL_LABELS
    assert labels_of(open_images(f"imagenet:{tmp_path}?labels={file}")) == VAL_LABELS
    published.write_kaggle_labels(tmp_path / "why?")
    asked = f"imagenet:{tmp_path}?labels={tmp_path / 'why?' / 'LOC_val_solution.csv'}"
    assert labels_of(open_images(asked)) == VAL_LABELS
    (tmp_path / "elsewhere" / "meta.mat").unlink()
    with pytest.raises(InputError, match=r"ILSVRC2012_ID.*meta.mat.*ILSVRC2012_devkit_t12"):
        open_images(f"imagenet:{tmp_path}", labels=file)
    write_text(tmp_path / "elsewhere" / "meta.mat", "no MATLAB file")
    with pytest.raises(InputError, match=r"does not explain"):
        open_images(f"imagenet:{tmp_path}", labels=file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ILSVRC2012_val_00000001.JPEG 65\n", r"no label for ILSVRC2012_val_00000002 \(3 of 4"),
        ("ILSVRC2012_val_00000001.JPEG 1000\n", "'1000' where a WordNet id .* or a class index 0 to 999"),
        ("ILSVRC2012_val_00000001.JPEG n99999999\n", "'n99999999' where a WordNet id"),
        ("ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000001.JPEG 2\n", "two classes for ILSVRC2012_val_00000001"),
        ("ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 2\n", "numbers the photos.*LOC_val_solution.csv"),
        ("cat.jpg 65\n", "'cat.jpg 65', not a validation photo"),
        ("", "lists no labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, text, message):
    flat(tmp_path)
    write_text(tmp_path / "val.txt", text)
    with pytest.raises(InputError, match=message):
        open_images(f"imagenet:{tmp_path}")


def test_class_numbers_of_other_files_are_checked_too(tmp_path):
    flat(tmp_path)
    file = write_text(tmp_path / "labels.json", json.dumps({**VAL_LABELS, NAMES[0]: 1000}))
    with pytest.raises(InputError, match="'1000' where"):
        open_images(f"imagenet:{tmp_path}")
    file.unlink()
    ground_truth = label_file(tmp_path, GROUND_TRUTH)
    write_text(ground_truth, "490\n361\n1001\n0\n")
    with pytest.raises(InputError, match="'1001' where an ILSVRC2012_ID, 1 to 1000"):
        open_images(f"imagenet:{tmp_path}")


@pytest.mark.parametrize(
    "name", ["ILSVRC2012_validation_ground_truth.txt", "imagenet_2012_validation_synset_labels.txt"]
)
def test_lists_in_order_have_a_line_per_photo(tmp_path, name):
    flat(tmp_path)
    file = label_file(tmp_path, name)
    lines = file.read_text().splitlines(keepends=True)
    for count in (3, 5, 49_999, 50_001):
        write_text(file, "".join((lines * count)[:count]))
        with pytest.raises(
            InputError, match=rf"{name} has {count:,} lines .* 50,000 .*\(4 photos were found, up to number 4"
        ):
            open_images(f"imagenet:{tmp_path}")
    write_text(file, "".join((lines * 12_500)[:50_000]))
    assert labels_of(open_images(f"imagenet:{tmp_path}")) == VAL_LABELS
    write_text(file, "".join(lines[:3]))
    (tmp_path / f"{NAMES[1]}.JPEG").unlink()  # three lines for three photos, which are not those of the lines
    with pytest.raises(InputError, match="has 3 lines"):
        open_images(f"imagenet:{tmp_path}")


def test_one_class_folder_is_not_the_validation_set(tmp_path):
    for number in (1, 2):
        write_photo(tmp_path / "val" / "n01443537" / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    with pytest.raises(InputError, match=r"n01443537 is only one of the 1000 class folders.*Give .*val, with all"):
        open_images(f"imagenet:{tmp_path / 'val' / 'n01443537'}")
    for path in (tmp_path, tmp_path / "val"):
        with pytest.raises(InputError, match=r"n01443537 is only one of the 1000 class folders.*'folder:.*val'"):
            open_images(f"imagenet:{path}")
    assert len(open_images(f"folder:{tmp_path / 'val'}")) == 2


def test_a_photo_in_two_folders_is_refused(tmp_path):
    published.class_folders(tmp_path)
    write_photo(tmp_path / "val" / WNIDS[3] / f"{NAMES[0]}.JPEG", 1)
    with pytest.raises(InputError, match=rf"two photos {NAMES[0]}: .*{WNIDS[1]}.* and .*{WNIDS[3]}"):
        open_images(f"imagenet:{tmp_path}")


def test_names_with_a_class_agree_with_files_and_folders(tmp_path):
    published.val_images(tmp_path)
    file = published.write_kaggle_labels(tmp_path)
    assert labels_of(open_images(f"imagenet:{tmp_path}")) == VAL_LABELS
    file.write_text(file.read_text().replace(WNIDS[284], WNIDS[285]))
    message = rf"name of .*{NAMES[2]}_{WNIDS[284]}.JPEG says {WNIDS[284]}, but .*csv says {WNIDS[285]} \(1 of 4"
    with pytest.raises(InputError, match=message):
        open_images(f"imagenet:{tmp_path}")
    photo = tmp_path / "val_images" / f"{NAMES[2]}_{WNIDS[284]}.JPEG"
    photo.rename(photo.with_name(f"{NAMES[2]}_n99999999.JPEG"))
    with pytest.raises(InputError, match="n99999999 is not a WordNet id"):
        open_images(f"imagenet:{tmp_path}")
    for number, index in VAL_CLASSES.items():
        write_photo(tmp_path / "sorted" / WNIDS[index] / f"ILSVRC2012_val_{number:08d}_{WNIDS[index]}.JPEG", number)
    assert labels_of(open_images(f"imagenet:{tmp_path / 'sorted'}")) == VAL_LABELS
    (tmp_path / "sorted" / WNIDS[1]).rename(tmp_path / "sorted" / WNIDS[2])
    with pytest.raises(InputError, match=rf"says {WNIDS[1]}, but its folder or row says {WNIDS[2]}"):
        open_images(f"imagenet:{tmp_path / 'sorted'}")
