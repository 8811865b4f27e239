"""Pages that the site has of the notebooks: outputs, links, and the file to download."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """The hook of MkDocs, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("site_notebooks", ROOT / "docs" / "site_notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(*outputs: dict[str, Any], text: str = "# Title\nWords.") -> dict[str, Any]:
    code = {"cell_type": "code", "source": ["x = 1\n", "x"], "outputs": list(outputs)}
    return {"cells": [{"cell_type": "markdown", "source": text}, code]}


def test_page_has_code_outputs_and_the_file(site: ModuleType) -> None:
    outputs = (
        {"output_type": "stream", "name": "stdout", "text": ["one\n"]},
        {"output_type": "stream", "name": "stdout", "text": "two\n"},
        {"output_type": "execute_result", "data": {"text/html": "<table>\n\n  <tr></tr></table>", "text/plain": "x"}},
        {"output_type": "display_data", "data": {"image/png": PIXEL, "text/plain": "x"}},
    )
    page, pictures = site.page_of("07_name", notebook(*outputs))
    assert page.startswith("# Title\n\n[Download this notebook](07_name.ipynb){ download }\n\nWords.")
    assert "````python\nx = 1\nx\n````" in page and "````text\none\ntwo\n````" in page
    assert "<table>\n<tr></tr></table>" in page, "an empty line would end the HTML"
    ((name, png),) = pictures.items()
    assert f"]({name})" in page and png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("place", "link", "expected"),
    [
        ("notebooks/00_tour.ipynb", "../docs/caap.md#cutoff", "../caap.md#cutoff"),
        ("notebooks/00_tour.ipynb", "01_quickstart.ipynb", "01_quickstart.md"),
        ("notebooks/00_tour.ipynb", "https://example.org/a.ipynb", "https://example.org/a.ipynb"),
        ("docs/widgets.md", "../notebooks/06_widgets.ipynb", "notebooks/06_widgets.md"),
        ("docs/guides/page.md", "../../notebooks/06_widgets.ipynb", "../notebooks/06_widgets.md"),
        ("docs/widgets.md", "images/widgets/map.png", "images/widgets/map.png"),
        ("docs/widgets.md", "../CHANGELOG.md", "../CHANGELOG.md"),
    ],
)
def test_links_become_those_of_the_site(site: ModuleType, place: str, link: str, expected: str) -> None:
    assert site.site_links(f"[words]({link}).", place) == f"[words]({expected})."


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_notebooks_lead_to_pages_of_the_site(site: ModuleType, path: Path) -> None:
    page, pictures = site.page_of(path.stem, json.loads(path.read_text(encoding="utf-8")))
    names = {other.stem for other in NOTEBOOKS}
    text = re.sub(r"````.*?````", "", page, flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if link.startswith("../"):
            assert (ROOT / "docs" / link.removeprefix("../")).is_file(), link
        elif "://" not in link:
            assert link in pictures or (Path(link).stem in names and Path(link).suffix in (".md", ".ipynb")), link


def test_only_outputs_of_the_present_code_are_shown(
    site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(site, "EXECUTED", tmp_path / "executed")
    (tmp_path / "executed").mkdir()
    path, copy = tmp_path / "00_a.ipynb", tmp_path / "executed" / "00_a.ipynb"
    output = {"output_type": "stream", "name": "stdout", "text": "said"}
    path.write_text(json.dumps(notebook(text="# Reworded")), encoding="utf-8")
    copy.write_text(json.dumps(notebook(output)), encoding="utf-8")
    page, _ = site.page_of("00_a", site.notebook_with_outputs(path))
    assert "said" in page and "# Reworded" in page and not caplog.records

    changed = json.loads(path.read_text(encoding="utf-8").replace("x = 1", "x = 2"))
    path.write_text(json.dumps(changed), encoding="utf-8")
    page, _ = site.page_of("00_a", site.notebook_with_outputs(path))
    assert "said" not in page and "python -m experiments.site_notebooks" in caplog.text


def test_executed_notebooks_stay_out_of_the_package(site: ModuleType) -> None:
    """The wheel takes docs/ and notebooks/ whole."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert site.EXECUTED.relative_to(ROOT).parts[0] == "runs" and {"runs", "runs/", "/runs/"} & set(ignored)
