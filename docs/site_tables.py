"""Puts measured tables into the pages of the site, where each page has a link to one on a line of its own.

Elsewhere (in JupyterLab, on the repository's page) the same line is a link that opens the table. Browsers break cells
where no reader would, so short cells are marked, and the style sheet keeps them on one line.
"""

import re
from html import unescape
from pathlib import Path
from typing import Any

_LINK = re.compile(r"^\[Table\]\((tables/\w+\.md)\)$", re.MULTILINE)
_ROW = re.compile(r"^\|.*", re.MULTILINE)
_CELL = re.compile(r"<td([^>]*)>(.*?)</td>", re.DOTALL)
_SHORT = 24
"""Characters of a cell that stays on one line."""


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Replace each link to a table by the table; called by MkDocs for each page."""
    folder = Path(config["docs_dir"])
    return whole_numbers(_LINK.sub(lambda link: (folder / link[1]).read_text(encoding="utf-8"), markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Mark the short cells of tables, which docs/site.css keeps on one line; called by MkDocs for each page."""
    return _CELL.sub(lambda cell: _marked(cell[0], *cell.groups()), html)


def _marked(cell: str, attributes: str, inside: str) -> str:
    short = len(unescape(re.sub("<[^>]+>", "", inside)).strip()) <= _SHORT
    return f'<td class="short"{attributes}>{inside}</td>' if short and "class=" not in attributes else cell


def whole_numbers(markdown: str) -> str:
    """The text with no-break spaces around the plus-minus signs of tables: no cell parts a number from its error."""
    return _ROW.sub(lambda row: row[0].replace(" ± ", "\u00a0±\u00a0"), markdown)
