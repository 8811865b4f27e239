"""Docstrings have the form from which the site makes its tables of arguments: a wrapped line is indented once more."""

import re

from tests.helpers.pages import ROOT

SECTION = re.compile(r"^( +)(Args|Attributes|Raises|Warns):$")
ITEM = re.compile(r"\*{0,2}\w[\w., *`]*( \([^)]*\))?:( |$)")


def unread(text: str) -> list[str]:
    """Lines in the column of an item of a section that name no argument and no error."""
    found, column = [], None
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        if section := SECTION.match(line):
            column = len(section[1]) + 4
        elif line.strip() and column and depth < column:
            column = None
        elif depth == column and not ITEM.match(line.strip()):
            found.append(line.strip())
    return found


def test_a_wrapped_line_in_the_column_of_its_argument_is_found() -> None:
    good = "    Args:\n        images: One image,\n            or several.\n        **options: More.\n\n    Returns:\n"
    assert not unread(good)
    assert unread(good.replace("            or", "        or")) == ["or several."]


def test_docstrings_are_read_whole() -> None:
    found = {path: unread(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "caap_lab").rglob("*.py"))}
    assert not {str(path.relative_to(ROOT)): lines for path, lines in found.items() if lines}
