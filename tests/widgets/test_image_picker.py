"""Files that come in pieces."""

from typing import Any

import pytest

from caap_lab.widgets.image_picker import MEGABYTE, UPLOADS, ImagePicker


@pytest.fixture
def picker() -> Any:
    made = ImagePicker()
    yield made
    made.close()


@pytest.fixture
def files(picker: ImagePicker) -> list[tuple[str, bytes]]:
    """Those that have come, in order."""
    taken: list[tuple[str, bytes]] = []
    picker.observe(lambda change: taken.append(change["new"]) if change["new"][0] else None, "file")
    return taken


def put(picker: ImagePicker, upload: str, name: str, piece: int, pieces: int, content: bytes, drop: str = "1") -> int:
    """Send a piece and return how many the kernel says it has."""
    about = {"kind": "piece", "upload": upload, "name": name, "drop": drop, "piece": piece, "pieces": pieces}
    picker._receive(picker, about, [memoryview(content)])
    assert picker.received[0] == upload
    return picker.received[1]


def send(picker: ImagePicker, upload: str, name: str, *pieces: bytes, drop: str = "1") -> list[int]:
    return [put(picker, upload, name, place, len(pieces), part, drop) for place, part in enumerate(pieces)]


def test_pieces_make_a_file(picker: ImagePicker, files: list[tuple[str, bytes]]) -> None:
    assert send(picker, "1", "a.png", b"one", b"two", b"three") == [1, 2, 3]
    send(picker, "2", "a.png", b"one", b"two", b"three")  # the same file once more counts as another
    assert files == [("a.png", b"onetwothree")] * 2


def test_a_piece_that_comes_twice_counts_once(picker: ImagePicker, files: list[tuple[str, bytes]]) -> None:
    """Each is answered, for the answer to the first may be what was lost."""
    told = []
    picker.send_state = lambda key=None: told.append((key, picker.received))  # type: ignore[method-assign]
    for place, part in enumerate((b"one", b"two")):
        assert put(picker, "1", "a.png", place, 2, part) == put(picker, "1", "a.png", place, 2, part) == place + 1
    assert files == [("a.png", b"onetwo")]
    assert [what for what in told if what[0] == "received"] == [("received", ("1", n)) for n in (1, 1, 2, 2)]


def test_a_piece_that_is_missing_is_asked_for(picker: ImagePicker, files: list[tuple[str, bytes]]) -> None:
    order = [(1, 0), (0, 1), (2, 1), (1, 2), (0, 2), (2, 3)]  # the piece, and how many are here then
    assert [put(picker, "1", "a.png", place, 3, b"abc"[place : place + 1]) for place, _ in order] == [
        n for _, n in order
    ]
    assert files == [("a.png", b"abc")]


def test_two_uploads_at_once(picker: ImagePicker, files: list[tuple[str, bytes]]) -> None:
    for place in range(2):
        for upload in ("left", "right"):
            put(picker, upload, f"{upload}.png", place, 2, f"{upload}{place}".encode())
    assert files == [("left.png", b"left0left1"), ("right.png", b"right0right1")]


def test_too_large_whatever_the_page_says(picker: ImagePicker, files: list[tuple[str, bytes]]) -> None:
    picker.largest = 2
    assert send(picker, "1", "big.png", *[bytes(MEGABYTE)] * 4) == [1, 2, 4, 4]  # the browser need not go on
    assert not files and picker.problem == "big.png is larger than 2 MB."


def test_what_is_wrong_is_said_of_all_files_of_a_drop(picker: ImagePicker) -> None:
    picker.observe(lambda change: picker.refuse(f"{change['new'][0]} is bad.") if change["new"][0] else None, "file")
    send(picker, "1", "a", b"a")
    send(picker, "2", "b", b"b")
    assert picker.problem == "a is bad. b is bad."
    send(picker, "3", "c", b"c", drop="2")
    assert picker.problem == "c is bad."


def test_files_that_break_off_are_forgotten(picker: ImagePicker, files: list[tuple[str, bytes]]) -> None:
    for number in range(UPLOADS + 1):
        put(picker, str(number), "half.png", 0, 2, b"half")
    assert put(picker, "0", "half.png", 1, 2, b"half") == 0  # the browser begins anew
    send(picker, "0", "whole.png", b"who", b"le")
    assert files == [("whole.png", b"whole")]
