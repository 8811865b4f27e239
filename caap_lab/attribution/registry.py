"""All attribution methods, and `attribute`, which runs any of them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from torch import Tensor

from caap_lab.attribution.atman import ATMAN
from caap_lab.attribution.attcat import ATTCAT
from caap_lab.attribution.attn_lrp import ATTN_LRP
from caap_lab.attribution.caap import CAAP
from caap_lab.attribution.full_grad_plus import FULL_GRAD_PLUS
from caap_lab.attribution.gen_att import GEN_ATT
from caap_lab.attribution.grad_cam import GRAD_CAM
from caap_lab.attribution.grad_cam_plus_plus import GRAD_CAM_PLUS_PLUS
from caap_lab.attribution.grad_sam import GRAD_SAM
from caap_lab.attribution.input_x_gradient import INPUT_X_GRADIENT
from caap_lab.attribution.integrated_gradients import INTEGRATED_GRADIENTS
from caap_lab.attribution.ixg import IXG_PLUS, LIBRA_IXG_PLUS
from caap_lab.attribution.legrad import LEGRAD
from caap_lab.attribution.map import AttributionMap, Sign
from caap_lab.attribution.map_list import MapList
from caap_lab.attribution.mda import MDA
from caap_lab.attribution.method import METHODS, Compute, Estimate, Method, check_options, method
from caap_lab.attribution.mutex import MUTEX
from caap_lab.attribution.occlusion import OCCLUSION
from caap_lab.attribution.rank_sum import RANK_SUM_METHOD, parts_of
from caap_lab.attribution.rise import RISE
from caap_lab.attribution.rollout import ROLLOUT
from caap_lab.attribution.score_cam import SCORE_CAM
from caap_lab.attribution.shapley import SHAPLEY
from caap_lab.attribution.simple import SIMPLE_DELETION, SIMPLE_INSERTION
from caap_lab.attribution.smoothgrad import SMOOTHGRAD
from caap_lab.attribution.tam import TAM
from caap_lab.attribution.tis import TIS
from caap_lab.attribution.transformer_attribution import TRANSFORMER_ATTRIBUTION
from caap_lab.attribution.vit_cx import VIT_CX
from caap_lab.digests.code import code_digest
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.names import nearest
from caap_lab.models.neighbourhoods import own_neighbourhoods
from caap_lab.models.targets import TargetLike, Targets
from caap_lab.signatures import shows_options
from caap_lab.variant import Variant, parse_variant

if TYPE_CHECKING:
    import pandas as pd

METHODS |= {
    one.name: one
    for one in (
        # the paper's own comparison, in its order
        CAAP,
        GRAD_CAM,
        ROLLOUT,
        TRANSFORMER_ATTRIBUTION,
        VIT_CX,
        TAM,
        IXG_PLUS,
        LIBRA_IXG_PLUS,
        MDA,
        MUTEX,
        SIMPLE_INSERTION,
        SIMPLE_DELETION,
        # related work
        INPUT_X_GRADIENT,
        INTEGRATED_GRADIENTS,
        SMOOTHGRAD,
        FULL_GRAD_PLUS,
        GRAD_CAM_PLUS_PLUS,
        SCORE_CAM,
        ATTCAT,
        GRAD_SAM,
        GEN_ATT,
        RISE,
        OCCLUSION,
        TIS,
        ATMAN,
        LEGRAD,
        ATTN_LRP,
        SHAPLEY,
        # combinations
        RANK_SUM_METHOD,
    )
}


_BUILT_IN = frozenset(METHODS)
RUN_OPTIONS = ("batch_size", "progress")
"""Options of every method, which do not change results."""
_OWN: dict[str, tuple[Compute, dict[str, Any]]] = {}
"""Functions that users registered, with their facts: the arguments of `register`."""


def attribute(
    model: HookedModel,
    images: Images,
    method: str = "caap",
    target: TargetLike | Sequence[TargetLike] | None = None,
    *,
    batch_size: int | None = None,
    progress: bool = True,
    **options: Any,
) -> AttributionMap | MapList:
    """A map by any method, or a list of maps for several images.

    ```python
    m = cl.attribute(model, image, "caap")    # of the model's own prediction
    maps = cl.attribute(model, images, "transformer_attribution", 4)    # of class 4
    cl.attribute(model, image, "caap:cutoff=3", cl.contrast(4, 9))      # why 4 rather than 9
    ```

    Args:
        model: The model.
        images: One image, or several.
        method: A name from `methods()`, with or without options: "caap:cutoff=3,attention=cached" is short for
            method="caap", cutoff=3, attention="cached".
        target: What is explained: a class (index, WordNet id or word), `cl.contrast(a, b)`, `cl.direction(...)` or a
            function of the logits [row, class]; one for all images, or one per image. None is the model's own
            prediction. For models whose classes are text embeddings (CLIP), a class means its contrast to all; see
            `cl.logit`.
        batch_size: Images run at once; by default chosen by the method. It does not change results.
        progress: Show a progress bar for more than one image.
        **options: The method's own options: `cutoff` of "caap", `steps` of "integrated_gradients" and so on.

    Returns:
        A map for one image, a list of maps for several.

    Raises:
        InputError: an argument is invalid; raised before anything runs.
    """
    options |= {} if batch_size is None else {"batch_size": batch_size}
    options |= {} if progress else {"progress": progress}
    if isinstance(method, str) and method not in METHODS and ":" in method:
        variant = parse_variant(method)
        for option in options:
            if option in variant.options:
                raise InputError(f"{option} is given both in method={method!r} and as an argument; give it once.")
        method, options = variant.name, {**variant.options, **options}
    return find_method(method).function(model, images, target, **options)


def find_method(name: object) -> Method:
    """The method with this name.

    Raises:
        InputError: there is none; the message gives the nearest names.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise unknown_method(name)
    return METHODS[name]


