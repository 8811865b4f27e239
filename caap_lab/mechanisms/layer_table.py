"""Values of a model's parts as a table of layers and heads, as heat maps show them."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

_HEAD = re.compile(r"L?(\d+)[.H](\d+)")
_PART = re.compile(r"(attn|mlp) (\d+)( bias)?")


def layer_table(
    parts: Sequence[str], values: Float[np.ndarray, " part"], *, before: bool = True
) -> pd.DataFrame | None:
    """One row per layer; a column per head, then columns for attention, MLPs and what is added before layer 0.

    Args:
        parts: Names, such as "3.1" or "L3H1" (layer 3, head 1), "attn 3", "attn 3 bias", "mlp 3", and any others.
        values: One number per name.
        before: Show what is added before layer 0, in the row of layer 0.

    Returns:
        NaN if there is no such part. None if the parts are not heads of several layers, or if a name occurs twice.
    """
    places: dict[tuple[int, int | str], float] = {}
    for name, value in zip(parts, values.tolist(), strict=True):
        if head := _HEAD.fullmatch(name):
            place: tuple[int, int | str] = (int(head[1]), int(head[2]))
        elif part := _PART.fullmatch(name):
            place = (int(part[2]), part[1] + (part[3] or ""))
        else:
            place = (0, name)
        if place in places:
            return None
        places[place] = value
    heads = sorted({column for _, column in places if isinstance(column, int)})
    layers = sorted({layer for layer, _ in places})
    if len(heads) < 2 or len(layers) < 2:
        return None
    found = {column for _, column in places if not isinstance(column, int)}
    first = [name for name in ("attn", "attn bias", "mlp") if name in found]
    others = [column for _, column in places if column in found and column not in first]  # in the order of the parts
    columns = pd.Index([*heads, *first, *(others if before else ())], dtype=object, name="head")
    cells = [[places.get((layer, column), np.nan) for column in columns] for layer in layers]
    return pd.DataFrame(cells, index=pd.Index(layers, name="layer"), columns=columns)
