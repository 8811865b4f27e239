"""Small made-up copies of the paper's data sets, laid out as published: four generated photos in each.

Every function writes below a folder and returns what `cl.open_images` opens. Folders and files are named as the
publishers name them, with what else lies beside them; the pixels and most labels are made up.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ExifTags, Image
from scipy.io import savemat

from caap_lab import ImageSet
from caap_lab.models.classes import ClassNames

SIZE = (96, 80)
"""Width and height of every photo: not square, so that models crop it."""
WNIDS = ClassNames.imagenet1k().ids
S50_CLASSES = (
    *(1, 3, 11, 31, 222, 277, 284, 295, 301, 325, 330, 333, 342, 368, 386, 388, 404, 412, 418, 436, 449, 466, 487, 492),
    *(502, 510, 531, 532, 574, 579, 606, 617, 659, 670, 695, 703, 748, 829, 846, 851, 861, 879, 883, 898, 900, 914),
    *(919, 951, 959, 992),
)
"""The classes of ImageNet-S50, as class indices of ImageNet-1k."""
VAL_CLASSES = {1: 1, 2: 404, 3: 284, 4: 574}
"""Number of each validation photo and its class."""
VAL_LABELS = {f"ILSVRC2012_val_{number:08d}": index for number, index in VAL_CLASSES.items()}
"""What every copy of the validation set has: names and labels."""
S_LABELS = {**VAL_LABELS, "ILSVRC2012_val_00000004": 695}
"""Names and labels of the copies of ImageNet-S, whose last photo lies in another class folder than ImageNet's."""
HARD_LABELS = [[1], [404, 405], [284], [574]]
BREEDS = {
    **{1: "Abyssinian", 2: "american_bulldog", 3: "american_pit_bull_terrier", 4: "basset_hound", 5: "beagle"},
    **{6: "Bengal", **{index: f"breed_{index}" for index in range(7, 38)}},
}
"""Class id of each breed; from 7 on, names are made up."""
DISHES = ("apple_pie", "baby_back_ribs", "baklava", "beef_carpaccio", *(f"dish_{index:03d}" for index in range(4, 101)))
"""The classes of Food-101; from the fifth on, names are made up."""
_IGNORED, _PET, _BACKGROUND, _BORDER = 1000, 1, 2, 3


def labels_of(images: ImageSet) -> dict[str, int | None]:
    """Name of each image and its label."""
    return {sample.name: sample.label for sample in images}


