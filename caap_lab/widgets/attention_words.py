"""The attention widget's texts."""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float

from caap_lab.activations.token_maps import numbered
from caap_lab.diagnostics.region_pairs import PREFIX_WORDS
from caap_lab.diagnostics.region_result import AttentionRegions
from caap_lab.escaping import for_html
from caap_lab.models.spec import ViTSpec
from caap_lab.widgets.head_places import HeadPlaces
from caap_lab.widgets.table_cells import share_cell

_QUANTITIES: tuple[Literal["mass", "weight"], ...] = ("mass", "weight")


def prefix_names(spec: ViTSpec) -> list[str]:
    """One name per prefix token: "class token", "register 0", "register 1"."""
    words = {role: f"{word} token" for role, word in PREFIX_WORDS.items()} | {"reg": "register"}
    return [" ".join([words[role], *number]) for role, *number in map(str.split, numbered(spec.prefix))]


def token_words(spec: ViTSpec, token: int) -> str:
    """A description of a token."""
    if token < spec.n_prefix:
        return prefix_names(spec)[token]
    row, column = divmod(token - spec.n_prefix, spec.grid[1])
    return f"patch at row {row}, column {column}"


def head_tips(
    weights: Float[np.ndarray, "row column token"],
    spec: ViTSpec,
    query: int,
    places: HeadPlaces,
    numbers: Mapping[str, Float[np.ndarray, "layer head"]],
) -> list[str]:
    """One line per map of the grid: how a query's attention divides between patches and prefix tokens.

    Args:
        weights: The query's attention, as returned by `with_means`.
        spec: Sizes and token roles of the model.
        query: Number of the query token; a pooling head has its own queries.
        places: Places of the heads.
        numbers: More values of each head, by name.
    """
    rows, columns = places.shape
    roles = list(dict.fromkeys(spec.prefix))
    names = ["patches", *(PREFIX_WORDS[role] for role in roles)]
    of_role = [[place for place, own in enumerate(spec.prefix) if own == role] for role in roles]
    parts = [weights[..., spec.n_prefix :].sum(2), *(weights[..., tokens].sum(2) for tokens in of_role)]
    shares, itself = np.stack(parts, axis=2).tolist(), weights[..., query].tolist()
    said = []
    for row in range(rows):
        for column in range(columns):
            text = ", ".join(f"{share:.1%} to {name}" for share, name in zip(shares[row][column], names, strict=True))
            own = "" if row == places.pool else f"; {itself[row][column]:.1%} to itself"
            known = {
                name: values[row, column]
                for name, values in numbers.items()
                if row < len(values) and column < values.shape[1] and np.isfinite(values[row, column])
            }
            more = "".join(f"; {name} {value:.3g}" for name, value in known.items())
            said.append(f"{places.words(row, column)}: {text}{own}{more}")
    return said


def regions_table(regions: AttentionRegions, layer: int | None, heads: Literal["mean"] | int) -> str:
    """All kinds of pairs, in one layer or as a mean over layers, as HTML."""
    numbers = {}
    for quantity in _QUANTITIES:
        of_layers = regions.mean(quantity, heads=heads)
        numbers[quantity] = of_layers.mean(axis=1) if layer is None else of_layers[:, layer]
    where = "all layers" if layer is None else f"layer {layer}"
    rows = zip(regions.kinds, numbers["mass"], numbers["weight"], strict=True)
    return _table(f"Attention in {where}, {heads_words(heads)}", "a query's", "pairs", rows)


def pool_table(regions: AttentionRegions, head: int | None) -> str:
    """Where a pooling head looks, in one of its heads or as a mean over them, as HTML."""
    table = regions.other_queries().query("layer == 'pool'")
    numbers = table if head is None else table[table["head"] == head]
    means = numbers.groupby("kind", sort=False)[["mass", "weight"]].mean()
    rows = means.itertuples(name=None)
    which = "mean over heads" if head is None else f"head {head}"
    return _table(f"Attention of the pooling head, {which}", "its attention", "keys", rows)


def _table(title: str, of: str, over: str, rows: Iterable[tuple[str, float, float]]) -> str:
    """Kinds of pairs with their mass, as bars behind the numbers, and weight."""
    lines = [
        f'<tr><td>{for_html(kind)}</td>{share_cell(mass)}<td class="number">{weight:.3g}</td></tr>'
        for kind, mass, weight in rows
        if np.isfinite(mass)
    ]
    top = f"<tr><th>from-to</th><th>mass, share of {of}</th><th>weight, mean of {over}</th></tr>"
    return f"<table><caption>{title}</caption>{top}{''.join(lines)}</table>"


def heads_words(heads: Literal["mean"] | int) -> str:
    """The heads over which sums are taken, in words."""
    return "mean over heads" if heads == "mean" else f"head {heads}"


def on_any_ground(colour: str) -> str:
    """A colour that is visible on any background: black becomes the text's colour, for dark themes."""
    return "currentColor" if colour == "#000000" else colour
