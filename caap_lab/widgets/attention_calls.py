"""The Python calls that compute what the attention widget shows."""

import numpy as np

from caap_lab.models.attention_pool import PoolingAttention
from caap_lab.models.spec import ViTSpec
from caap_lab.widgets.head_places import HeadPlaces
from caap_lab.widgets.objects import Objects


def map_calls(
    call: str,
    spec: ViTSpec,
    pooling: PoolingAttention | None,
    query: int,
    places: HeadPlaces,
    chosen: tuple[int, int],
) -> list[str]:
    """Calls that compute the map of a head, or a mean of maps.

    Args:
        call: The Python expression of the image.
        spec: Sizes and token roles of the model.
        pooling: Attention of the model's head if it pools by attention.
        query: Number of the query token.
        places: Places of the heads in the grid.
        chosen: Row and column of the map in the grid.
    """
    (layer, head), (rows, cols) = chosen, spec.grid
    heads, mean_of_heads = (":", ".mean(0)") if head == places.mean_head else (str(head), "")
    if pooling is not None and layer == places.pool:
        single = pooling.answers.stop == 1
        answers, mean = ("0", "") if single else (":", f".mean({int(head == places.mean_head)})")
        return [
            f"pattern = model.record({call}, names=['attn_pool.pattern'], dtype='float16')['attn_pool.pattern']",
            f"looked = pattern[0, {heads}, {answers}, -{rows * cols}:].float(){mean}{mean_of_heads}",
            f"shown = looked.reshape({rows}, {cols})",
        ]
    looked = f"[0, {heads}, {query}, {spec.n_prefix}:].float(){mean_of_heads}"
    if layer == places.mean_layer:
        return [
            f"patterns = model.record({call}, names=['pattern'], dtype='float16')",
            f"maps = [patterns['pattern', layer]{looked} for layer in range({spec.n_layers})]",
            f"shown = (sum(maps) / {spec.n_layers}).reshape({rows}, {cols})",
        ]
    return [
        f"pattern = model.record({call}, names=['pattern'], layers=[{layer}], dtype='float16')['pattern', {layer}]",
        f"shown = pattern{looked}.reshape({rows}, {cols})",
    ]


def region_calls(call: str, spec: ViTSpec, objects: Objects, masks: str, overlap: float) -> list[str]:
    """Calls that compute the attention between the objects.

    Args:
        call: The Python expression of the image.
        spec: Sizes and token roles of the model.
        objects: The objects, as given or painted.
        masks: The Python expression of the given masks.
        overlap: Smallest fraction of a patch that makes it part of an object.
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
    """The call for the sums that are shown: for the layers, or for the pooling head."""
    if pooled:
        return ["sums = regions.other_queries().query('layer == \"pool\"')  # by kind and head"]
    return [f"sums = regions.mean({quantity!r}, heads={heads!r})  # by kind and layer"]
