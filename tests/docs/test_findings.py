"""What the page of findings says about methods on photographs is what the table of all numbers says."""

import re

import pandas as pd
import pytest

from tests.helpers.pages import DOCS

TABLE = pd.read_csv(DOCS / "tables" / "real_weights.csv")
MODELS = ("ViT-tiny", "DeiT-tiny")
PAGE = " ".join((DOCS / "findings.md").read_text(encoding="utf-8").split())


def verdicts(model: str, metric: str) -> dict[str, str]:
    """Method to its verdict beside CAAP on ECSSD; those without one are not distinguishable from it."""
    rows = TABLE.query("data == 'ECSSD' and model == @model and metric == @metric")
    return dict(zip(rows["method"], rows["verdict"].fillna(""), strict=True))


def highest(model: str, metric: str) -> str:
    """The method with the highest mean on ECSSD."""
    rows = TABLE.query("data == 'ECSSD' and model == @model and metric == @metric")
    return str(rows.loc[rows["mean"].idxmax(), "method"])


def test_the_number_of_photos_is_the_tables() -> None:
    (stated,) = re.findall(r"On (\d+) held-out photos of ECSSD", PAGE)
    assert set(TABLE.query("data == 'ECSSD'")["n"]) == {int(stated)}


@pytest.mark.parametrize("model", MODELS)
def test_no_method_is_better_in_aupr1(model: str) -> None:
    assert "no method is distinguishably better than CAAP in AUPR1" in PAGE
    assert "better" not in verdicts(model, "aupr1").values()


def test_who_is_better_in_insertion_minus_deletion() -> None:
    assert "Libra IxG+ has the highest mean on both models" in PAGE
    assert {highest(model, "insdel") for model in MODELS} == {"libra_ixg_plus"}
    better = [{name for name, verdict in verdicts(model, "insdel").items() if verdict == "better"} for model in MODELS]
    assert "and it and Gen-Att are better than CAAP on both" in PAGE
    assert set.intersection(*better) == {"libra_ixg_plus", "gen_att"}


def test_cached_attention() -> None:
    assert "E-CAAP (cached attention) is worse than CAAP in both on ViT-tiny, and not distinguishable from it" in PAGE
    assert all(verdicts("ViT-tiny", metric)["E-CAAP"] == "worse" for metric in ("insdel", "aupr1"))
    assert not {verdicts("DeiT-tiny", metric)["E-CAAP"] for metric in ("insdel", "aupr1")} & {"better", "worse"}
