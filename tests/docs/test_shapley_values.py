"""What the pages say about Shapley values is what their table says."""

import re

import pandas as pd

from tests.helpers.pages import DOCS

METHODS = " ".join((DOCS / "methods.md").read_text(encoding="utf-8").split())
FINDINGS = " ".join((DOCS / "findings.md").read_text(encoding="utf-8").split())
BLANKS = ["white", "mean"]
SUMS = ("rank_sum", 'rank_sum:first="caap:neighbourhood=none",second=libra_ixg_plus')
REMOVAL = ("occlusion", "simple_deletion", "caap:direction=remove")


def table(model: str) -> pd.DataFrame:
    """Mean correlation by method with the values of each blank, photos `n`, and whether it differs from CAAP's."""
    text = (DOCS / "tables" / "shapley.md").read_text(encoding="utf-8")
    part = re.split(r"^\*\*", text, flags=re.MULTILINE)
    lines = next(one for one in part if one.startswith(f"{model}**")).splitlines()
    rows = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 4 and cells[1].isdigit():
            numbers = {blank: float(cell.split(" ±")[0]) for blank, cell in zip(BLANKS, cells[2:], strict=True)}
            rows[cells[0].strip("`")] = {
                "n": int(cells[1]),
                **numbers,
                "differs": "*)" in cells[2] and "*)" in cells[3],
            }
    return pd.DataFrame(rows).T


def methods_of(found: pd.DataFrame) -> pd.DataFrame:
    return found[~found.index.str.startswith("Shapley")]


def test_the_small_model() -> None:
    assert "with 64 photos, AttnLRP and Libra IxG+ are closer than CAAP alone" in METHODS
    assert (
        "on a small CIFAR model and 64 photos, AttnLRP, Libra IxG+ and rank sums of CAAP with it come closer"
        in FINDINGS
    )
    found = table("CIFAR-10 ViT")
    assert set(found["n"]) == {64}
    for method in ("attn_lrp", "libra_ixg_plus", *SUMS):
        assert found.loc[method, "differs"] and (found.loc[method, BLANKS] > found.loc["caap", BLANKS]).all()


def test_vit_tiny() -> None:
    assert "with 8 photos no difference can pass the correction" in METHODS
    assert "CAAP is as close as Libra IxG+, AttnLRP and occlusion are further away" in FINDINGS
    found = table("ViT-tiny")
    assert set(found["n"]) == {8} and not found["differs"].any()
    assert 2 / 2**8 * 2 * (len(methods_of(found)) - 1) > 0.05  # of all sign flips, two are as extreme
    assert (abs((found.loc["libra_ixg_plus", BLANKS] - found.loc["caap", BLANKS]).astype(float)) < 0.04).all()
    for method in (*REMOVAL, "attn_lrp"):
        assert (found.loc[method, BLANKS] < found.loc["caap", BLANKS] - 0.1).all()


def test_sums_come_closest_on_both() -> None:
    assert "Rank sums of CAAP and Libra IxG+ come closest on both, on average" in METHODS
    for model in ("CIFAR-10 ViT", "ViT-tiny"):
        assert methods_of(table(model))[BLANKS].mean(axis=1).astype(float).idxmax() in SUMS


def test_the_blank_matters() -> None:
    assert "the values of two blanks agree less than two estimates for the same blank" in METHODS
    for model in ("CIFAR-10 ViT", "ViT-tiny"):
        found = table(model)
        assert (
            found.loc["Shapley values with the blank white", "mean"]
            < found.loc["Shapley values with the blank white", "white"]
        )
