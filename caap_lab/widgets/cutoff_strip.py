"""The maps of all cutoffs as thumbnails."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from caap_lab.plots.maps import colour_table, map_colour_map, map_range
from caap_lab.widgets.board import BY_SIGN, Ends
from caap_lab.widgets.head_grid import HeadGrid, set_all, tile_bytes

WIDEST = 16
"""Thumbnails per row; a model of 24 blocks has two rows of 13."""


def strip(count: int, grid: tuple[int, int]) -> HeadGrid:
    """Thumbnails of all cutoffs, without maps at first.

    Args:
        count: Number of cutoffs, from 0.
        grid: Rows and columns of patches.
    """
    lines = -(-count // WIDEST)
    across = -(-count // lines)
    made = HeadGrid(
        heads=count,
        rows=grid[0],
        cols=grid[1],
        across=across,
        names=[""] * lines,
        columns=[str(cutoff) for cutoff in range(count)] if lines == 1 else [""] * across,
        marks=[""] * count if lines == 1 else [str(cutoff) for cutoff in range(count)],
        zooms=False,
        label="Maps of all cutoffs",
        caption="maps of all cutoffs",
    )
    made.add_class("caap-strip")
    return made


def show_maps(
    thumbnails: HeadGrid,
    scores: Mapping[int, Float[np.ndarray, "row col"]],
    cutoffs: Sequence[int],
    *,
    signed: bool,
    robust: bool,
    colours: str,
    limits: Ends | None,
    tips: Mapping[int, str],
) -> None:
    """Show the maps that are known.

    Args:
        thumbnails: The grid returned by `strip`.
        scores: Scores of the known maps, by cutoff.
        cutoffs: The cutoffs that exist; the others have no place.
        signed: Colours are centred on 0.
        robust: Without `limits`, the colours of each map end at its robust range.
        colours: A colour map, or "by sign".
        limits: Scores at the ends of the colours of all maps; None for separate ends of each map.
        tips: Texts about the cutoffs.
    """
    shape = (1, thumbnails.heads, thumbnails.rows, thumbnails.cols)
    maps = np.full(shape, np.nan)
    lows, highs = np.zeros(shape[:2]), np.full(shape[:2], np.nan)
    for cutoff, of_cutoff in scores.items():
        maps[0, cutoff] = of_cutoff
        ends = limits or map_range(of_cutoff, signed, robust=robust)
        lows[0, cutoff], highs[0, cutoff] = ends
    lines = -(-thumbnails.heads // thumbnails.across)
    places = [cutoff if cutoff in cutoffs else -1 for cutoff in range(lines * thumbnails.across)]
    changes: dict[str, Any] = {
        **tile_bytes(maps, lows, highs),
        "table": colour_table(map_colour_map(signed) if colours == BY_SIGN else colours).tobytes(),
        "order": places,
        "tips": [f"cutoff {cutoff}: {tips.get(cutoff) or 'computing'}" for cutoff in range(thumbnails.heads)],
    }
    set_all(thumbnails, changes)
