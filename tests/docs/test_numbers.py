"""Numbers in sentences of the pages stand in a table that the same page shows, or in the list below."""

import re
from pathlib import Path

import pytest

from tests.helpers.pages import DOCS, PAGES, prose, with_tables

STATED: dict[str, str] = {
    "caap.md": "0.85 0.74 0.96 0.91 0.98 0.97",  # measured once: cached attention
    "compare.md": "2.4",  # NumPy
    "diagnostics.md": "0.07 0.55 0.36 0.05 0.12 0.10 0.49",  # of the bundled model
    "figures.md": "6.9",  # inches of a page
    "loading.md": "0.93 0.95 0.96",  # quantised weights
    "mechanisms.md": "0.125 4.3",  # 2 / 2 to the power of 4; a version
    "methods.md": "0.66",  # of rollout's start
    "overlays.md": "0.60 0.61",  # an example
    "speed.md": "2.11 5.1 4.5 3.8 1.9 0.5 0.4 0.8 0.6",  # a version, the GPU's run, roundings of its tables
}
"""What no table has: versions, sizes, examples, and measurements that are kept nowhere else."""


def decimals(text: str) -> set[str]:
    """Decimal numbers; not versions of licences and Python, nor arXiv's identifiers."""
    text = re.sub(r"CC BY 2\.0|Python 3\.\d+|\d{4}\.\d{4,5}|\d+\.\d+\.\d+", "", text)
    return set(re.findall(r"\d+\.\d+", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_in_sentences_are_those_of_a_table(page: Path) -> None:
    rows = "\n".join(line for line in with_tables(page).splitlines() if line.startswith("|"))
    unknown = decimals(prose(page.read_text(encoding="utf-8"))) - decimals(rows)
    unknown -= set(STATED.get(page.name, "").split())
    assert not unknown, f"{page.name} states {sorted(unknown)}, which no table of the page has"


def test_listed_pages_are_there() -> None:
    assert set(STATED) <= {page.name for page in DOCS.glob("*.md")}
