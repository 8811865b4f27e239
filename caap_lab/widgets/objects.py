"""The objects of a photo as patches, from masks or from the brush."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.regions import BACKGROUND, Masks, patch_regions
from caap_lab.plots.style import COLOURS

PAINTABLE = 2
"""Number of objects that can be painted if fewer masks, or none, are given."""
OBJECT_COLOURS = tuple(COLOURS[place] for place in (0, 4, 2, 3, 5))
"""Colours that colour-blind people can distinguish from each other and from the outline of the chosen patch."""
OPACITY = 0x8C
"""Opacity of an object's colour over the photo, as for the brush."""


class Objects:
    """The object of each patch, and their names.

    Attributes:
        names: Names of the objects.
        regions: Each patch's object from 0, -1 for background.
        as_given: True if nothing has been painted over the masks.
    """

    def __init__(self, model: HookedModel, masks: Masks | None, overlap: float) -> None:
        """Find the patches of the masks, if there are any.

        Raises:
            InputError: a mask does not fit, or no patch belongs to any mask.
        """
        self.names: list[str] = []
        self.regions: Int[np.ndarray, "row col"] = np.full(model.grid, BACKGROUND)
        self.as_given = masks is not None
        if masks is not None:
            self.regions = patch_regions(masks, model, overlap=overlap)
            if (self.regions == BACKGROUND).all():
                raise InputError(f"No object covers a fraction of {overlap} of any patch; use a lower overlap.")
            if isinstance(masks, Mapping):
                self.names = [str(name) for name in masks]
            else:
                count = 1 if getattr(masks, "ndim", 0) == 2 else len(masks)
                self.names = [f"object {place + 1}" for place in range(count)]
        spare = (name for name in (f"object {place + 1}" for place in range(2 * PAINTABLE)) if name not in self.names)
        self.names += [next(spare) for _ in range(len(self.names), PAINTABLE)]

    def cells(self, place: int) -> list[int]:
        """Numbers of the patches of an object, in reading order."""
        return np.flatnonzero(self.regions == place).tolist()

    def paint(self, place: int, cells: Sequence[int]) -> bool:
        """Assign exactly these patches to an object; False if they already are.

        A patch belongs to at most one object: the last one painted.
        """
        if list(cells) == self.cells(place):
            return False
        flat = self.regions.reshape(-1).copy()
        flat[flat == place] = BACKGROUND
        flat[list(cells)] = place
        self.regions = flat.reshape(self.regions.shape)
        self.as_given = False
        return True

    @property
    def masks(self) -> dict[str, Bool[np.ndarray, "row col"]]:
        """The patches of each object that has any."""
        return {name: self.regions == place for place, name in enumerate(self.names) if (self.regions == place).any()}

    def word(self, cell: int) -> str:
        """Name of the object that a patch belongs to."""
        place = int(self.regions.reshape(-1)[cell])
        return "background" if place == BACKGROUND else self.names[place]

    def colour(self, place: int) -> str:
        """The colour of an object, as #rrggbb."""
        return OBJECT_COLOURS[place % len(OBJECT_COLOURS)]

    def colours(self, leave_out: int | None = None) -> UInt8[np.ndarray, "row col 4"]:
        """The colour of each patch's object; background and the omitted object are transparent."""
        pixels = np.zeros((*self.regions.shape, 4), dtype=np.uint8)
        for place in range(len(self.names)):
            if place != leave_out:
                pixels[self.regions == place] = [*bytes.fromhex(self.colour(place)[1:]), OPACITY]
        return pixels
