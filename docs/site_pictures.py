"""Shows the dark form of a picture in the site's dark scheme, where there is one beside it: `NAME_dark.png`.

Pages name the light one alone, so that JupyterLab and the repository's page show it once.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
_PICTURE = re.compile(r"!\[([^\]]*)\]\(((?:[./]+/)?images/ideas/\w+)\.png\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put both forms of a picture in its place; called by MkDocs for each page."""
    return with_dark_forms(markdown, posixpath.dirname(page.file.src_uri))


def with_dark_forms(markdown: str, folder: str) -> str:
    """A page's text with both forms of each picture of an idea, of which the reader's scheme shows one.

    Args:
        markdown: The text.
        folder: Of the page within docs.
    """

    def both(picture: re.Match[str]) -> str:
        words, path = picture.groups()
        if not (DOCS / posixpath.normpath(posixpath.join(folder, f"{path}_dark.png"))).exists():
            return picture[0]
        return f"![{words}]({path}.png#only-light) ![{words}]({path}_dark.png#only-dark)"

    return _PICTURE.sub(both, markdown)
