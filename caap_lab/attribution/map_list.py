"""A list of attribution maps that is displayed as a gallery."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import torch

from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.plots.look import LOOK, Look

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOWN = 24
"""Largest number of maps in a notebook's output."""
_COLUMNS = 6
"""Photos and maps per line."""
_PANEL = 1.8
"""Inches per photo or map, gap included."""


class MapList(list[AttributionMap]):
    """A list of maps, displayed in Jupyter as a gallery: each photo, then its maps with their scales.

    ```python
    maps = cl.caap(model, images)
    maps                      # a gallery
    maps[:2].plot(smooth=True)
    maps.to_dataframe()       # one row per image and patch
    cl.MapList([a, b, a.ranks() - b.ranks()])
    ```
    """

    def __init__(self, maps: Iterable[AttributionMap] = ()) -> None:
        if isinstance(maps, AttributionMap):
            raise InputError("A MapList takes a list of maps: cl.MapList([m]).")
        super().__init__(maps)
        for m in self:
            if not isinstance(m, AttributionMap):
                raise InputError(f"A MapList holds attribution maps, not {type(m).__name__}.")

    @overload
    def __getitem__(self, place: SupportsIndex) -> AttributionMap: ...
    @overload
    def __getitem__(self, place: slice) -> "MapList": ...
    def __getitem__(self, place: SupportsIndex | slice) -> "AttributionMap | MapList":
        found = super().__getitem__(place)
        return MapList(found) if isinstance(found, list) else found

    def __add__(self, others: Any) -> Any:
        joined = super().__add__(others)
        return MapList(joined) if all(isinstance(m, AttributionMap) for m in joined) else joined

    def copy(self) -> "MapList":
        """Another list of the same maps."""
        return MapList(self)

    def plot(
        self,
        *,
        opacity: float = LOOK.opacity,
        smooth: bool = LOOK.smooth,
        robust: bool = LOOK.robust,
        fade: bool = LOOK.fade,
        colour_map: str | None = LOOK.colour_map,
    ) -> "Figure":
        """A figure with each photo, then its maps over it, with scales; `cl.gallery` has one column per method instead.

        Args:
            opacity: Opacity of the maps over their images, 0 to 1.
            smooth: Interpolate between patches instead of showing each patch's own score.
            robust: End the colours of each map at the 2nd and 98th percentile of its scores instead of the lowest and
                highest.
            fade: Let opacity follow the score: low scores, or signed scores near 0, leave the image visible.
            colour_map: A matplotlib colour map; by default one that suits the sign of the scores.

        Raises:
            InputError: there is no map, or an argument is invalid.
        """
        from caap_lab.plots.gallery import Tile, plot_tiles

        if not self:
            raise InputError("There is no map to draw.")
        groups: list[list[Tile]] = []
        before, numbers = -1, self._images()
        for m, number in zip(self, numbers, strict=True):
            if number != before:
                groups.append([Tile(m.image.numpy(), f"image {number}" if max(numbers) else "image")])
                before = number
            scores = m.scores.double().numpy()
            tile = Tile(m.image.numpy(), f"{m.method} for {m.caption}", scores, m.sign == "signed", m.quantity)
            groups[-1].append(tile)
        lines: list[list[Tile]] = [[]]
        for group in groups:  # the maps of one image stay in one line if they fit
            if lines[-1] and len(lines[-1]) + len(group) > _COLUMNS:
                lines.append([])
            lines[-1].extend(group)
            while len(lines[-1]) > _COLUMNS:
                lines.append(lines[-1][_COLUMNS:])
                del lines[-2][_COLUMNS:]
        names = ", ".join(dict.fromkeys(m.model_name for m in self))
        return plot_tiles(lines, Look(opacity, smooth, robust, fade, colour_map), _PANEL, names)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per map and patch: model, method, image (its number in this list), target, row, col, score, rank."""
        import pandas as pd

        frames = []
        for m, image in zip(self, self._images(), strict=True):
            about = {"model": m.model_name, "method": m.method, "image": image, "target": m.caption}
            frames.append(m.to_dataframe().assign(**about)[[*about, "row", "col", "score", "rank"]])
        if not frames:
            return pd.DataFrame(columns=["model", "method", "image", "target", "row", "col", "score", "rank"])
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        """Number of maps, methods, images and targets."""
        if not self:
            return "MapList: no maps"
        said = {
            "of": dict.fromkeys(m.model_name for m in self),
            "for": dict.fromkeys(m.caption for m in self),
        }
        methods = _listed(dict.fromkeys(m.method for m in self))
        count = len(set(self._images()))
        return (
            f"MapList: {counted(len(self), 'map')} by {methods} of {counted(count, 'image')}, "
            f"{', '.join(f'{word} {_listed(names)}' for word, names in said.items())}"
        )

    def _images(self) -> list[int]:
        """For each map, the index of its image among the distinct images."""
        known: list[torch.Tensor] = []
        found = []
        for m in self:
            place = next((i for i, image in enumerate(known) if torch.equal(image, m.image)), len(known))
            if place == len(known):
                known.append(m.image)
            found.append(place)
        return found

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        text = repr(self)
        if not self:
            return {"text/plain": text}
        more = f"; the first {SHOWN} are shown" if len(self) > SHOWN else ""
        return {"text/plain": f"{text}{more}", "image/png": figure_png(self[:SHOWN].plot())}


def _listed(names: Iterable[str]) -> str:
    """At most three names, and the number of further ones."""
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
