"""Puts into the pages of the site what the package says of itself: its names, command line, settings and changelog.

A page has a comment such as `<!-- generated: command line -->` where the text goes. The text is made when the site is
built, so it cannot disagree with the code.
"""

import re
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from inspect import getdoc, ismodule
from pathlib import Path
from pydoc import locate
from typing import Any

ROOT = Path(__file__).parents[1]
API = tuple(re.findall(r"\bapi/\w+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
"""Pages of the API, in the order of the site."""
_MARK = re.compile(r"^<!-- generated: ([\w ]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each mark by its text; called by MkDocs for each page."""
    return _MARK.sub(lambda mark: GENERATED[mark[1]](), markdown)


def command_line() -> str:
    """One section per command: what it does, how it is called, and a table for each group of its options."""
    from caap_lab.cli import parser

    (commands,) = (action for action in parser()._actions if isinstance(action.choices, dict))
    return "\n\n".join(_command(name, command) for name, command in commands.choices.items())


def caap_settings() -> str:
    """A table of CAAP's settings: the name in Python, the flag, the default, and what it means."""
    from caap_lab.engine.settings import CaapSettings

    rows = [
        (f"`{f.name}`", f"`--{f.name.replace('_', '-')}`", f"`{f.default!r}`", _meaning(f.metadata))
        for f in fields(CaapSettings)
    ]
    return _table(("Setting", "Flag", "Default", "Meaning"), rows)


def python_names() -> str:
    """A table for each page of the API: every function and class on it, with the first line of its docstring.

    Each row has the anchor of its entry, for links from the time when the API was one page.
    """
    parts = []
    for page in API:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        rows = []
        for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
            found = locate(path)
            if ismodule(found) or callable(found):
                name = path.removeprefix("caap_lab.")
                rows.append((f"[`{name}`]({page}#{path}){{ #{path} }}", str(getdoc(found)).split("\n", 1)[0]))
        title = text.split("\n", 1)[0].removeprefix("# ")
        parts.append(f"## [{title}]({page})\n\n{_table(('Name', 'What it is'), rows)}")
    return "\n\n".join(parts)


def changelog() -> str:
    """The repository's changelog, with links to pages as they are from another page."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    return text.split("\n", 1)[1].strip()


GENERATED: dict[str, Callable[[], str]] = {
    "Python names": python_names,
    "command line": command_line,
    "settings of CAAP": caap_settings,
    "changelog": changelog,
}


def _command(name: str, command: ArgumentParser) -> str:
    given = [_metavar(action) for action in command._get_positional_actions()]
    usage = " ".join([command.prog, "[options]", *given])
    parts = [f"## caap-lab {name}", str(command.description), f"`{usage}`"]
    for group in command._action_groups:
        rows = [row for action in group._group_actions for row in _option(action, command.prog)]
        if rows:
            title = {"positional arguments": "Argument", "options": "Option"}.get(str(group.title), str(group.title))
            parts.append(_table((f"{title[0].upper()}{title[1:]}", "Meaning"), rows))
    return "\n\n".join(parts)


def _option(action: Action, program: str) -> Iterator[tuple[str, str]]:
    if action.help == SUPPRESS or "--help" in action.option_strings:
        return
    name = action.option_strings[-1] if action.option_strings else _metavar(action)
    value = f" {_metavar(action)}" if action.option_strings and action.nargs != 0 and not action.choices else ""
    meaning = (action.help or "") % {"default": action.default, "prog": program}
    if action.choices:
        choices = f"one of {', '.join(f'`{choice}`' for choice in action.choices)}"
        meaning = f"{meaning}; {choices}" if meaning else choices
    yield f"`{name}{value}`", meaning


def _metavar(action: Action) -> str:
    return action.metavar if isinstance(action.metavar, str) else action.dest.upper()


def _meaning(metadata: Any) -> str:
    choices = ", ".join(f"`{choice}`" for choice in metadata["choices"])
    return metadata["help"] + (f". One of {choices}" if choices else "")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)
