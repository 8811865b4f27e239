"""The Python calls that compute what the attention widget shows."""

import numpy as np

from caap_lab.models.attention_pool import PoolingAttention
from caap_lab.models.spec import ViTSpec
from caap_lab.widgets.objects import Objects


def map_calls(
    call: str, spec: ViTSpec, pooling: PoolingAttention | None, query: int, chosen: tuple[int, int]
) -> list[str]:
    """Calls for the map of a head.

    Args:
        call: The image, as a call has it.
        spec: The model's.
        pooling: Attention of the model's head, if that pools by attention.
        query: The token that looks.
        chosen: Layer and head; the layer behind the last one is the pooling head.
    """
    (layer, head), (rows, cols) = chosen, spec.grid
    if pooling is not None and layer == spec.n_layers:
        answers = "0" if pooling.answers.stop == 1 else ":"
        mean = "" if pooling.answers.stop == 1 else ".mean(0)"
        return [
            f"pattern = model.record({call}, names=['attn_pool.pattern'], dtype='float16')['attn_pool.pattern']",
            f"shown = pattern[0, {head}, {answers}, -{rows * cols}:]{mean}.reshape({rows}, {cols})",
        ]
    return [
        f"pattern = model.record({call}, names=['pattern'], layers=[{layer}], dtype='float16')['pattern', {layer}]",
        f"shown = pattern[0, {head}, {query}, {spec.n_prefix}:].reshape({rows}, {cols})",
    ]


def region_calls(call: str, spec: ViTSpec, objects: Objects, masks: str, overlap: float) -> list[str]:
    """Calls for the attention between the objects.

    Args:
        call: The image, as a call has it.
        spec: The model's.
        objects: The objects, as given or painted.
        masks: The masks that were given, as a call has them.
        overlap: Least share of a patch that makes it an object's.
    """
    (rows, cols), lines, ending = spec.grid, [], f", overlap={overlap}"
    if not objects.as_given:
        cells = (f"{name!r}: {np.flatnonzero(mask).tolist()}" for name, mask in objects.masks.items())
        lines.append(f"cells = {{{', '.join(cells)}}}")
        grid = f"np.isin(np.arange({rows * cols}), numbers).reshape({rows}, {cols})"
        lines.append(f"masks = {{name: {grid} for name, numbers in cells.items()}}")
        masks, ending = "masks", ""
    return [*lines, f"regions = cl.attention_regions(model, {call}, {masks}{ending})"]


def sum_calls(pooled: bool, quantity: str, heads: str | int) -> list[str]:
    """The call for the sums that are shown: of the layers, or of the pooling head."""
    if pooled:
        return ["sums = regions.other_queries().query('layer == \"pool\"')  # by kind and head"]
    return [f"sums = regions.mean({quantity!r}, heads={heads!r})  # by kind and layer"]