def photo(number: int) -> Image.Image:
    """One of the four photos, counted from 1: two objects of one colour each before a soft background."""
    random = np.random.default_rng(number)
    ground = Image.fromarray(random.integers(60, 160, (5, 6, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    pixels = np.array(ground)
    for one in objects(number):
        pixels[one] = random.integers(0, 256, 3)
    return Image.fromarray(pixels)


def objects(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a photo's two objects, bool [height, width]: a box and a disc, which lie apart and in sight."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    left, top = 16 + 2 * number, 10 + 6 * number
    box = (rows >= top) & (rows < top + 24) & (columns >= left) & (columns < left + 22)
    disc = (rows - 50 + 5 * number) ** 2 + (columns - 66) ** 2 < 12**2
    return box, disc & ~box


def write_photo(path: Path, number: int) -> Path:
    """One of the four photos as a JPEG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(number).save(path, "JPEG", quality=95)
    return path


def write_noise(path: Path, seed: int = 0, orientation: int = 1) -> Path:
    """A photo of noise, 12 pixels wide and 8 high, with an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(path, quality=100, exif=exif)
    return path


def write_array(path: Path, pixels: np.ndarray) -> Path:
    """A picture file of pixels, kept exactly if its format is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_text(path: Path, text: str) -> Path:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- ImageNet ---


def class_folders(folder: Path) -> str:
    """Photos in a folder per class, as PyTorch's examples sort them."""
    for number, index in VAL_CLASSES.items():
        write_photo(folder / "val" / WNIDS[index] / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    return f"imagenet:{folder}"


def devkit(folder: Path) -> str:
    """Photos in one folder beside the unpacked devkit, as image-net.org has them."""
    _flat(folder / "val")
    write_devkit(folder / "ILSVRC2012_devkit_t12" / "data", {3: 490, 1: 361, 2: 171, 4: 1})
    return f"imagenet:{folder}"


def write_devkit(folder: Path, ids: Mapping[int, int]) -> Path:
    """The devkit's ground truth, with the ILSVRC2012_IDs of the photos, and meta.mat; returns the ground truth."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    kinds += [("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O")]
    rows = [(ids[number], WNIDS[index]) for number, index in VAL_CLASSES.items()] + [(1001, "n00001740")]
    synsets = np.zeros((len(rows), 1), kinds)
    for row, (number, wordnet_id) in enumerate(rows):  # the last one is an inner node of WordNet, as in the devkit
        children = np.array([], np.uint16) if number <= 1000 else np.array([1, 2], np.uint16)
        synsets[row, 0] = (np.uint16(number), wordnet_id, "words", "gloss", len(children), children, 0, np.uint16(1300))
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "meta.mat", {"synsets": synsets})
    text = "".join(f"{ids[number]}\n" for number in sorted(VAL_CLASSES))
    return write_text(folder / "ILSVRC2012_validation_ground_truth.txt", text)


def kaggle(folder: Path) -> str:
    """Kaggle's ImageNet Object Localization Challenge, unpacked; the source is the innermost folder."""
    photos = _flat(folder / "ILSVRC" / "Data" / "CLS-LOC" / "val")
    # Numbers of the photos, not classes:
    counted = "".join(f"ILSVRC2012_val_{number:08d} {number}\n" for number in VAL_CLASSES)
    write_text(folder / "ILSVRC" / "ImageSets" / "CLS-LOC" / "val.txt", counted)
    write_kaggle_labels(folder)
    return f"imagenet:{photos}"


def write_kaggle_labels(folder: Path) -> Path:
    """LOC_val_solution.csv, in an order of its own."""
    rows = [
        f"ILSVRC2012_val_{number:08d},{WNIDS[index]} 11 8 42 33 {WNIDS[index]} 0 0 1 1 \n"
        for number, index in VAL_CLASSES.items()
    ]
    return write_text(folder / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "".join(reversed(rows)))


def caffe(folder: Path) -> str:
    """Photos in one folder, with Caffe's val.txt above it."""
    _flat(folder / "val")
    lines = [f"ILSVRC2012_val_{number:08d}.JPEG {index}\n" for number, index in VAL_CLASSES.items()]
    write_text(folder / "val.txt", "".join(lines))
    return f"imagenet:{folder}"


def synset_labels(folder: Path) -> str:
    """Photos in one folder, with the WordNet ids of all in order, as TensorFlow's research models have them."""
    _flat(folder / "val")
    lines = [f"{WNIDS[VAL_CLASSES[number]]}\n" for number in sorted(VAL_CLASSES)]
    write_text(folder / "imagenet_2012_validation_synset_labels.txt", "".join(lines))
    return f"imagenet:{folder}"


def val_images(folder: Path) -> str:
    """The archive val_images.tar.gz of the Hugging Face hub, unpacked: the class is in each photo's name."""
    for number, index in VAL_CLASSES.items():
        write_photo(folder / "val_images" / f"ILSVRC2012_val_{number:08d}_{WNIDS[index]}.JPEG", number)
    return f"imagenet:{folder}"


def hub_parquet(folder: Path) -> str:
    """ILSVRC/imagenet-1k of the Hugging Face hub: rows in an order of their own, and the other splits beside them."""
    data = folder / "data"
    rows = [[3, 1], [4, 2]]
    for part, numbers in enumerate(rows):
        paths = [f"ILSVRC2012_val_{number:08d}_{WNIDS[VAL_CLASSES[number]]}.JPEG" for number in numbers]
        labels = [VAL_CLASSES[number] for number in numbers]
        write_parquet(data / f"validation-{part:05d}-of-{len(rows):05d}.parquet", numbers, labels, paths)
    write_parquet(data / "train-00000-of-00294.parquet", [1], [1], ["n01443537_10007_n01443537.JPEG"])
    write_parquet(data / "test-00000-of-00028.parquet", [1], [-1], ["ILSVRC2012_test_00000001.JPEG"])
    return f"imagenet:{folder}"


def write_parquet(
    path: Path, numbers: list[int], labels: list[int] | list[list[int]], paths: list[str] | None = None, **more: object
) -> Path:
    """A file as the Hugging Face hub has it, two rows in a row group.

    Args:
        path: Where to write it.
        numbers: Which of the four photos.
        labels: A class or several classes for each.
        paths: What the photos were called; the files of some data sets do not say it.
        more: Further columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    images = []
    for row, number in enumerate(numbers):
        buffer = io.BytesIO()
        photo(number).save(buffer, "JPEG", quality=95)
        images.append({"bytes": buffer.getvalue(), "path": None if paths is None else paths[row]})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, kind), "label": labels, **more}), path, row_group_size=2)
    return path


def _flat(folder: Path) -> Path:
    for number in VAL_CLASSES:
        write_photo(folder / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    return folder


IMAGENET: dict[str, Callable[[Path], str]] = {
    "class folders": class_folders,
    "devkit": devkit,
    "kaggle": kaggle,
    "caffe": caffe,
    "synset labels": synset_labels,
    "val_images": val_images,
    "hub parquet": hub_parquet,
}
"""The validation set in every layout in which people have it."""

# --- ImageNet-S ---


def imagenet_s(folder: Path) -> str:
    """ImageNet-S50 as the data set's own script completes it: photos and masks in the same class folders."""
    root = _masks(folder)
    for name, index in S_LABELS.items():
        write_photo(root / "validation" / WNIDS[index] / f"{name}.JPEG", int(name[-8:]))
    return f"imagenet-s:{folder}"


def imagenet_s_zipped(folder: Path, images: str) -> str:
    """ImageNet-S50 as its archive is unpacked: masks alone, and ImageNet's photos elsewhere.

    Args:
        folder: Where to write it.
        images: Folder of the photos, as one of `IMAGENET` has it.
    """
    return f"imagenet-s:{_masks(folder)}?images={images.removeprefix('imagenet:')}"


def _masks(folder: Path) -> Path:
    root = folder / "ImageNetS50"
    for index in S50_CLASSES:
        (root / "validation-segmentation" / WNIDS[index]).mkdir(parents=True)
    for name, index in S_LABELS.items():
        own, other = objects(int(name[-8:]))
        ids = np.zeros(own.shape, int)
        ids[other] = (S50_CLASSES.index(index) + 1) % len(S50_CLASSES) + 1
        ids[own] = S50_CLASSES.index(index) + 1
        ids[:3] = _IGNORED
        write_array(root / "validation-segmentation" / WNIDS[index] / f"{name}.png", s_mask(ids))
    return root


def s_mask(ids: np.ndarray) -> np.ndarray:
    """Class ids as a mask of ImageNet-S: red + 256 green."""
    return np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)


# --- the others ---


def imagenet_hard(folder: Path) -> str:
    """taesiri/imagenet-hard of the Hugging Face hub."""
    for part, numbers in enumerate([[1, 2, 3], [4]]):
        labels = [HARD_LABELS[number - 1] for number in numbers]
        names = [["name"] * len(label) for label in labels]
        file = folder / "data" / f"validation-{part:05d}-of-00002-{part + 10:016x}.parquet"
        write_parquet(file, numbers, labels, origin=["imagenet_sketch"] * len(numbers), english_label=names)
    return f"imagenet-hard:{folder}"


def pet(folder: Path) -> str:
    """Oxford-IIIT Pet: two photos of the test split and two of the other; trimaps as published."""
    root = folder / "oxford-iiit-pet"
    stems = {1: "Abyssinian_1", 2: "american_bulldog_100", 3: "american_bulldog_101", 4: "Bengal_5"}
    ids = {1: 1, 2: 2, 3: 2, 4: 6}
    for number, stem in stems.items():
        write_photo(root / "images" / f"{stem}.jpg", number)
        own, other = objects(number)
        trimap = np.full(own.shape, _BACKGROUND, np.uint8)
        trimap[other], trimap[own] = _BORDER, _PET
        write_array(root / "annotations" / "trimaps" / f"{stem}.png", trimap)
        write_text(root / "annotations" / "trimaps" / f"._{stem}.png", "left behind by macOS")
    write_text(root / "images" / "Abyssinian_100.mat", "left behind by MATLAB")
    write_text(root / "annotations" / "README", "What the files are.")
    lines = {number: f"{stem} {ids[number]} 1 1\n" for number, stem in stems.items()}
    header = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"
    others = [f"{name}_1 {index} 1 1\n" for index, name in BREEDS.items() if index not in ids.values()]
    write_text(root / "annotations" / "list.txt", header + "".join([*lines.values(), *others]))
    write_text(root / "annotations" / "test.txt", lines[1] + lines[2])
    write_text(root / "annotations" / "trainval.txt", lines[3] + lines[4])
    return f"pet:{root}"


def food101(folder: Path) -> str:
    """Food-101: two photos of the test split and two of the other."""
    root = folder / "food-101"
    names = ["apple_pie/1011328", "baklava/1034061", "apple_pie/1005649", "beef_carpaccio/1000028"]
    for number, name in enumerate(names, start=1):
        write_photo(root / "images" / f"{name}.jpg", number)
    write_text(root / "meta" / "classes.txt", "".join(f"{name}\n" for name in DISHES))
    spoken = [name.replace("_", " ").capitalize() for name in DISHES]
    write_text(root / "meta" / "labels.txt", "".join(f"{name}\n" for name in spoken))
    write_text(root / "meta" / "test.txt", "".join(f"{name}\n" for name in names[:2]))
    write_text(root / "meta" / "train.txt", "".join(f"{name}\n" for name in names[2:]))
    write_text(root / "README.txt", "What the files are.")
    return f"food101:{root}"


def all_five(folder: Path) -> dict[str, str]:
    """A copy of each of the paper's data sets, by the paper's name for it; ImageNet-S has its masks alone."""
    imagenet = class_folders(folder / "imagenet")
    return {
        "ImageNet-1K": imagenet,
        "ImageNet-S": imagenet_s_zipped(folder / "imagenet-s", imagenet),
        "ImageNet-Hard": imagenet_hard(folder / "imagenet-hard"),
        "Oxford-IIIT-Pet": pet(folder / "pets"),
        "Food-101": food101(folder / "food"),
    }
