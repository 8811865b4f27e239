"""All attribution methods under one call."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from caap_lab.attribution.caap import caap
from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError
from caap_lab.hooked.base import Images
from caap_lab.hooked.model import HookedViT
from caap_lab.hooked.names import nearest

if TYPE_CHECKING:
    import pandas as pd

MethodFunction = Callable[..., AttributionMap | list[AttributionMap]]


@dataclass(frozen=True)
class Method:
    """An attribution method and what a user wants to know before choosing it."""

    name: str
    family: str
    source: str
    needs: str
    cost: str
    """Forward and backward passes an image."""
    class_specific: bool
    function: MethodFunction


METHODS: dict[str, Method] = {
    "caap": Method(
        name="caap",
        family="activation patching",
        source="CAAP, arXiv 2603.13652",
        needs="forward passes only",
        cost="about 5 forward (clamped); one forward a patch (free)",
        class_specific=True,
        function=caap,
    ),
}


def attribute(
    model: HookedViT,
    images: Images,
    method: str = "caap",
    target: int | str | Sequence[int | str] | None = None,
    **options: Any,
) -> AttributionMap | list[AttributionMap]:
    """Maps by any method.

    Args:
        model: The model.
        images: One image, or several.
        method: A name from `methods()`.
        target: Class index, WordNet id or word; one for all images or one each; None for the model's own prediction.
        **options: The method's own options.

    Returns:
        A map for one image, a list of maps for several.
    """
    if method not in METHODS:
        raise unknown_method(method)
    return METHODS[method].function(model, images, target, **options)


def unknown_method(method: str) -> InputError:
    """The error for a name that is no method, with the nearest names."""
    return InputError(f"There is no method {method!r}.{nearest(method, list(METHODS))} `caap-lab methods` lists all.")


def methods() -> "pd.DataFrame":
    """All methods: name, family, source, needs, cost an image, class-specific or not."""
    import pandas as pd

    rows = [{k: v for k, v in asdict(method).items() if k != "function"} for method in METHODS.values()]
    return pd.DataFrame(rows).set_index("name")
