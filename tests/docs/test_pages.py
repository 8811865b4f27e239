"""What the pages show is true: their code fits the package and runs, and is as wide as its box."""

import inspect
import re
import warnings
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

import caap_lab as cl
from tests.helpers.calls import check_calls
from tests.helpers.pages import DOCS, NOTEBOOKS, PAGES, ROOT, snippets, text_of
from tests.helpers.snippets import run_snippets

WIDTH = 100
"""Columns of code that fit into a box of the site in a window of 1400 pixels, see docs/site.css."""
QUICK = {"README.md", "start.md", "caap.md", "widgets.md", "image_sizes.md", "demo.md"}
"""Run by default; the others by `make slow`."""
ELSEWHERE = {"bring_your_model.md", "mechanisms.md"}
"""Run by tests of their own, which also look at what the snippets leave."""


def pages() -> list[object]:
    """Every page with snippets that run, the longer ones marked as slow."""
    found = [page for page in PAGES if page.name not in ELSEWHERE | {"index.md"} and snippets(page)]
    return [pytest.param(page, id=page.name, marks=() if page.name in QUICK else pytest.mark.slow) for page in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the photos that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    for name, scene in zip(("cat", "dog", "photo"), cl.demo_images("two", n=3, seed=0), strict=True):
        scene.image.save(tmp_path / f"{name}.jpg")
    return tmp_path


@pytest.mark.parametrize("page", pages())
def test_snippets_run(page: Path, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"transformers|peft|torch")
        run_snippets(page, at_least=1)
    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_fit_the_package(page: Path) -> None:
    for snippet in snippets(page):
        check_calls(snippet.code)


@pytest.mark.parametrize("page", (*PAGES, *NOTEBOOKS), ids=lambda page: page.name)
def test_code_is_no_wider_than_its_box(page: Path) -> None:
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            assert len(line) <= WIDTH, line


def test_a_number_and_its_error_stay_on_one_line() -> None:
    from docs import site_tables

    row = site_tables.on_page_markdown("8 ± 1\n\n| caap | 8 ± 1 |", {"docs_dir": str(DOCS)})
    assert row == "8 ± 1\n\n| caap | 8\u00a0±\u00a01 |"


def test_short_cells_are_marked() -> None:
    from docs import site_tables

    short, long = "<td><code>a &lt; b</code></td>", f"<td>{'a word ' * 5}</td>"
    page = site_tables.on_page_content(f"<tr>{short}{long}</tr>")
    assert page == "<tr>" + short.replace("<td>", '<td class="short">') + long + "</tr>"


def test_first_page_is_the_readme() -> None:
    names: dict[str, object] = {"__name__": "site_first_page", "__file__": str(DOCS / "site_first_page.py")}
    exec(compile((DOCS / "site_first_page.py").read_text(encoding="utf-8"), "site_first_page.py", "exec"), names)
    assert (DOCS / "index.md").read_text(encoding="utf-8") == names["first_page"](), (  # type: ignore[operator]
        "run python docs/site_first_page.py"
    )


def test_arguments_in_tables_are_the_functions() -> None:
    text = (DOCS / "loading.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| Argument of `load_model` .*?\n(?=\n)", text, re.DOTALL | re.MULTILINE)
    listed = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(set(inspect.signature(cl.load_model).parameters) - {"name"})


def test_generated_parts_are_made_from_the_package() -> None:
    from docs import site_generated

    marks = {
        name for page in DOCS.glob("*.md") for name in re.findall(r"<!-- generated: ([\w ]+) -->", page.read_text())
    }
    assert marks == set(site_generated.GENERATED)
    text = site_generated.on_page_markdown("<!-- generated: command line -->\n")
    assert "## caap-lab map" in text and "| `--target" in text and "%(default)s" not in text
    assert "None`" not in text and "|  |" not in text, "every argument has a name and a meaning"
    assert "| `cutoff` | `--cutoff` | `None` |" in site_generated.caap_settings()
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()[-1] in site_generated.changelog()


def test_lines_of_other_tools_are_counted() -> None:
    """The table of the page that compares tools has the lines of code of its blocks, without imports."""
    text = (DOCS / "compare.md").read_text(encoding="utf-8")
    rows = {row[1].strip(): row[3:] for row in (line.split("|") for line in text.splitlines()) if len(row) > 6}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        tool = section.split("\n", 1)[0]
        stated = [int(n) for cell in rows[tool] for n in re.findall(r"^ (\d+) lines?\b", cell)]
        blocks = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        counted = [sum(not re.match(r"import |from |$", line) for line in block.splitlines()) for block in blocks]
        assert sorted(stated) == sorted(counted), tool  # what sets a model up comes first in a section
