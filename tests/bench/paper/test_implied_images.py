"""How many images the paper's tables have, from its standard errors."""

from statistics import median

import pytest

from caap_lab.bench.paper.implied_images import implied_images
from caap_lab.bench.paper.parts import IMAGES
from caap_lab.bench.paper.published import tables


def test_the_defaults_are_what_standard_errors_imply() -> None:
    implied = {table: implied_images(table) for table in tables()}
    print({table: round(median(values)) for table, values in implied.items() if values})  # shown with pytest -s
    for table in (2, 5, 7, 9, 13, 15):  # the pointing game tells it exactly
        assert round(median(implied[table])) == IMAGES["localisation"] == 128
    assert [round(n) for n in implied[9] if n < 120] == [52, 53, 55]  # three cells of fewer images
    assert [round(n) for n in implied[11]] == [27, 27, 27, 27, 83, 79, 96, 108]  # CAAP's row, and that of E-CAAP
    assert IMAGES["table 11"] == IMAGES["table 10"]  # its cells fit no single number
    for table in (8, 10):
        assert median(implied[table]) == pytest.approx(IMAGES[f"table {table}"], rel=0.02)
    for table in (1, 4, 6, 12):
        assert median(implied[table]) == pytest.approx(IMAGES["faithfulness"], rel=0.15)
    assert implied[14] == []
