"""What the page of methods says about rank sums on photographs is what the table of all numbers says."""

import pandas as pd
import pytest

from tests.helpers.pages import DOCS

TABLE = pd.read_csv(DOCS / "tables" / "directions.csv")
PAGE = " ".join((DOCS / "methods.md").read_text(encoding="utf-8").split())
MODELS = ("ViT-tiny", "DeiT-tiny")
CONVENTIONS = ("rise", "xplique", "mutex", "tis")
LIBRA, T_ATTR, REMOVE = "libra_ixg_plus", "transformer_attribution", "caap:direction=remove"


def verdicts(method: str, metric: str) -> list[str]:
    """Verdicts of a method beside CAAP, one per model and convention."""
    rows = TABLE[(TABLE["method"] == method) & (TABLE["metric"] == metric)]
    return list(rows["verdict"])


def of(first: str, second: str) -> str:
    """The method's name in the table."""
    return f"rank_sum:first={first},second={second}"


def test_the_table_has_all_conventions_of_both_models() -> None:
    rows = TABLE[TABLE["metric"] == "insdel"]
    assert set(zip(rows["model"], rows["protocol"], strict=True)) == {(m, c) for m in MODELS for c in CONVENTIONS}


@pytest.mark.parametrize("second", [LIBRA, T_ATTR])
def test_sums_of_two_good_maps_are_better(second: str) -> None:
    assert "The sums of CAAP with Libra IxG+ and with T-Attr are better than CAAP in AUPR1, and in insertion" in PAGE
    assert verdicts(of("caap", second), "insdel") == ["better"] * len(MODELS) * len(CONVENTIONS)
    assert verdicts(of("caap", second), "aupr1") == ["better"] * len(MODELS)


def test_the_sum_of_both_directions_is_not() -> None:
    assert "it is distinguishable from CAAP under one convention on one model only, and its AUPR1 is lower." in PAGE
    assert verdicts(of("caap", REMOVE), "insdel").count("not distinguishable") == len(MODELS) * len(CONVENTIONS) - 1
    assert set(verdicts(of("caap", REMOVE), "aupr1")) == {"worse"}


def test_a_sum_without_caap_gains_as_well() -> None:
    assert "Libra IxG+ and T-Attr, of which neither is measured in a blank, gains as much." in PAGE
    ours, theirs = (
        TABLE[(TABLE["method"] == method) & (TABLE["metric"] == "insdel")].set_index(["model", "protocol"])
        for method in (of("caap", LIBRA), of(LIBRA, T_ATTR))
    )
    lag = ours["difference"] - theirs["difference"]
    assert (lag < 2 * theirs["difference_se"]).all()
    assert set(verdicts(of(LIBRA, T_ATTR), "insdel")) == {"better"}


def test_the_removal_map_alone() -> None:
    assert "its AUPR1 is far below CAAP's" in PAGE
    rows = TABLE[(TABLE["method"] == REMOVE) & (TABLE["metric"] == "aupr1")]
    assert set(rows["verdict"]) == {"worse"} and (rows["difference"] < -10).all()


def test_sums_do_not_raise_saco() -> None:
    assert "Libra IxG+ and T-Attr are better than CAAP in it on both models; the sums are not." in PAGE
    assert all(set(verdicts(method, "saco")) == {"better"} for method in (LIBRA, T_ATTR))
    sums = [of("caap", LIBRA), of("caap", T_ATTR), of("caap", REMOVE), of(LIBRA, T_ATTR)]
    assert all("better" not in verdicts(method, "saco") for method in sums)
