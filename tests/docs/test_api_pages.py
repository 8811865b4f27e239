"""The pages of the API have every public name, once, and the page of all names leads to each."""

import re

import caap_lab as cl
from docs.site_generated import API, python_names
from tests.helpers.pages import DOCS


def _entries() -> list[str]:
    text = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in API)
    return re.findall(r"^::: caap_lab\.(\S+)$", text, re.MULTILINE)


def test_every_public_name_has_one_entry() -> None:
    entries = _entries()
    assert len(entries) == len(set(entries))
    missing = {name for name in dir(cl) if not name.startswith("_")} - set(entries) - {"widgets"}
    assert not missing, "put them into a page of docs/api"


def test_every_page_of_the_folder_is_on_the_site() -> None:
    assert {f"api/{path.name}" for path in (DOCS / "api").glob("*.md")} == set(API)


def test_all_names_are_listed_with_their_first_line() -> None:
    text = python_names()
    assert "| [`caap`](api/attribution.md#caap_lab.caap){ #caap_lab.caap } | Causal Attribution via" in text
    constants = {"metrics.protocol.PROTOCOLS", "metrics.bases.BASES"}
    assert set(re.findall(r"\{ #caap_lab\.(\S+) \}", text)) == set(_entries()) - constants
    assert "None |" not in text
