"""The paper's numbers beside those of figures."""

import numpy as np
import pandas as pd
import pytest

from caap_lab.bench.figures.published_beside import with_published


def test_the_papers_number_stands_beside_ours_with_the_difference_in_standard_errors() -> None:
    rows = [
        ("ViT-L/16", "Grad-CAM", "deletion", 50.0),
        ("ViT-L/16", "CAAP", "aupr1", 60.0),
        ("demo", "CAAP", "deletion", 1.0),
    ]
    frame = pd.DataFrame(rows, columns=["model", "method", "metric", "mean"]).assign(se=1.0, n=500)
    found = with_published(frame, (1, 2))
    np.testing.assert_array_equal(found["published"], [48.99, 63.40, np.nan])
    assert found["z"][0] == pytest.approx((50 - 48.99) / np.hypot(1, 1.22))
    assert np.isnan(found["z"][2])
    assert np.isnan(with_published(frame, (1,))["published"][1])  # AUPR1 stands in table 2
    caap = with_published(frame.drop(columns="method"), (1, 2))  # without the column, all are CAAP's
    np.testing.assert_array_equal(caap["published"], [42.67, 63.40, np.nan])