def check_variant(variant: Variant) -> Method:
    """The method of a variant, if it has the variant's options on some kind of model.

    Raises:
        InputError: there is no such method, or it has no such option; the message gives the nearest names.
    """
    chosen = find_method(variant.name)
    own = dict.fromkeys(option for options in chosen.options.values() for option in options)
    check_options(chosen.name, {k: v for k, v in variant.options.items() if k not in RUN_OPTIONS}, own)
    return chosen


class MethodFacts(TypedDict, total=False):
    """Facts about a user's own method."""

    family: str
    source: str
    needs: str
    sign: Sign
    forwards: float | str
    backwards: float | str
    class_specific: bool
    score: str
    reads: str


_NOT_SAID: MethodFacts = {
    "family": "own",
    "source": "",
    "needs": "",
    "sign": "level",
    "forwards": "",
    "backwards": "",
}


@shows_options(_NOT_SAID, method)
def register(name: str, compute: Compute, **facts: Unpack[MethodFacts]) -> None:
    """Register your own function as a method.

    ```python
    cl.register("uniform", lambda model, images, targets: torch.ones(len(images), *model.grid))
    m = cl.attribute(model, image, "uniform")
    ```

    Args:
        name: Name of the method; your own names may be registered again, built-in ones may not.
        compute: (model, images [batch, 3, height, width], targets, **options) -> scores [batch, row, col], or scores of
            all classes at once, [batch, row, col, classes]. Keyword-only parameters become the method's options. Scores
            of one image must not depend on the others. If all targets are logits of classes, `targets` is a tensor
            [batch] of their indices. Otherwise, for contrasts (such as classes of text embeddings), directions and
            functions of the logits, it is an object that computes them: `targets.value(model(images))` is the explained
            quantity [batch], with its graph.
        **facts: Facts shown by `methods()`: family, source, needs, forwards, backwards, class_specific, sign (by
            default "level", which claims least) and `score`; and `reads`, what the function reads from a model:
            "attention" (the default), for Vision Transformers; or "pixels", only images and logits, for every model.

    Raises:
        InputError: the name belongs to a built-in method.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"A method needs a name, such as 'mine', not {name!r}.")
    if not callable(compute):
        raise InputError(f"A method is a function (model, images, targets) -> scores, not {type(compute).__name__}.")
    if name in _BUILT_IN:
        raise InputError(f"{name!r} is a built-in method; register yours under another name.")
    said: dict[str, Any] = {**_NOT_SAID, **facts}
    METHODS[name] = method(_with_indices(name, compute), name=name, **said)
    _OWN[name] = (compute, dict(facts))


def _with_indices(name: str, compute: Compute) -> Compute:
    """A user's function, which gets class indices if all targets are classes."""

    @wraps(compute)
    def with_indices(model: HookedModel, images: Tensor, targets: Targets, **options: Any) -> Tensor | Estimate:
        indices = targets.indices
        if indices is not None:
            return compute(model, images, torch.tensor(indices, device=model.device, dtype=torch.long), **options)
        try:
            return compute(model, images, targets, **options)
        except (TypeError, AttributeError, LookupError, ValueError, RuntimeError) as error:
            if isinstance(error, (InputError, torch.OutOfMemoryError)):
                raise
            raise InputError(
                f"The method {name!r} fails where what is explained is no class's own logit but {targets.name}: "
                f"{type(error).__name__}: {error}. If it takes `targets` as indices of classes: "
                "`targets.value(model(images))` reads any target, and cl.logit(...) of a class gives the index."
            ) from error

    return with_indices


