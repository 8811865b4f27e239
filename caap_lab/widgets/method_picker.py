"""Choosing methods: check boxes by family, with the cost of each method on this model."""

from collections.abc import Sequence
from typing import Any

import anywidget
import traitlets

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.models.base import HookedModel
from caap_lab.widgets.run_times import stated_passes
from caap_lab.widgets.scripts import joined, styles


class MethodPicker(anywidget.AnyWidget):
    """A list of check boxes that can be searched; at least one stays checked.

    Attributes:
        methods: Name, family, source and cost of each, in the registry's order; the cost is in forward passes of this
            model, a backward pass counting as two, and None if the method states none.
        value: Names of the chosen ones, in the registry's order.
    """

    _esm = joined("elements.js", "method_picker.js")
    _css = styles("widgets.css", "controls.css")
    methods = traitlets.List(traitlets.Dict()).tag(sync=True)
    value = traitlets.Tuple().tag(sync=True)

    def __init__(self, options: Sequence[str], value: Sequence[str], model: HookedModel) -> None:
        """Create the check boxes.

        Args:
            options: Names of the methods that run on the model.
            value: Names of the methods that are checked initially.
            model: The model, whose size determines the cost of a map.
        """
        size = ModelSize.of(model)
        super().__init__(methods=[_described(name, size) for name in METHODS if name in options], value=tuple(value))

    @property
    def options(self) -> tuple[str, ...]:
        """Names of all methods that can be chosen."""
        return tuple(method["name"] for method in self.methods)

    @traitlets.validate("value")
    def _in_order(self, proposal: Any) -> tuple[str, ...]:
        unknown = [name for name in proposal["value"] if name not in self.options]
        if unknown:
            raise traitlets.TraitError(f"{unknown[0]} is not one of these methods: {', '.join(self.options)}.")
        chosen = tuple(name for name in self.options if name in proposal["value"])
        return chosen or self.value or self.options[:1]


def _described(name: str, size: ModelSize) -> dict[str, Any]:
    method = METHODS[name]
    return {
        "name": name,
        "family": method.family,
        "source": method.source,
        "needs": method.needs,
        "passes": stated_passes(name, size),
    }
