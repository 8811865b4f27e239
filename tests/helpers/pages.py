"""Pages of the documentation: their snippets, prose, headings and links."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))

_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_SNIPPET = re.compile(r"^(?:<!-- not run: (.+?) -->\n)?```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r"^\[Table\]\((tables/\w+\.md)\)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A block of Python in a page; `not_run` says why it is only read, empty where it runs."""

    code: str
    not_run: str


def snippets(page: Path) -> list[Snippet]:
    """Blocks of Python; the comment `<!-- not run: needs weights -->` above one marks it, unseen by readers."""
    return [Snippet(found[2], found[1] or "") for found in _SNIPPET.finditer(page.read_text(encoding="utf-8"))]


def prose(text: str) -> str:
    """A page without blocks of code, code in lines, tables, comments and the targets of links."""
    text = re.sub(r"<!--.*?-->", "", _BLOCK.sub("", text), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
    return re.sub(r"`[^`]*`|\]\([^)]*\)|https?://\S+", "", "\n".join(lines), flags=re.DOTALL)


def with_tables(page: Path) -> str:
    """A page's text with the measured tables that it shows."""
    text = page.read_text(encoding="utf-8")
    return _TABLE.sub(lambda link: (DOCS / link[1]).read_text(encoding="utf-8"), text)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as the site makes them."""
    text, found = _BLOCK.sub("", with_tables(path)), set[str]()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[`*]|\]\([^)]*\)", "", heading)
        plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        slug = stem = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        number = 0
        while slug in found:
            number += 1
            slug = f"{stem}_{number}"
        found.add(slug)
    return found


def text_of(path: Path) -> str:
    """A page, or the texts of a notebook, each ended by a line break."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "".join(f"{cell.source}\n" for cell in nbformat.reads(text, 4).cells if cell.cell_type == "markdown")


def links(path: Path) -> Iterator[str]:
    """The targets of links and pictures in a page or in a notebook's texts, but for those into the web."""
    for link in re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", text_of(path))):
        if not re.match(r"\w+:", link):
            yield link