def registered(name: str) -> tuple[Compute, dict[str, Any]] | None:
    """The arguments of `register` for a user's own method; None for a built-in one."""
    return _OWN.get(name)


def method_digest(name: str, options: Mapping[str, Any] | None = None) -> str:
    """Hash of the current code of a user's own method; empty for a built-in one.

    The offsets of a neighbourhood of the user's own are a part of it, where the options name one; of a rank sum, the
    code of its parts.

    Raises:
        InputError: the method depends on an object whose content cannot be hashed.
    """
    if name == "rank_sum":
        return " ".join(filter(None, (method_digest(part.name, part.options) for part in parts_of(options or {}))))
    code = code_digest(_OWN[name][0], f"The method {name!r}", identity=fingerprint_of) if name in _OWN else ""
    neighbourhood, own = (options or {}).get("neighbourhood"), own_neighbourhoods()
    return f"{code} {sorted(own[neighbourhood])}" if isinstance(neighbourhood, str) and neighbourhood in own else code


def fingerprint_of(value: object) -> str | None:
    """A hooked model's fingerprint, whatever it has cached; None for any other object."""
    return value.fingerprint if isinstance(value, HookedModel) else None


def unknown_method(method: object) -> InputError:
    """The error for an unknown method name, with the nearest names."""
    if not isinstance(method, str):
        return InputError(
            f"method={method!r} is not the name of a method, such as 'caap'. `cl.methods()` lists them; "
            "cl.register(name, function) registers your own."
        )
    return InputError(f"There is no method {method!r}.{nearest(method, list(METHODS))} `caap-lab methods` lists all.")


def methods() -> "pd.DataFrame":
    """A table of all methods: name, family, source, needs, passes per image, class-specific or not, sign of scores.

    ```python
    cl.methods()
    cl.methods().query("family == 'gradient'")
    ```
    """
    from caap_lab.tables.frame import Frame

    names = [field.name for field in fields(Method) if field.name not in ("options", "prepare")]
    columns = ["models" if name == "reads" else name for name in names]  # the kinds that provide what it reads
    rows = [{column: getattr(one, column) for column in columns} for one in METHODS.values()]
    for row in rows:
        row.update(forwards=row["forwards"].text, backwards=row["backwards"].text)
    return Frame(rows).set_index("name")
