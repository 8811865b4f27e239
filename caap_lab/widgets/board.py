"""Photos and maps side by side, drawn in the browser: they grow with the cell and respond while the kernel is busy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anywidget
import numpy as np
import traitlets
from jaxtyping import Float, UInt8

from caap_lab.errors import InputError
from caap_lab.plots.look import LOOK
from caap_lab.plots.maps import map_range, opaque_table, overlay_table
from caap_lab.plots.style import COLOUR_MAP, SIGNED_COLOUR_MAP
from caap_lab.widgets.scripts import joined

_HERE = Path(__file__).parent
_PARTS = ("_colours", "_numbers", "_outlines", "_bar", "_tile", "_pointer", "_tools", "")
BY_SIGN = "by sign"
COLOUR_MAPS = (BY_SIGN, "viridis", "cividis", "magma", "gray", "RdBu_r")
"""The first is the colour map that fits a map's signs."""
Tool = Literal["modes", "smooth", "robust", "fade", "opacity", "colours", "signs", "top", "lock"]
Tile = dict[str, Any]
Ends = tuple[float, float]
"""Scores at the two ends of the colours."""


class Board(anywidget.AnyWidget):
    """Tiles side by side, as many as fit, each a photo or a map over a photo with its colour bar.

    Whatever is pointed at in one tile is outlined in all of them, and each shows its own value there. The look (all
    traits from `mode` to `lock`) belongs to the browser: its tools change it, and the kernel is only notified.

    Attributes:
        photos: PNG of each photo, by name.
        tiles: The tiles, in order, as `photo_tile`, `map_tile` and `colour_tile` return them.
        tables: uint8 [256, 4] as bytes for each of `colours`, and again with the suffix " signed" for signed maps: red,
            green, blue, and the opacity if it follows the score. If it does not, signed maps have different colours: "
            opaque signed".
        tools: The tools shown above the tiles.
        modes: What dragging can do; the tool is omitted if there is only one mode.
        mode: What dragging does: "choose" a patch, draw a "box", "paint" or "erase" patches.
        opacity: Opacity of the maps over their photos, 0 to 1.
        smooth: Interpolate scores between patches; otherwise each patch has one colour.
        robust: The colours end at the 2nd and 98th percentile of the scores; otherwise at the lowest and the highest.
        fade: Opacity follows the score, so low scores leave the photo visible.
        colours: Name of a colour map, "by sign" for the one that fits each map.
        signs: For signed maps, show "all" scores, "positive" or "negative" ones.
        top: Number of highest patches outlined in each map.
        lock: One scale for all maps of the same unit.
        chosen: Row and column of the chosen patch, or empty.
        box: Top, left, bottom and right patch of the box (the last two are inside it), or empty.
        painted: Numbers of the painted patches, in reading order.
        brush: Colour of the painted patches, as #rrggbb.
        neighbours: Offsets (rows, columns) of the patches outlined around the one pointed at.
        pinned: Keys of the tiles that are pinned; those with `pin` have a button for it.
        smallest: Smallest width of a tile in pixels, which determines the number of columns.
        largest: Largest width of a tile in pixels.
        label: A description of the content, for screen readers.
    """

    _esm = joined("bytes.js", *(f"board{part}.js" for part in _PARTS))
    _css = _HERE / "widgets.css"
    photos = traitlets.Dict(per_key_traits=None, value_trait=traitlets.Bytes()).tag(sync=True)
    tiles = traitlets.List(traitlets.Dict()).tag(sync=True)
    tables = traitlets.Dict(value_trait=traitlets.Bytes()).tag(sync=True)
    tools = traitlets.List(traitlets.Unicode()).tag(sync=True)
    modes = traitlets.List(traitlets.Unicode(), default_value=["choose"]).tag(sync=True)
    mode = traitlets.Enum(("choose", "box", "paint", "erase"), "choose").tag(sync=True)
    opacity = traitlets.Float(LOOK.opacity).tag(sync=True)
    smooth = traitlets.Bool(LOOK.smooth).tag(sync=True)
    robust = traitlets.Bool(LOOK.robust).tag(sync=True)
    fade = traitlets.Bool(LOOK.fade).tag(sync=True)
    colours = traitlets.Enum(COLOUR_MAPS, BY_SIGN).tag(sync=True)
    signs = traitlets.Enum(("all", "positive", "negative"), "all").tag(sync=True)
    top = traitlets.Int(0, min=0).tag(sync=True)
    lock = traitlets.Bool(False).tag(sync=True)
    chosen = traitlets.List(traitlets.Int()).tag(sync=True)
    box = traitlets.List(traitlets.Int()).tag(sync=True)
    painted = traitlets.List(traitlets.Int()).tag(sync=True)
    brush = traitlets.Unicode("#d55e00").tag(sync=True)
    neighbours = traitlets.List(traitlets.List(traitlets.Int())).tag(sync=True)
    pinned = traitlets.List(traitlets.Unicode()).tag(sync=True)
    smallest = traitlets.Int(240).tag(sync=True)
    largest = traitlets.Int(640).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, tools: Sequence[Tool] = (), **traits: Any) -> None:
        tables = {}
        for name in COLOUR_MAPS:
            plain, signed = (COLOUR_MAP, SIGNED_COLOUR_MAP) if name == BY_SIGN else (name, name)
            tables[name] = overlay_table(plain).tobytes()
            tables[f"{name} signed"] = overlay_table(signed, signed=True).tobytes()
            tables[f"{name} opaque signed"] = opaque_table(signed).tobytes()
        super().__init__(tools=list(tools), tables=tables, **traits)

    @property
    def look(self) -> list[str]:
        """Names of the traits that its tools change and that saved pictures follow."""
        return [name for name in self.tools if name != "modes"]

    @traitlets.validate("tiles")
    def _check_tiles(self, proposal: dict[str, Any]) -> list[Tile]:
        keys = [tile["key"] for tile in proposal["value"]]
        if len(set(keys)) < len(keys):
            raise InputError(f"The keys of a board's tiles have to be unique, not {', '.join(keys)}.")
        return list(proposal["value"])

    def tile(self, key: str) -> Tile:
        """The tile with this key, as it was given."""
        return next(tile for tile in self.tiles if tile["key"] == key)


