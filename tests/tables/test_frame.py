"""Data frames and tables as Jupyter shows them."""

import pickle
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from caap_lab.tables.frame import Frame
from caap_lab.tables.html import html_table


class Cells(HTMLParser):
    """The text of each cell, row by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def shown(frame: pd.DataFrame) -> list[list[str]]:
    return Cells(frame._repr_html_()).rows  # type: ignore[operator]


def test_missing_values_say_what_they_stand_for() -> None:
    frame = Frame({"blank": ["white", "black"], "mean": [61.939032, 60.645507], "difference": [np.nan, -1.293526]})
    said = frame.saying(difference="default")
    assert shown(said) == [
        ["blank", "mean", "difference"],
        ["white", "61.94", "default"],
        ["black", "60.65", "-1.294"],
    ]
    for made in (said[said["mean"] > 0], said.copy(), said.reset_index(drop=True), pickle.loads(pickle.dumps(said))):
        assert shown(made) == shown(said)
    assert np.isnan(said["difference"][0]) and isinstance(said, pd.DataFrame)  # numbers stay what they are
    assert shown(frame[["blank", "mean"]])[1] == ["white", "61.94"]


def test_cells_are_short_and_never_break() -> None:
    frame = Frame(
        {
            "scores": [[-2.240945] * 64, [0.5]],
            "name": ["<b>\nx", None],
            "zero": [-0.00001, 12.0],
            "tiny": [1e-9, 2e-9],
            "n": [3.0, np.nan],
        },
        index=["a", "b"],
    )
    head, first, second = shown(frame)
    assert head == ["", "scores", "name", "zero", "tiny", "n"]
    assert len(first[1]) <= 48 and first[1].endswith("…") and second[1] == "[0.5]"
    assert first[2:] == ["<b> x", "0.00", "1e-09", "3"] and second[2:] == ["", "12.00", "2e-09", ""]
    page = frame._repr_html_()
    assert "<b>" not in page and all("white-space: nowrap" in tag for tag in re.findall(r"<t[dh] [^>]*>", page))


def test_all_columns_are_there_and_rows_as_pandas_has_them() -> None:
    wide = Frame(np.ones((3, 40)))
    assert len(shown(wide)[0]) == 40 and "overflow-x: auto" in wide._repr_html_()
    long = Frame({"a": range(1000)})
    rows = [cell for (cell,) in shown(long)]
    assert rows == ["a", "0", "1", "2", "3", "4", "⋮", "995", "996", "997", "998", "999"]
    assert "1000 rows" in long._repr_html_()
    assert shown(Frame(columns=["a", "b"])) == [["a", "b"]]


def test_a_table_says_what_it_is() -> None:
    page = html_table(["Method", "InsDel"], [["caap", "50.38 ± 4.86"]], caption='in "percent" <b>')
    assert Cells(page).rows == [["Method", "InsDel"], ["caap", "50.38 ± 4.86"]]
    assert 'aria-label="in &quot;percent&quot; &lt;b&gt;"' in page and page.startswith("<div>in ")


def test_named_indices_are_columns() -> None:
    flat = Frame({"metric": ["insdel", "insdel"], "cutoff": [0, 1], "mean": [1.5, 2.5]})
    assert shown(flat.set_index("cutoff")[["mean"]]) == [["cutoff", "mean"], ["0", "1.500"], ["1", "2.500"]]
    assert shown(flat.set_index(["metric", "cutoff"])) == [
        ["metric", "cutoff", "mean"],
        ["insdel", "0", "1.500"],
        ["insdel", "1", "2.500"],
    ]
    assert shown(flat.set_index(["metric", "cutoff"])[[]]) == [["metric", "cutoff"], ["insdel", "0"], ["insdel", "1"]]
