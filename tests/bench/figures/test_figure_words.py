"""What stands in figures about their numbers."""

import pandas as pd

from caap_lab.bench.figures.words import count_text, means_text


def test_counts_of_images() -> None:
    assert count_text([500, 500]) == "n = 500" and count_text(pd.Series([125, 500])) == "n = 125 to 500"


def test_protocols() -> None:
    means = "mean ± standard error over images"
    assert means_text("rise", [224.0, 224.0]) == f"{means}; protocol rise, 224 steps"
    assert means_text("rise", [224, 32]) == f"{means}; protocol rise, 32 or 224 steps"
    assert means_text("rise") == f"{means}; protocol rise" and means_text("rise", []) == means
