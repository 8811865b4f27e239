"""The trace widget's texts and numbers."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from caap_lab.activations.token_maps import numbered
from caap_lab.escaping import for_html
from caap_lab.mechanisms.trace_result import Trace
from caap_lab.models.spec import ViTSpec
from caap_lab.widgets.traced_image import Cell, Traced

if TYPE_CHECKING:
    import pandas as pd

SMALL_GAP = 0.1
"""Fraction of the clean logits' standard deviation over classes below which both scores count as nearly equal."""


def cell_words(cell: Cell, spec: ViTSpec) -> str:
    """A description of a cell."""
    if cell.kind == "head":
        return f"Layer {cell.layer}, head {cell.number}"
    if cell.number < spec.n_prefix:
        return f"Layer {cell.layer}, {numbered(spec.prefix)[cell.number]} token"
    row, col = divmod(cell.number - spec.n_prefix, spec.grid[1])
    return f"Layer {cell.layer}, patch at row {row}, column {col}"


def gap_warning(here: Traced) -> str:
    """HTML of a warning if both images score nearly the same, because effects are fractions of that difference."""
    traced, clean = next(iter(here.tokens.values()), here.heads), here.ends.get("clean")
    if traced is None or clean is None or len(clean) < 2:
        return ""
    gap = float((traced.data["clean"] - traced.data["corrupted"]).values.reshape(-1)[0])
    spread = float(clean.std())
    if abs(gap) >= SMALL_GAP * spread:
        return ""
    words = (
        f"Clean and corrupted image differ by {gap:.3g} in this score, while logits of classes spread by {spread:.3g}. "
        "Effects are fractions of that small difference, so small changes look large: corrupt more, or choose another "
        "class."
    )
    return f'<div role="note" class="caap-notice">{for_html(words)}</div>'


def traced_frame(
    effects: Float[np.ndarray, "layer token"], heads: Trace | None, point: str, spec: ViTSpec
) -> "pd.DataFrame":
    """One row per layer and token or head, as far as they are computed.

    Args:
        effects: Effects of tokens; NaN if they are not known yet.
        heads: Effects of heads.
        point: Hook point of the tokens.
        spec: Sizes of the model.
    """
    import pandas as pd

    names = numbered(spec.prefix)
    rows = []
    for layer, values in enumerate(effects):
        for token in np.flatnonzero(np.isfinite(values)).tolist():
            place = divmod(token - spec.n_prefix, spec.grid[1]) if token >= spec.n_prefix else (None, None)
            name = names[token] if token < spec.n_prefix else "patch"
            rows.append((point, layer, name, *place, None, values[token]))
    for layer, values in enumerate([] if heads is None else heads.mean):
        rows += [("z", layer, "head", None, None, head, value) for head, value in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["point", "layer", "part", "row", "column", "head", "effect"])
    return frame.astype({"row": "Int64", "column": "Int64", "head": "Int64"})
