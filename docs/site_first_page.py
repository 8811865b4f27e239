"""Writes the site's first page from the README: python docs/site_first_page.py."""

from pathlib import Path

DOCS = Path(__file__).parent


def first_page() -> str:
    """The README with its links as they are from docs/."""
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](notebooks/", "](../notebooks/")


if __name__ == "__main__":
    (DOCS / "index.md").write_text(first_page(), encoding="utf-8")
