"""Names and numbers in captions."""

from caap_lab.labels import counted, named


def test_many_names_are_counted() -> None:
    assert named(["cat", "dog", "cat"]) == "cat, dog"
    assert named(map(str, [*range(47), 3])) == "each image's own target (47 different ones)"


def test_one_thing_has_no_plural() -> None:
    assert [counted(number, "pair") for number in range(3)] == ["0 pairs", "1 pair", "2 pairs"]
