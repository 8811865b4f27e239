"""What the attention widget says beside its pictures."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from caap_lab.diagnostics.region_pairs import PREFIX_WORDS
from caap_lab.diagnostics.region_result import AttentionRegions
from caap_lab.escaping import for_html
from caap_lab.models.spec import ViTSpec

_QUANTITIES: tuple[Literal["mass", "weight"], ...] = ("mass", "weight")


def prefix_names(spec: ViTSpec) -> list[str]:
    """One name per prefix token."""
    names = [f"{PREFIX_WORDS[role]} token" for role in spec.prefix if role != "reg"]
    return names + [f"register {place}" for place in range(1, spec.prefix.count("reg") + 1)]


def place_words(layer: int, head: int, n_layers: int) -> str:
    """A head of a layer; behind the last one, of the pooling head."""
    return f"layer {layer}, head {head}" if layer < n_layers else f"pool, head {head}"


def head_tips(weights: Float[Tensor, "layer head token"], spec: ViTSpec, query: int) -> list[str]:
    """One line per head, layer by layer: how a query's attention divides between patches and prefix tokens.

    A layer more than the model has is its pooling head, whose queries are its own.
    """
    n_heads = weights.shape[1]
    wide = weights.float().flatten(0, 1)
    roles = list(dict.fromkeys(spec.prefix))
    places = [[i for i, own in enumerate(spec.prefix) if own == role] for role in roles]
    shares = torch.stack([wide[:, spec.n_prefix :].sum(1), *(wide[:, at].sum(1) for at in places)], dim=1).tolist()
    names = ["patches", *(PREFIX_WORDS[role] for role in roles)]
    itself = wide[:, query].tolist()
    return [
        place_words(place // n_heads, place % n_heads, spec.n_layers)
        + ": "
        + ", ".join(f"{share:.1%} to {name}" for share, name in zip(of_head, names, strict=True))
        + (f"; {itself[place]:.1%} to itself" if place < spec.n_layers * n_heads else "")
        for place, of_head in enumerate(shares)
    ]


def colour_scale(colours: UInt8[np.ndarray, "256 3"], high: float) -> str:
    """The colours, from 0 to the value of the last one, as HTML."""
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in colours[::15].tolist())
    return (
        f'<div class="caap-scale" role="img" aria-label="Colours from 0 to {high:.3g} of the query\'s attention">0'
        f'<i style="background: linear-gradient(to right, {stops})"></i>{high:.3g} of its attention</div>'
    )


def regions_table(regions: AttentionRegions, layer: int, heads: Literal["mean"] | int) -> str:
    """All kinds of pairs that there are, in one layer, as HTML."""
    mass, weight = (regions.mean(quantity, heads=heads)[:, layer] for quantity in _QUANTITIES)
    lines = [
        f'<tr><td>{for_html(kind)}</td><td class="number">{mass[place]:.1%}</td>'
        f'<td class="number">{weight[place]:.3g}</td></tr>'
        for place, kind in enumerate(regions.kinds)
        if np.isfinite(mass[place])
    ]
    top = "<tr><th>from-to</th><th>mass, share of a query's</th><th>weight, mean of pairs</th></tr>"
    return f"<table><caption>Attention in layer {layer}, {heads_words(heads)}</caption>{top}{''.join(lines)}</table>"


def pool_table(regions: AttentionRegions, head: int) -> str:
    """What a pooling head looks at, in one of its heads, as HTML."""
    table = regions.other_queries()
    lines = [
        f'<tr><td>{for_html(row.kind)}</td><td class="number">{row.mass:.1%}</td>'
        f'<td class="number">{row.weight:.3g}</td></tr>'
        for row in table[(table["layer"] == "pool") & (table["head"] == head)].itertuples()
        if np.isfinite(row.mass)
    ]
    top = "<tr><th>from-to</th><th>mass, share of its attention</th><th>weight, mean of keys</th></tr>"
    return f"<table><caption>Attention of the pooling head, head {head}</caption>{top}{''.join(lines)}</table>"


def heads_words(heads: Literal["mean"] | int) -> str:
    """Which heads sums are of."""
    return "mean over heads" if heads == "mean" else f"head {heads}"


def on_any_ground(colour: str) -> str:
    """Black would not be seen in a dark theme: the text's colour instead."""
    return "currentColor" if colour == "#000000" else colour
