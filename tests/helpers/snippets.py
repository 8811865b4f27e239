"""Pages of the documentation whose snippets run."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def run_snippets(page: str, at_least: int) -> dict[str, object]:
    """Run a page's Python snippets in order, as one program.

    Args:
        page: Name of the file in docs/.
        at_least: How many there must be.

    Returns:
        The names that they leave.
    """
    path = DOCS / page
    snippets = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) >= at_least, f"{page} has {len(snippets)} snippets"
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, str(path), "exec"), names)  # the project's own page
    return names
