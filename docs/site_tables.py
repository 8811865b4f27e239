"""Puts measured tables into the pages of the site, where each page has a link to one on a line of its own.

Elsewhere (in JupyterLab, on the repository's page) the same line is a link that opens the table.
"""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"^\[Table\]\((tables/\w+\.md)\)$", re.MULTILINE)
_ROW = re.compile(r"^\|.*", re.MULTILINE)


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Replace each link to a table by the table; called by MkDocs for each page."""
    folder = Path(config["docs_dir"])
    return whole_numbers(_LINK.sub(lambda link: (folder / link[1]).read_text(encoding="utf-8"), markdown))


def whole_numbers(markdown: str) -> str:
    """The text with no-break spaces around the plus-minus signs of tables: no cell parts a number from its error."""
    return _ROW.sub(lambda row: row[0].replace(" ± ", "\u00a0±\u00a0"), markdown)
