"""Photos and maps in an explorer's rows, from which tiles, figure, table and calls are built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd

from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError
from caap_lab.plots.maps import map_range
from caap_lab.widgets.board import Ends, Tile, map_tile, photo_tile
from caap_lab.widgets.photos import Photo

Ranges = Mapping[str, Ends]
"""The robust and the full range of colours."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A photo, or a map of it."""

    key: str
    """Key of its tile."""
    place: int
    """Index of the photo."""
    photo: Photo
    caption: str
    grid: tuple[int, int]
    """Caption of the tile until a map sets another."""
    method: str = ""
    """Name of the map's method; empty for a photo."""
    m: AttributionMap | None = None
    """The map; None until it is computed."""
    call: str = ""
    """The Python expression of the map."""
    details: str = ""
    problem: str = ""
    """Why there is no map; empty if it is still being computed."""

    @property
    def signed(self) -> bool:
        """True if scores of both signs are shown."""
        return self.m is not None and self.m.sign == "signed"

    @property
    def scores(self) -> np.ndarray:
        """Scores of the map in float64 [row, col]."""
        assert self.m is not None
        return self.m.scores.double().numpy()


Rows = Sequence[Sequence[Shown]]


def map_title(m: AttributionMap) -> str:
    """The method, and its target: "any class" if its maps are the same for all."""
    return f"{m.method} for {m.caption}"


def maps_of(rows: Rows) -> list[Shown]:
    """All maps that are computed."""
    return [shown for row in rows for shown in row if shown.m is not None]


def difference_of(first: Shown, second: Shown) -> Shown:
    """The first map minus the second; by ranks if their scores cannot be compared.

    The maps determine whether they can. If even ranks cannot be compared, as on different grids, the caption says so.
    """
    details = f"{first.caption} minus {second.caption}"
    made = Shown("difference", first.place, first.photo, f"{details}: computing", first.grid, "difference")
    if first.m is None or second.m is None:
        return made
    try:
        m, call, caption = first.m - second.m, f"{first.call} - {second.call}", details
    except InputError:
        call, caption = f"{first.call}.ranks() - {second.call}.ranks()", f"{details}, by ranks"
        try:
            m = first.m.ranks() - second.m.ranks()
        except InputError as error:
            return replace(made, caption="no difference", problem=str(error))
    return replace(made, m=m, call=call, caption=caption, details=details)


def shared_ranges(rows: Rows) -> dict[str, Ranges]:
    """Ends of the colours by tile if the scale is locked: all maps of one method have the same.

    Scores of two methods rarely have the same magnitude, even if both are attributions to a logit.
    """
    groups: dict[tuple[str, str, bool], list[Shown]] = {}
    for shown in maps_of(rows):
        m = cast(AttributionMap, shown.m)
        groups.setdefault((m.method, m.score, shown.signed), []).append(shown)
    ranges: dict[str, Ranges] = {}
    for (_, _, signed), group in groups.items():
        ends = {}
        for name, robust in (("robust", True), ("full", False)):
            lows, highs = zip(*(map_range(shown.scores, signed, robust=robust) for shown in group), strict=True)
            ends[name] = (min(lows), max(highs))
        ranges |= {shown.key: ends for shown in group}
    return ranges


def tiles_of(rows: Rows, tips: Mapping[str, Sequence[str]], locked: Mapping[str, Ranges]) -> list[Tile]:
    """The board's tiles.

    Args:
        rows: The photos and maps.
        tips: What is shown about each patch, by tile.
        locked: Ends of the colours if the scale is locked, by tile.
    """
    tiles = []
    for row in rows:
        for place, shown in enumerate(row):
            said = tips.get(shown.key, ())
            photo = str(shown.place)
            if not shown.method or shown.problem:
                tile = photo_tile(
                    shown.key, photo, shown.caption, shown.grid, tips=said, new_row=place == 0, details=shown.problem
                )
            else:
                m = shown.m
                tile = map_tile(
                    shown.key,
                    photo,
                    shown.caption,
                    None if m is None else shown.scores,
                    shown.grid if m is None else m.grid,
                    "" if m is None else m.unit,
                    signed=shown.signed,
                    locked=locked.get(shown.key),
                    tips=said,
                    pin=m is not None,
                    new_row=place == 0,
                    details=shown.details,
                )
            tiles.append(tile)
    return tiles


def patch_table(rows: Rows) -> pd.DataFrame:
    """One row per map and patch, in reading order; the rank is that of `AttributionMap.to_dataframe`."""
    first = ["model", "method", "image", "target"]
    tables = [
        m.to_dataframe().assign(
            model=m.model_name, method=m.method, image=shown.photo.name, target=m.caption, unit=m.unit
        )
        for shown in maps_of(rows)
        if (m := shown.m) is not None
    ]
    if not tables:
        return pd.DataFrame(columns=[*first, "row", "col", "score", "rank", "unit"])
    together = pd.concat(tables, ignore_index=True)
    return together[[*first, *(name for name in together if name not in first)]]
