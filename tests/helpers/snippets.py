"""Pages of the documentation whose snippets run."""

from pathlib import Path

from tests.helpers.pages import DOCS, snippets


def run_snippets(page: str | Path, at_least: int) -> dict[str, object]:
    """Run a page's Python snippets in order, as one program; those that are marked as not run are left out.

    Args:
        page: Its path, or the name of a file in docs/.
        at_least: How many there must be.

    Returns:
        The names that they leave.
    """
    path = DOCS / page
    run = [snippet.code for snippet in snippets(path) if not snippet.not_run]
    assert len(run) >= at_least, f"{path.name} has {len(run)} snippets"
    names: dict[str, object] = {}
    for code in run:
        exec(compile(code, str(path), "exec"), names)  # the project's own page
    return names
