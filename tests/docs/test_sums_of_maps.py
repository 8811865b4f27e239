"""What the page of methods says about rank sums on photographs is what the table of all numbers says."""

import pandas as pd
import pytest

from tests.helpers.pages import DOCS

TABLE = pd.read_csv(DOCS / "tables" / "directions.csv")
PAGE = " ".join((DOCS / "methods.md").read_text(encoding="utf-8").split())
_LARGE = pd.read_csv(DOCS / "tables" / "directions_large.csv")
LARGE = _LARGE[_LARGE["protocol"] == "rise"].set_index(["target", "method", "metric"]).sort_index()
MODELS = ("ViT-tiny", "DeiT-tiny")
CONVENTIONS = ("rise", "xplique", "mutex", "tis")
LIBRA, T_ATTR, REMOVE = "libra_ixg_plus", "transformer_attribution", "caap:direction=remove"
LATER = f"{LIBRA}:start_layer=8"


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


def test_a_later_start_gives_more_on_the_object() -> None:
    assert "better than CAAP in the same metrics, conventions and models" in PAGE
    later, first = of("caap", LATER), of("caap", LIBRA)
    assert verdicts(later, "insdel") == ["better"] * len(MODELS) * len(CONVENTIONS)
    assert verdicts(later, "aupr1") == ["better"] * len(MODELS)
    assert "It gains more in AUPR1 than the sum with Libra IxG+ from the first block on, and on DeiT-tiny less" in PAGE
    gains = TABLE.set_index(["metric", "model", "method", "protocol"])["difference"].sort_index()
    lead = {metric: gains[metric].xs(later, level="method") - gains[metric].xs(first, level="method")
            for metric in ("insdel", "aupr1")}  # fmt: skip
    assert (lead["aupr1"] > 0).all() and (lead["insdel"]["DeiT-tiny"] < 0).all()
    assert lead["insdel"]["ViT-tiny"].mean() > 0


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
    sums = [of("caap", LIBRA), of("caap", LATER), of("caap", T_ATTR), of("caap", REMOVE), of(LIBRA, T_ATTR)]
    assert all("better" not in verdicts(method, "saco") for method in sums)


def test_on_clip_what_is_explained_matters() -> None:
    assert "Libra IxG+, T-Attr and CAAP's removal are far behind CAAP in AUPR1" in PAGE
    for method in (LIBRA, T_ATTR, REMOVE):
        own = LARGE.loc[("logit", method, "aupr1")]
        assert own["verdict"] == "worse" and own["difference"] < -15
    assert "most of that gap is gone, and T-Attr is not distinguishable from CAAP any more" in PAGE
    gaps = [LARGE.loc[(t, [LIBRA, T_ATTR, REMOVE], "aupr1"), "difference"].sum() for t in ("prediction", "logit")]
    assert gaps[0] / gaps[1] < 0.5
    assert LARGE.loc[("prediction", T_ATTR, "aupr1"), "verdict"] == "not distinguishable"
    assert "CAAP itself hardly changes" in PAGE
    caap = [LARGE.loc[(target, "caap", "aupr1")] for target in ("prediction", "logit")]
    assert abs(caap[0]["mean"] - caap[1]["mean"]) < caap[0]["se"]


def test_on_clip_a_sum_needs_the_right_part() -> None:
    later = of("caap", LATER)
    assert "is better in AUPR1 and, under two of four conventions, in insertion minus deletion" in PAGE
    assert LARGE.loc[("prediction", later, "aupr1"), "verdict"] == "better"
    insdel = _LARGE[(_LARGE["target"] == "prediction") & (_LARGE["metric"] == "insdel")].set_index("method")
    assert set(insdel["protocol"]) == set(CONVENTIONS)
    better = insdel[insdel["verdict"] == "better"]["protocol"]
    assert len(better.loc[[later]]) == 2
    assert "under the other two it gains about as much, but not distinguishably" in PAGE
    gains = insdel.loc[later, "difference"]
    assert gains.min() > gains.max() / 2
    assert "The sum with T-Attr is better in AUPR1 and under one convention, the sum of both directions under" in PAGE
    assert len(better.loc[[of("caap", T_ATTR)]]) == len(better.loc[[of("caap", REMOVE)]]) == 1
    assert set(better.loc[[of("caap", T_ATTR)]]).isdisjoint(better.loc[[of("caap", REMOVE)]])
    assert set(better.index) == {later, of("caap", T_ATTR), of("caap", REMOVE)}
    assert LARGE.loc[("prediction", of("caap", T_ATTR), "aupr1"), "verdict"] == "better"
    assert "The default sum is not better" in PAGE
    default = [LARGE.loc[("prediction", of("caap", LIBRA), metric), "verdict"] for metric in ("insdel", "aupr1")]
    assert default == ["not distinguishable"] * 2
    assert "On own logits no sum is distinguishably better than CAAP." in PAGE
    own = LARGE.loc["logit"].reset_index()
    sums = own[own["method"].str.startswith("rank_sum") & own["metric"].isin(["insdel", "aupr1"])]
    assert len(sums) and "better" not in set(sums["verdict"])


def test_on_clip_saco_is_highest_for_t_attr() -> None:
    assert "is again highest for T-Attr, and no sum raises it distinguishably." in PAGE
    saco = _LARGE[_LARGE["metric"] == "saco"].set_index("method")
    assert saco["mean"].idxmax() == T_ATTR
    assert list(saco.index[saco["verdict"] == "better"]) == [T_ATTR]
