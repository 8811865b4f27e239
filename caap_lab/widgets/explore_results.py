"""The results of an explorer, cached so that returning to a photo, class or method needs no second run."""

from collections import OrderedDict
from typing import Any

from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS
from caap_lab.models.classes import ClassNames
from caap_lab.models.targets import Direction, Given
from caap_lab.widgets.class_tips import class_tips

KEPT = 128
"""Number of maps kept in memory: all methods, for a few classes and photos."""
Logits = Float[Tensor, "classes"]
Box = tuple[int, ...]
"""Top, left, bottom and right patch; the last two are inside it."""


class ExploreResults:
    """Maps, and logits of whole images, of boxes and of the blank.

    Attributes:
        logits: Logits of each photo, by its index.
        blank: Logits of the blank image, once they are known.
        boxes: Logits of the blank with a box of a photo inserted, by the photo's index and the box.
        failures: Why there is no map, by the photo's index, the method and the target.
    """

    def __init__(self) -> None:
        self.logits: dict[int, Logits] = {}
        self.blank: Logits | None = None
        self.boxes: dict[tuple[int, Box], Logits] = {}
        self.failures: dict[tuple[int, str, Any], str] = {}
        self._maps: OrderedDict[tuple[int, str, Given | None], AttributionMap] = OrderedDict()
        self._tips: dict[int, list[str]] = {}

    def predicted(self, place: int) -> int | None:
        """The likeliest class of a photo; None if it is not known yet."""
        logits = self.logits.get(place)
        return None if logits is None else int(logits.argmax())

    def likeliest(self, place: int, besides: int | None) -> int | None:
        """The likeliest class of a photo except one; None if it is not known yet or there is no other."""
        logits = self.logits.get(place)
        order = [] if logits is None else logits.argsort(descending=True, stable=True)[:2].tolist()
        return next((index for index in order if index != besides), None)

    def map(self, place: int, method: str, target: Given | None) -> AttributionMap | None:
        """The map of a photo, if it is computed; also of another class if one pass scores all classes."""
        if target is None:
            return None
        of_all_classes = self._maps.get((place, method, None))
        needs_its_own = isinstance(target, Direction) and METHODS[method].class_specific  # a direction is not a class
        if of_all_classes is None or needs_its_own:
            return self._maps.get((place, method, target))
        return of_all_classes.for_target(target) if of_all_classes.all_scores is not None else of_all_classes

    def keep_map(self, place: int, m: AttributionMap) -> None:
        """Store a computed map."""
        serves_all_classes = m.all_scores is not None or not METHODS[m.method].class_specific
        if serves_all_classes:
            self._maps[(place, m.method, None)] = m
        if not serves_all_classes or isinstance(m.target, Direction):
            self._maps[(place, m.method, m.target)] = m
        while len(self._maps) > KEPT:
            self._maps.popitem(last=False)

    def caap_map(self, place: int) -> AttributionMap | None:
        """CAAP's map of a photo with the scores of all classes, whatever its target."""
        return self._maps.get((place, "caap", None))

    def tips(self, place: int, grid: tuple[int, int], names: ClassNames) -> list[str]:
        """The classes favoured by each patch of a photo; none if they are not known yet, or for other grids."""
        m = self.caap_map(place)
        if m is None or m.grid != grid:
            return []
        if place not in self._tips:
            self._tips[place] = class_tips(m, names)
        return self._tips[place]
