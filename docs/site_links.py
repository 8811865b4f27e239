"""Checks the built site: every link, picture and anchor of a page leads to something in the site.

MkDocs checks the links of its pages' Markdown; this reads the pages as a browser gets them, so that it also sees those
of generated texts, tables in HTML and notebooks.
"""

import logging
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

HERE = "http://site/"
log = logging.getLogger("mkdocs.hooks.site_links")


def on_post_build(config: Any, **_: Any) -> None:
    """Warn of each broken link; called by MkDocs once the site is written."""
    for found in broken_links(Path(config["site_dir"])):
        log.warning(found)


def broken_links(site: Path) -> list[str]:
    """What does not lead anywhere, as `PAGE: LINK`."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are from the root of a server
            continue
        place = HERE + path.relative_to(site).as_posix()
        for link in page.links:
            address = urlsplit(urljoin(place, link))
            if f"{address.scheme}://{address.netloc}/" != HERE:
                continue
            target = site / unquote(address.path).lstrip("/")
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(address.fragment)
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


class _Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and (name == "id" or (name, tag) == ("name", "a")):
                self.anchors.add(value)
