"""Photos in parquet files: ImageNet-Hard and the hub's ImageNet-1k."""

import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from caap_lab import InputError, open_images
from helpers import published_layouts as published
from helpers.published_layouts import VAL_LABELS, WNIDS, labels_of, write_parquet, write_photo

FIRST, SECOND = "validation-00000-of-00002.parquet", "validation-00001-of-00002.parquet"


def noise(path: Path, labels: list[list[int]], first: int = 0, column: str = "label", rows: int = 2) -> list[bytes]:
    """A file of tiny pictures in row groups of a few rows; the photos' bytes come back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = []
    for seed in range(first, first + len(labels)):
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)).save(buffer, "PNG")
        data.append(buffer.getvalue())
    images = [{"bytes": image, "path": None} for image in data]
    pq.write_table(pa.table({"image": images, column: labels}), path, row_group_size=rows)
    return data


def test_imagenet_hard_reads_the_row_that_was_asked(tmp_path):
    first = noise(tmp_path / "data" / FIRST, [[3], [4, 9, 9], [5]])
    second = noise(tmp_path / "data" / SECOND, [[6]] * 11, 3, rows=10)
    images = open_images(f"imagenet-hard:{tmp_path}")
    assert [sample.label for sample in images] == [3, 4, 5, *[6] * 11]
    assert images[1].other_labels == (9,)
    assert images[4].name == "imagenet-hard-00004"
    for index, data in reversed(list(enumerate(first + second))):
        expected = np.asarray(Image.open(io.BytesIO(data)))
        assert (np.asarray(images[index].image) == expected).all()
    assert len(open_images(f"imagenet-hard:{tmp_path / 'data'}")) == 14


def test_imagenet_hard_as_published(tmp_path):
    images = open_images(published.imagenet_hard(tmp_path))
    assert [(sample.label, sample.other_labels) for sample in images] == [(1, ()), (404, (405,)), (284, ()), (574, ())]
    assert pickle.loads(pickle.dumps(images))[3].image.size == published.SIZE


def test_imagenet_hard_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"validation-00000-of-\*.parquet.*Found: nothing.*taesiri"):
        open_images(f"imagenet-hard:{tmp_path}")
    file = tmp_path / "validation-00000-of-00001.parquet"
    noise(file, [[1]], column="labels")
    with pytest.raises(InputError, match=r"has the columns image, labels"):
        open_images(f"imagenet-hard:{tmp_path}")
    noise(file, [[1000]])
    with pytest.raises(InputError, match=r"label \[1000\]"):
        open_images(f"imagenet-hard:{tmp_path}")
    pq.write_table(pa.table({"image": ["a.jpg"], "label": [1]}), file)
    with pytest.raises(InputError, match=r"images of type string; expected a struct of bytes and path"):
        open_images(f"imagenet-hard:{tmp_path}")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "a.jpg"}], "label": [1]}), file)
    with pytest.raises(InputError, match=r"imagenet-hard-00000 in .* holds no image file"):
        _ = open_images(f"imagenet-hard:{tmp_path}")[0].image
    file.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"cannot be read as parquet"):
        open_images(f"imagenet-hard:{tmp_path}")


@pytest.mark.parametrize("kind", ["imagenet", "imagenet-hard"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["validation-00000-of-00003.parquet"], r"has 1 of 3 parquet files; number 00001 is the first"),
        ([FIRST, "validation-00001-of-00005.parquet"], rf"more than one revision of the data set: {FIRST} and .*00005"),
        ([FIRST, SECOND, "validation-00001-of-00002-0a1b.parquet"], r"more than one revision"),
        (["validation-00000-of-00001-0a1b.parquet", "validation-00000-of-00001-2c3d.parquet"], r"0a1b.* and .*2c3d"),
        ([FIRST, SECOND, "validation.parquet"], r"more than one revision.*validation.parquet"),
    ],
)
def test_files_of_two_revisions_and_parts_of_a_set_are_refused(tmp_path, kind, names, message):
    for number, name in enumerate(names, start=1):
        write_parquet(tmp_path / "data" / name, [number], [1], [f"ILSVRC2012_val_{number:08d}.JPEG"])
    with pytest.raises(InputError, match=message):
        open_images(f"{kind}:{tmp_path}")


def test_files_with_other_columns_are_of_another_revision(tmp_path):
    noise(tmp_path / FIRST, [[1]])
    noise(tmp_path / SECOND, [1])
    with pytest.raises(InputError, match=rf"revision of the data set: {FIRST} and {SECOND}. These have other columns"):
        open_images(f"imagenet-hard:{tmp_path}")


def test_each_file_of_one_revision_may_have_a_hash_of_its_own(tmp_path):
    for number, part in ((1, "00000-of-00002-0a1b"), (2, "00001-of-00002-2c3d")):
        write_parquet(
            tmp_path / f"validation-{part}.parquet", [number], [number], [f"ILSVRC2012_val_{number:08d}.JPEG"]
        )
    assert list(labels_of(open_images(f"imagenet:{tmp_path}")).values()) == [1, 2]


@pytest.mark.parametrize("form", ["ILSVRC2012_val_{:08d}.JPEG", "val/n01443537/ILSVRC2012_val_{:08d}_n01443537.JPEG"])
def test_the_hubs_names_are_those_of_the_photos(tmp_path, form):
    # Rows are in an order of their own, and each photo is the row's.
    write_parquet(
        tmp_path / "validation-00000-of-00001.parquet", [3, 1, 2], [1, 1, 1], [form.format(n) for n in (3, 1, 2)]
    )
    images = open_images(f"imagenet:{tmp_path}")
    assert list(labels_of(images)) == list(VAL_LABELS)[:3]
    for number, sample in enumerate(images, start=1):
        buffer = io.BytesIO()
        published.photo(number).save(buffer, "JPEG", quality=95)
        assert (np.asarray(sample.image) == np.asarray(Image.open(buffer))).all()


@pytest.mark.parametrize(
    ("label", "path", "message"),
    [
        (-1, "ILSVRC2012_val_00000001.JPEG", "gives ILSVRC2012_val_00000001 the label -1, where a class 0 to 999"),
        (2, f"ILSVRC2012_val_00000001_{WNIDS[1]}.JPEG", f"says {WNIDS[1]}, but its folder or row says {WNIDS[2]}"),
        (1, None, "does not say which validation photo is in a row.*path of its image is None.*ILSVRC/imagenet-1k"),
        (1, "0.jpg", "path of its image is '0.jpg'"),
        (1, "ILSVRC2012_val_00000002.JPEG", "two photos ILSVRC2012_val_00000002"),
    ],
)
def test_rows_that_cannot_be_told_apart_or_disagree_are_refused(tmp_path, label, path, message):
    paths = [path, "ILSVRC2012_val_00000002.JPEG"]
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", [1, 2], [label, 2], paths)
    with pytest.raises(InputError, match=message):
        open_images(f"imagenet:{tmp_path}")


def test_other_splits_alone_are_no_validation_set(tmp_path):
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [1], [1], ["n01443537_1_n01443537.JPEG"])
    with pytest.raises(InputError, match=r"Looked for: .*validation-00000-of-\*.parquet.*Found: data/"):
        open_images(f"imagenet:{tmp_path}")


def test_damaged_photos_in_rows_are_named(tmp_path):
    photo = write_photo(tmp_path / "photo.JPEG", 1).read_bytes()
    rows = [{"bytes": photo[: len(photo) // 2], "path": "ILSVRC2012_val_00000001.JPEG"}]
    pq.write_table(pa.table({"image": rows, "label": [1]}), tmp_path / "validation-00000-of-00001.parquet")
    with pytest.raises(InputError, match=r"ILSVRC2012_val_00000001 in .*00001.parquet: .*truncated"):
        open_images(f"imagenet:{tmp_path}")[0].image.load()
