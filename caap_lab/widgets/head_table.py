"""Numbers of every head: how widely and how far it attends, and how much attention goes to which region."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from caap_lab.diagnostics.head_measures import patch_distances, query_distance, query_entropy
from caap_lab.diagnostics.region_pairs import PREFIX_WORDS
from caap_lab.diagnostics.region_result import AttentionRegions
from caap_lab.models.spec import ViTSpec
from caap_lab.widgets.head_places import HeadPlaces
from caap_lab.widgets.objects import Objects
from caap_lab.widgets.query_rows import QueryRows

Weights = Float[np.ndarray, "row column token"]
ENTROPY, DISTANCE = "entropy of all patches (nats)", "distance from all patches (pixels)"
"""Means over patches as queries."""
MASS = "{} mass"
"""Mass of pairs of regions; all other numbers describe the current query."""


def head_table(
    weights: Weights,
    query: int,
    rows: QueryRows,
    spec: ViTSpec,
    places: HeadPlaces,
    objects: Objects,
    regions: AttentionRegions | None,
) -> pd.DataFrame:
    """One row per head, those of a pooling head last with the layer "pool"; the pooling head has its own query.

    Args:
        weights: The query's attention, as returned by `with_means`.
        query: Number of the query token.
        rows: The attention rows, for the means over patches.
        spec: Sizes and token roles of the model.
        places: Places of the heads.
        objects: Objects of the photo.
        regions: Attention between them, if it is computed.

    Returns:
        The columns layer, head, then numbers; NaN if one is not defined: distances from tokens without a place, and
        numbers over all patches for a pooling head, which has no patches as queries.
    """
    cells = [(layer, head) for layer in range(places.mean_layer) for head in range(places.heads_of(layer))]
    layers, heads = np.array(cells).T
    in_blocks = layers < places.n_layers
    of_head = torch.from_numpy(weights[layers, heads])

    def of_blocks(values: Float[np.ndarray, "layer head"] | None) -> np.ndarray:
        found = np.full(len(cells), np.nan)
        if values is not None:
            found[in_blocks] = values.reshape(-1)
        return found

    columns: dict[str, np.ndarray] = {ENTROPY: of_blocks(rows.entropy), DISTANCE: of_blocks(rows.distance)}
    if regions is not None:
        mass = regions.mean("mass")
        columns |= {
            MASS.format(kind): of_blocks(mass[place])
            for place, kind in enumerate(regions.kinds)
            if np.isfinite(mass[place]).all()
        }
    patches = of_head[:, spec.n_prefix :]
    columns["entropy of this query (nats)"] = query_entropy(of_head).numpy()
    far = np.full(len(cells), np.nan)
    if query >= spec.n_prefix:
        of_query = patch_distances(spec)[query - spec.n_prefix]
        far[in_blocks] = query_distance(patches, of_query).numpy()[in_blocks]
    columns["distance from this query (pixels)"] = far
    columns["this query to patches"] = patches.sum(1).numpy()
    for role in dict.fromkeys(spec.prefix):
        own = [place for place, other in enumerate(spec.prefix) if other == role]
        columns[f"this query to {PREFIX_WORDS[role]}"] = of_head[:, own].sum(1).numpy()
    for name, mask in objects.masks.items():
        columns[f"this query to {name}"] = patches[:, torch.from_numpy(mask.reshape(-1))].sum(1).numpy()
    names = [str(layer) if layer < places.n_layers else "pool" for layer in layers]
    return pd.DataFrame({"layer": names, "head": heads, **columns})


def as_grid(table: pd.DataFrame, column: str, places: HeadPlaces) -> Float[np.ndarray, "layer head"]:
    """A column as `HeadPlaces.arranged` accepts it."""
    values = np.full((places.mean_layer, places.mean_head), np.nan)
    layers = [places.pool if layer == "pool" else int(layer) for layer in table["layer"]]
    values[layers, table["head"]] = table[column]
    return values
