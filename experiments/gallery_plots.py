"""The gallery's plots: run the lines of each example, save the picture, and write their part of the page."""

import ast
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from caap_lab.plots.style import figure_png
from experiments.gallery_examples import GROUPS, START, Example
from experiments.gallery_images import write_png


def write_plot_pictures(out: Path, only: frozenset[str] = frozenset()) -> None:
    """Write the picture of each example, or of those that draw what `only` names."""
    names: dict[str, Any] = {}
    exec(START, names)
    for group in GROUPS.values():
        for example in group:
            if not only or example.shows in only:
                write_png(figure_png(drawn(example, dict(names)), dpi=90), out / f"{example.picture}.png")


def drawn(example: Example, names: dict[str, Any]) -> Figure:
    """The figure that an example's last line returns; the names from `START` may be changed."""
    *before, last = ast.parse(example.code).body
    assert isinstance(last, ast.Expr), example.title
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        exec(compile(ast.Module(before, []), example.title, "exec"), names)
        found = eval(compile(ast.Expression(last.value), example.title, "eval"), names)
    figure = found.figure if isinstance(found, Axes) else found
    assert isinstance(figure, Figure), f"{example.title} gives {type(found).__name__}"
    return figure


def plots_text(folder: str) -> str:
    """Markdown: every plot with the lines that make it.

    Args:
        folder: Folder of the pictures, relative to the page.
    """
    return "\n\n".join(_parts(folder))


def _parts(folder: str) -> Iterator[str]:
    yield f"All examples begin with\n\n```python\n{START}\n```"
    for title, group in GROUPS.items():
        yield f"### {title}"
        for example in group:
            yield f"#### {example.title}"
            yield f"```python\n{example.code}\n```"
            yield f"![{example.title}: what the lines above draw]({folder}/{example.picture}.png)"
