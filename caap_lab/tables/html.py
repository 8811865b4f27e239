"""Tables as HTML, as Jupyter shows results: cells do not break over lines, and a wide table scrolls.

Styles are inline, because a style sheet may be missing: outputs are stored in notebooks, and shown on pages.
"""

import html
from collections.abc import Collection, Sequence

from caap_lab.escaping import for_html

_CELL = "white-space: nowrap; text-align: {}; font-variant-numeric: tabular-nums; padding: 0.2em 0.8em"


def html_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    text_columns: int | Collection[int] = 1,
) -> str:
    """A table of cells that are already HTML: escape text from users with `for_html`.

    Args:
        heads: Text over each column; it is escaped here.
        rows: Cells, as many in each row as there are heads; the first one is the head of the row.
        caption: Text above the table; it is escaped here.
        text_columns: How many of the first columns contain text, or which columns do: text is aligned left, numbers
            right.
    """
    texts = range(text_columns) if isinstance(text_columns, int) else text_columns
    styles = [_CELL.format("left" if column in texts else "right") for column in range(len(heads))]
    top = "".join(
        f'<th scope="col" style="{style}">{for_html(head)}</th>' for style, head in zip(styles, heads, strict=True)
    )
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td style="{style}">{cell}</td>' for style, cell in zip(styles[1:], others, strict=True))
        lines.append(f'<tr><th scope="row" style="{styles[0]}">{first}</th>{cells}</tr>')
    body = f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody>"
    # A caption element would wrap at the width of the table.
    above = f"<div>{for_html(caption)}</div>" if caption else ""
    label = f' aria-label="{html.escape(caption)}"' if caption else ""
    return f'{above}<div style="overflow-x: auto; max-width: 100%"><table{label}>{body}</table></div>'
