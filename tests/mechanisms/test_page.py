"""The page "From maps to mechanisms": its snippets run, in order, and what it says of their results holds."""

from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from caap_lab.data.scenes import CUE_CLASS
from tests.helpers.snippets import run_snippets


def test_the_snippets_of_the_page_run_and_give_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: Any = run_snippets("mechanisms.md", at_least=14)
    plt.close("all")
    assert capsys.readouterr().out.count("InteractionCheck: ") == 2
    np.testing.assert_allclose(names["parts"].total, names["parts"].score, atol=1e-4)
    assert names["found"].difference(names["found"])["p"].min() == 1  # no difference
    assert names["gone"].replacement == "mean over 4 images"
    # The model says the planted cue's class, and its heads are ranked by estimates as they are by runs.
    assert (names["spoilt"](names["spoilt"].preprocess(names["clean"])).argmax(1) == CUE_CLASS).all()
    assert names["agreement"].mean.item() > 0.8
    assert names["chain"].edges(None).shape[0] == 20
    assert names["calm"].spec.prefix == ("cls", "reg")
    assert names["features"].explained > 0.99
