"""Names of targets in captions."""

from caap_lab.labels import named


def test_many_names_are_counted() -> None:
    assert named(["cat", "dog", "cat"]) == "cat, dog"
    assert named(map(str, [*range(47), 3])) == "each image's own target (47 different ones)"
