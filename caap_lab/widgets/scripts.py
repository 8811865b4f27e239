"""JavaScript and styles of a widget from several small files, without a build step."""

from pathlib import Path

_HERE = Path(__file__).parent


def joined(*names: str) -> str:
    """One ES module from files in this folder, in order: declarations of a file are visible in those after it.

    Args:
        names: File names; the last file exports the widget. The browser's debugger lists the module under its name.
    """
    parts = [f"// ---- {name}\n{(_HERE / name).read_text(encoding='utf-8')}" for name in names]
    return "\n".join([*parts, f"//# sourceURL=caap_lab/widgets/{names[-1]}\n"])


def styles(*names: str) -> str:
    """One style sheet from files in this folder, in order."""
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)
