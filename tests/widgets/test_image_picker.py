"""Files that come in pieces."""

from typing import Any

import pytest

from caap_lab.widgets.image_picker import MEGABYTE, ImagePicker


@pytest.fixture
def picker() -> Any:
    made = ImagePicker()
    yield made
    made.close()


def send(picker: ImagePicker, name: str, *pieces: bytes) -> None:
    for piece, content in enumerate(pieces):
        about = {"kind": "piece", "name": name, "piece": piece, "pieces": len(pieces)}
        picker._receive(picker, about, [memoryview(content)])


def test_pieces_make_a_file(picker: ImagePicker) -> None:
    files, arrived = [], []
    picker.observe(lambda change: files.append(change["new"]), "file")
    picker.observe(lambda change: arrived.append(change["new"]), "received")
    send(picker, "a.png", b"one", b"two", b"three")
    send(picker, "a.png", b"one", b"two", b"three")  # the same file once more counts as another
    assert [file for file in files if file[0]] == [("a.png", b"onetwothree")] * 2
    assert arrived == [1, 2, 3, 1, 2, 3]


def test_too_large_whatever_the_page_says(picker: ImagePicker) -> None:
    picker.largest = 2
    send(picker, "big.png", *[bytes(MEGABYTE)] * 3)
    assert picker.file == ("", b"") and picker.problem == "big.png is larger than 2 MB."


def test_a_file_that_breaks_off_is_forgotten(picker: ImagePicker) -> None:
    about = {"kind": "piece", "name": "half.png", "piece": 0, "pieces": 2}
    picker._receive(picker, about, [memoryview(b"half")])
    send(picker, "whole.png", b"whole")
    assert picker.file == ("whole.png", b"whole")
