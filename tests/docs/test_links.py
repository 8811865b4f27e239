"""Every link of the pages, the notebooks and the texts beside them leads to a file, and to a heading in it."""

import re
from pathlib import Path

import pytest

from tests.helpers.pages import DOCS, NOTEBOOKS, PAGES, ROOT, anchors, links

BESIDE = tuple(
    ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "figures/README.md", "experiments/README.md")
)


@pytest.mark.parametrize("path", (*PAGES, *BESIDE, *NOTEBOOKS), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@pytest.mark.parametrize("path", (*PAGES, ROOT / "CHANGELOG.md", *NOTEBOOKS), ids=lambda path: path.name)
def test_pages_name_no_table_that_the_site_has_only_inside_a_page(path: Path) -> None:
    shown = re.sub(r"(?m)^\[Table\]\(tables/\w+\.md\)$", "", path.read_text(encoding="utf-8"))
    assert not re.findall(r"\]\([^)\s]*tables/\w+\.md", shown)


def test_pages_that_the_package_names_are_there() -> None:
    for path in (ROOT / "caap_lab").rglob("*.py"):
        for name in re.findall(r"\bdocs/[\w/]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"


def test_every_page_stands_in_the_order_of_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = re.findall(r"(?m)^ +- .*?([\w/]+\.md)$", text.partition("nav:")[2].partition("plugins:")[0])
    assert len(nav) == len(set(nav))
    assert {page.name for page in DOCS.glob("*.md")} == {name for name in nav if "/" not in name}


def test_old_addresses_stay() -> None:
    old = "start patching caap sweeps settings speed methods overlays benchmark paper figures mechanisms diagnostics"
    for name in (*old.split(), *["widgets", "bring_your_model", "loading", "image_sizes", "data", "demo", "api"]):
        assert (DOCS / f"{name}.md").is_file(), name
