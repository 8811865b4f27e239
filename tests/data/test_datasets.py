"""What holds for all data sets, demo scenes, and folders as they are found."""

import json
import os
import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import caap_lab as cl
from caap_lab import InputError, open_images
from caap_lab.data.image_set import read_list
from caap_lab.data.scenes import KINDS
from helpers import published_layouts as published
from helpers.published_layouts import VAL_CLASSES, VAL_LABELS, WNIDS, labels_of
from helpers.published_layouts import write_array as save
from helpers.published_layouts import write_noise as photo
from helpers.published_layouts import write_text as write

SIZE = (12, 8)  # width, height
INSIDE = np.zeros((SIZE[1], SIZE[0]), bool)
INSIDE[1:4, 2:9] = True


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
    for number, index in VAL_CLASSES.items():
        write(tmp_path / "val" / WNIDS[index] / f"ILSVRC2012_val_{number:08d}.JPEG", "no image")
        write(tmp_path / "own" / "images" / f"{number}.jpg", "no image")
        write(tmp_path / "own" / "masks" / f"{number}.png", "no image")
    images = open_images(f"imagenet:{tmp_path}")
    assert labels_of(images) == VAL_LABELS
    with pytest.raises(InputError, match=r"ILSVRC2012_val_00000001.JPEG is not an image"):
        images[0].image.load()
    assert len(open_images(f"masks:{tmp_path / 'own'}")) == 4
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
    with pytest.raises(InputError, match=r"1001 images were requested, but demo:single has only 1000"):
        images.sample(1001)
    with pytest.raises(InputError, match=r"no image 'cat' \(1 of 2"):
        images.only(["single-000001", "cat"])
    with pytest.raises(InputError, match=r"names no image"):
        read_list(write(tmp_path / "empty.txt", "\n"))


def test_a_list_of_the_flat_folder_works_with_class_folders(tmp_path):
    flat, folders = published.caffe(tmp_path / "flat"), published.class_folders(tmp_path / "folders")
    names = read_list(open_images(flat).sample(2).save_list(tmp_path / "list.txt"))
    assert [sample.name for sample in open_images(folders).only(names)] == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["ILSVRC2012_val_00000001.JPEG", "x"],
            r"JPEG' \(2 of 2 are missing\). Write 'ILSVRC2012_val_00000001'",
        ),
        (["n01443537/ILSVRC2012_val_00000001.JPEG"], r"Write 'ILSVRC2012_val_00000001'"),
        (
            ["ILSVRC2012_val_00000002", "ILSVRC2012_val_0000001"],
            r"\(1 of 2 .*\). Nearest: ILSVRC2012_val_00000001",
        ),
        (["ILSVRC2012_val_00000001"] * 2, r"has 'ILSVRC2012_val_00000001' more than once \(repeated names: 1\)"),
        ([], r"No images of .* were named"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, names, message):
    images = open_images(published.class_folders(tmp_path))
    with pytest.raises(InputError, match=message):
        images.only(names)


def test_lists_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_text("\ufeffcat.jpg\n", encoding="utf-8")
    assert read_list(tmp_path / "list.txt") == ["cat.jpg"]


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
    with pytest.raises(InputError, match=r"labels= is not an option of 'imagenet-s'"):
        open_images(f"imagenet-s:{tmp_path}", labels=tmp_path)
    with pytest.raises(InputError, match=r"images= is not an option of 'demo'"):
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
    with pytest.raises(InputError, match=r"c/more has photos, such as 1.jpg, which would be left out"):
        open_images(f"folder:{tmp_path}")


def test_photos_below_the_folders_that_are_read_are_not_left_out_silently(tmp_path):
    for name in ("classes/cat/1.jpg", "classes/dog/2.jpg", "flat/1.jpg", "masks/images/1.jpg", "masks/masks/1.png"):
        photo(tmp_path / name)
    for deeper, source in (
        ("classes/cat/more", "folder:classes"),
        ("flat/x/y", "folder:flat"),
        ("masks/images/b", "masks:masks"),
    ):
        kind, folder = source.split(":")
        open_images(f"{kind}:{tmp_path / folder}")
        photo(tmp_path / deeper / "9.jpg")
        with pytest.raises(InputError, match=rf"{deeper} has photos, such as 9.jpg, which would be left out"):
            open_images(f"{kind}:{tmp_path / folder}")


def test_names_in_a_labels_file_find_their_photos_or_are_said(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
    photo(tmp_path / apart)
    photo(tmp_path / "b.jpg")
    file = tmp_path / "labels.json"

    def read(**entries):
        file.write_text(json.dumps(entries), encoding="utf-8-sig")  # as some editors begin a file
        return labels_of(open_images(f"folder:{tmp_path}"))

    assert read(**{composed: 1, "b.jpg": 2}) == {apart: 1, "b.jpg": 2} == read(**{"café": 1, "b": 2})
    with pytest.raises(InputError, match=r"has B\.JPG, but the photo is b\.jpg"):
        read(**{apart: 1, "B.JPG": 2})
    assert read(**{apart: 1, "of another folder.jpg": 2}) == {apart: 1, "b.jpg": None}
    photo(tmp_path / "b.png")
    assert read(**{"b.jpg": 2, "b": 3}) == {apart: None, "b.jpg": 2, "b.png": 3}
    with pytest.raises(InputError, match=r"has b, which may be b\.jpg or b\.png"):
        read(b=2)
    file.write_text('{"b.jpg": 2, "b.jpg": 3}')
    with pytest.raises(InputError, match=r"'b\.jpg' stands in it twice"):
        open_images(f"folder:{tmp_path}")


def test_masks_belong_to_the_photo_with_the_longest_name_in_front(tmp_path):
    for name in ("images/a.jpg", "images/a__b.jpg", "masks/a__c__1.png", "masks/a__b__1.png", "masks/d__1.png"):
        photo(tmp_path / name)
    masks = {sample.name: len(sample.regions.masks) for sample in open_images(f"masks:{tmp_path}")}
    assert masks == {"a.jpg": 1, "a__b.jpg": 1}


def test_two_photos_never_share_a_mask_by_name(tmp_path):
    for name in ("images/a.jpg", "images/a.png", "masks/a.png", "masks/b.png"):
        photo(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.jpg and a\.png would share their masks"):
        open_images(f"masks:{tmp_path}")
    objects = {name: {"objects": [{"mask": mask}]} for name, mask in (("a.jpg", "a.png"), ("a.png", "b.png"))}
    (tmp_path / "labels.json").write_text(json.dumps(objects))
    assert len(open_images(f"masks:{tmp_path}")) == 2


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
    with pytest.raises(InputError, match=r"j.HEIC is a photo in a format that this Pillow cannot read"):
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
    with pytest.raises(InputError, match=r"parquet is a folder; expected a file"):
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
    with pytest.raises(InputError, match=r"seed=.* is not a whole number of at least 0"):
        open_images("demo:single").sample(5, seed=seed)


@pytest.mark.parametrize("path", ["a" * 5000, "~no such user/x"])
def test_paths_that_cannot_be_are_refused(path):
    with pytest.raises(InputError, match=r"cannot be opened"):
        open_images(f"folder:{path}")
    with pytest.raises(InputError, match=r"cannot be read|There is no image file"):
        cl.load_image(path)
