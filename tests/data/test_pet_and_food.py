"""Oxford-IIIT Pet and Food-101."""

import pytest

from caap_lab import InputError, open_images
from helpers import published_layouts as published
from helpers.published_layouts import BREEDS, DISHES, labels_of, objects, write_array, write_text


def test_pet_reads_trimaps(tmp_path):
    published.pet(tmp_path)
    root = tmp_path / "oxford-iiit-pet"
    for path in (tmp_path, root):
        images = open_images(f"pet:{path}")
        assert labels_of(images) == {"Abyssinian_1": 0, "american_bulldog_100": 1}
    assert images.class_names is not None
    assert images.class_names.names == tuple(name.replace("_", " ") for name in BREEDS.values())
    regions, (own, other) = images[1].regions, objects(2)
    assert list(regions.masks) == [1]
    assert (regions.masks[1] == own).all()
    assert (regions.ignored == other).all()
    train = open_images(f"pet:{root}", labels=root / "annotations" / "trainval.txt")
    assert labels_of(train) == {"american_bulldog_101": 1, "Bengal_5": 5}
    (root / "annotations" / "list.txt").unlink()
    names = open_images(f"pet:{root}", labels=root / "annotations" / "trainval.txt").class_names
    assert names.names == ("class 0", "american bulldog", "class 2", "class 3", "class 4", "Bengal")


def test_pet_says_what_is_wrong(tmp_path):
    published.pet(tmp_path)
    root = tmp_path / "oxford-iiit-pet"
    trimap = root / "annotations" / "trimaps" / "Abyssinian_1.png"
    write_array(trimap, objects(1)[0].astype("uint8"))
    with pytest.raises(InputError, match=r"not a trimap"):
        _ = open_images(f"pet:{tmp_path}")[0].regions.masks
    trimap.unlink()
    with pytest.raises(InputError, match=r"test.txt lists Abyssinian_1.png, which is not in .*trimaps \(1 of 2 are"):
        open_images(f"pet:{tmp_path}")
    for photo in (root / "images").glob("*.jpg"):
        photo.unlink()
    with pytest.raises(InputError, match=r"test.txt lists Abyssinian_1.jpg, which is not in .*images \(2 of 2 are"):
        open_images(f"pet:{tmp_path}")
    write_text(root / "annotations" / "test.txt", "Abyssinian_1\n")
    with pytest.raises(InputError, match=r"the line 'Abyssinian_1'"):
        open_images(f"pet:{tmp_path}")
    for index in (0, 38):
        write_text(root / "annotations" / "test.txt", f"Abyssinian_1 {index} 1 1\n")
        with pytest.raises(InputError, match=rf"'Abyssinian_1 {index} 1 1', and class ids are 1 to 37"):
            open_images(f"pet:{tmp_path}")
    (root / "annotations" / "test.txt").unlink()
    with pytest.raises(InputError, match=r"annotations/test.txt.*Found: annotations/, images/.*robots.ox.ac.uk"):
        open_images(f"pet:{tmp_path}")


def test_food101(tmp_path):
    published.food101(tmp_path)
    root = tmp_path / "food-101"
    for path in (tmp_path, root):
        images = open_images(f"food101:{path}")
        assert labels_of(images) == {"apple_pie/1011328": 0, "baklava/1034061": 2}
    assert images.class_names is not None and len(images.class_names.names) == len(DISHES)
    assert images.class_names.names[:3] == ("Apple pie", "Baby back ribs", "Baklava")
    assert images[0].image.size == published.SIZE
    train = open_images(f"food101:{root}", labels=root / "meta" / "train.txt")
    assert labels_of(train) == {"apple_pie/1005649": 0, "beef_carpaccio/1000028": 3}
    test = root / "meta" / "test.txt"
    write_text(test, f"{test.read_text()}baklava/1\nbaklava/2\n")
    with pytest.raises(
        InputError, match=r"test.txt lists baklava/1.jpg, which is not in .*images \(2 of 4 are missing"
    ):
        open_images(f"food101:{root}")
    write_text(test, "soup/1\n")
    with pytest.raises(InputError, match=r"'soup/1', whose class"):
        open_images(f"food101:{root}")
    write_text(test, "")
    with pytest.raises(InputError, match=r"test.txt lists no photos"):
        open_images(f"food101:{root}")
    write_text(root / "meta" / "classes.txt", "".join(f"{name}\n" for name in (*DISHES[:-1], DISHES[0])))
    with pytest.raises(InputError, match=r"classes.txt has the class 'apple_pie' twice"):
        open_images(f"food101:{root}")
    (root / "meta" / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"meta/classes.txt.*Found: .*images/, meta/.*food-101"):
        open_images(f"food101:{root}")
