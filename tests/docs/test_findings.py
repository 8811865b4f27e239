"""What the page of findings says about methods on photographs is what the table of all numbers says."""

import re

import pandas as pd
import pytest

from tests.helpers.pages import DOCS

TABLE = pd.read_csv(DOCS / "tables" / "real_weights.csv")
MODELS = ("ViT-tiny", "DeiT-tiny")
DATA = ("ECSSD", "ImageNet validation")
PAGE = " ".join((DOCS / "findings.md").read_text(encoding="utf-8").split())


def verdicts(model: str, metric: str, data: str = "ECSSD") -> dict[str, str]:
    """Method to its verdict beside CAAP; CAAP itself has none."""
    rows = TABLE.query("data == @data and model == @model and metric == @metric")
    return dict(zip(rows["method"], rows["verdict"].fillna(""), strict=True))


def highest(model: str, metric: str, data: str) -> str:
    """The method with the highest mean."""
    rows = TABLE.query("data == @data and model == @model and metric == @metric")
    return str(rows.loc[rows["mean"].idxmax(), "method"])


def test_the_numbers_of_photos_are_those_of_the_table() -> None:
    stated = re.findall(r"(\d+) held-out photos of (ECSSD|ImageNet's validation set)", PAGE)
    assert [name for _, name in stated] == ["ECSSD", "ImageNet's validation set"]
    for (number, _), data in zip(stated, DATA, strict=True):
        assert set(TABLE.loc[TABLE["data"] == data, "n"]) == {int(number)}


@pytest.mark.parametrize("model", MODELS)
def test_no_method_is_better_in_aupr1(model: str) -> None:
    assert "no method is distinguishably better than CAAP in AUPR1" in PAGE
    assert "better" not in verdicts(model, "aupr1").values()


def test_who_is_better_in_insertion_minus_deletion() -> None:
    assert "Libra IxG+ has the highest mean on both models, and it and Gen-Att are better than CAAP on both" in PAGE
    both = [(model, data) for model in MODELS for data in DATA]
    assert {highest(model, "insdel", data) for model, data in both} == {"libra_ixg_plus"}
    better = [
        {name for name, one in verdicts(model, "insdel", data).items() if one == "better"} for model, data in both
    ]
    assert set.intersection(*better) == {"libra_ixg_plus", "gen_att"}


def test_cached_attention() -> None:
    assert "E-CAAP (cached attention) is worse than CAAP in both metrics on ViT-tiny, and not distinguishable" in PAGE
    assert all(verdicts("ViT-tiny", metric)["E-CAAP"] == "worse" for metric in ("insdel", "aupr1"))
    assert {verdicts("DeiT-tiny", metric)["E-CAAP"] for metric in ("insdel", "aupr1")} == {"not distinguishable"}


EXPENSIVE = pd.read_csv(DOCS / "tables" / "real_weights_expensive.csv")


def test_methods_of_many_passes() -> None:
    methods = " ".join((DOCS / "methods.md").read_text(encoding="utf-8").split())
    (photos,) = re.findall(r"the first (\d+) of the ECSSD photos", PAGE)
    assert set(EXPENSIVE["n"]) == {int(photos)} and f"the first {photos} of the same ECSSD photos (`python" in methods
    many = set(EXPENSIVE["method"]) - set(TABLE["method"]) - {"random"}
    assert "Eleven methods that take many passes" in PAGE and "Of the eleven methods that take many" in methods
    assert len(many) == 11
    rows = EXPENSIVE[EXPENSIVE["method"].isin(many)]

    def on_both(metric: str, verdict: str) -> set[str]:
        found = rows[(rows["metric"] == metric) & (rows["verdict"] == verdict)].groupby("method")["model"].nunique()
        return set(found.index[found == len(MODELS)])

    assert "TIS is better than CAAP in insertion minus deletion on both models, MDA on DeiT-tiny, and none" in PAGE
    assert "only TIS is better than CAAP in InsDel on both models, MDA, which takes the most, on DeiT-tiny" in methods
    better = rows[(rows["metric"] == "insdel") & (rows["verdict"] == "better")]
    assert set(better["method"]) == {"tis", "mda"}
    assert set(better.loc[better["method"] == "mda", "model"]) == {"DeiT-tiny"}
    assert on_both("insdel", "better") == {"tis"}
    assert "better" not in set(rows.loc[rows["metric"] == "aupr1", "verdict"])
    assert "six are worse on both: Simple Insertion and Deletion, occlusion, RISE, integrated gradients and" in methods
    assert on_both("aupr1", "worse") == {
        *("simple_insertion", "simple_deletion", "occlusion", "rise:samples=1000", "integrated_gradients", "atman")
    }


LARGE = pd.read_csv(DOCS / "tables" / "real_weights_large.csv")


def large(metric: str) -> dict[str, str]:
    """Method to its verdict beside CAAP, on CLIP."""
    rows = LARGE[LARGE["metric"] == metric]
    return dict(zip(rows["method"], rows["verdict"].fillna(""), strict=True))


def test_the_larger_model() -> None:
    (photos,) = re.findall(r"(\d+) of these photos of ECSSD", PAGE)
    assert set(LARGE["n"]) == {int(photos)}
    assert "CAAP has the highest mean in insertion minus deletion" in PAGE
    insdel = LARGE[LARGE["metric"] == "insdel"]
    assert insdel.loc[insdel["mean"].idxmax(), "method"] == "caap"
    assert "no method is distinguishably better in either metric" in PAGE
    assert "better" not in {*large("insdel").values(), *large("aupr1").values()}
    assert "Libra IxG+ and Gen-Att, which are better than CAAP on the small models, are not better there" in PAGE
    assert all(large("aupr1")[method] == "worse" for method in ("libra_ixg_plus", "gen_att"))
    assert "LeGrad, E-CAAP, TAM and Transformer Attribution are not distinguishable from CAAP in either metric" in PAGE
    for method in ("legrad", "E-CAAP", "tam", "transformer_attribution"):
        assert large("insdel")[method] == large("aupr1")[method] == "not distinguishable"


def test_settings() -> None:
    table = (DOCS / "tables" / "settings.md").read_text(encoding="utf-8")
    (photos,) = re.findall(r"With (\d+) photos and two small models, no conclusion", PAGE)
    assert f"Photos: {photos} for calibration; {photos} others, with masks, for metrics" in table
    assert "no conclusion about CAAP and the five closest methods turns into the opposite" in PAGE
    rows = re.findall(r"^\| \w+-tiny \| .+ / (\d+) of 7 \| .+ of 3 \| .+ / (\d+) of 5 \|$", table, re.MULTILINE)
    assert rows == [("0", "0")] * 20  # methods, metrics and models; plain blanks and ranges
    assert "The paper's rule chooses 8 of 12 blocks" in PAGE and "rule: 8/12 of the blocks" in table