def photo_tile(
    key: str,
    photo: str,
    caption: str,
    grid: tuple[int, int],
    *,
    tips: Sequence[str] = (),
    paint: bool = False,
    new_row: bool = False,
    details: str = "",
) -> Tile:
    """The tile of a photo in its own colours.

    Args:
        key: Key of the tile, unique on the board; tests and the browser find it by this.
        photo: Its name in `Board.photos`.
        caption: One line above it; text that does not fit is cut, and shown as a tooltip.
        grid: Rows and columns of patches.
        tips: What is shown about each patch when it is pointed at, in reading order.
        paint: True if `painted`, `box` and `chosen` of the board apply only to this tile, so that one cannot draw in
            others.
        new_row: True if it starts a row; otherwise it follows the tile before it.
        details: More information, shown with the caption as a tooltip.
    """
    common = {"key": key, "photo": photo, "caption": caption, "rows": grid[0], "cols": grid[1], "details": details}
    return {"kind": "photo", **common, "tips": list(tips), "paint": paint, "new_row": new_row}


def map_tile(
    key: str,
    photo: str,
    caption: str,
    scores: Float[np.ndarray, "row col"] | None,
    grid: tuple[int, int],
    unit: str,
    *,
    signed: bool = False,
    middle: float = 0.0,
    limits: Ends | None = None,
    locked: Ends | Mapping[str, Ends] | None = None,
    tips: Sequence[str] = (),
    pin: bool = False,
    new_row: bool = False,
    details: str = "",
) -> Tile:
    """The tile of a map over its photo, which is grey so that the colours belong to the scores.

    Args:
        key: Key of the tile, unique on the board.
        photo: Its name in `Board.photos`.
        caption: One line above it.
        scores: One score per patch; NaN if it is not known yet; None until the map is computed.
        grid: Rows and columns of patches.
        unit: The quantity of a score, below the colour bar, such as "logit of tabby". Maps of one unit can share it.
        signed: Colours are centred on `middle`.
        middle: The score that has no colour in a signed map.
        limits: Ends of the colours whatever the tools are set to; by default those of `map_range`, robust or full.
        locked: Ends of the colours if the scale is locked, or those of both ranges, "robust" and "full"; by default
            those that cover all maps of the same unit.
        tips: More about each patch when it is pointed at, in addition to its score and rank, in reading order.
        pin: True for a button that pins the map.
        new_row: True if it starts a row.
        details: More information, shown with the caption as a tooltip: its settings.

    Raises:
        InputError: the scores do not have the size of the grid.
    """
    if scores is not None and scores.shape != grid:
        raise InputError(f"A map of {scores.shape} scores does not fit a grid of {grid} patches.")
    tile = photo_tile(key, photo, caption, grid, tips=tips, new_row=new_row, details=details)
    known = None if scores is None else scores[np.isfinite(scores)]
    ends: dict[str, Any] = {}
    if known is not None and known.size:
        for name, robust in (("robust", True), ("full", False)):
            low, high = limits or map_range(known - middle, signed, robust=robust)
            ends[name] = [low, high] if limits else [low + middle, high + middle]
    return {
        **tile,
        "kind": "map",
        "scores": b"" if scores is None else np.ascontiguousarray(scores, dtype="<f4").tobytes(),
        "unit": unit,
        "signed": signed,
        "middle": middle,
        **ends,
        "locked": dict(locked) if isinstance(locked, Mapping) else None if locked is None else list(locked),
        "pin": pin,
    }


def colour_tile(
    key: str,
    photo: str,
    caption: str,
    colours: UInt8[np.ndarray, "row col 4"],
    *,
    tips: Sequence[str] = (),
    paint: bool = False,
    details: str = "",
) -> Tile:
    """The tile of a photo with one colour over each patch, such as that of its object; opacity 0 leaves it clear."""
    tile = photo_tile(key, photo, caption, colours.shape[:2], tips=tips, paint=paint, details=details)
    return {**tile, "rgba": np.ascontiguousarray(colours).tobytes()}
