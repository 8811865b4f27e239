"""Stored activations by the names that users type: TransformerLens's short names, and those of this package."""

import re
from collections.abc import Collection, Sequence
from numbers import Integral
from typing import Any

from caap_lab.errors import InputError
from caap_lab.models.names import layer_of, nearest, short_name

_ALIASES = {
    "attn": "pattern",
    "attn_logits": "attn_scores",
    "key": "k",
    "query": "q",
    "value": "v",
    "mlp_pre": "pre",
    "mlp_post": "post",
}
_FEW = 8
"""Largest number of kinds of activations that a message lists."""
_PARTS = {"a": "attn", "attention": "attn", "m": "mlp", "b": "", "block": "", "blocks": ""}


def find_stored(hooks: Collection[str], key: Any, n_layers: int | None, where: str) -> str:
    """The full name of a stored activation.

    A key is a full name ("blocks.3.attn.hook_q"), the short name of a hook point outside the blocks ("embed",
    "logits"), or a short name with its layer, ("q", 3) or ("normalized", 3, "ln1"); ("q", -1) is the last layer of the
    model. Forms such as "q3" and "query" mean the same as in TransformerLens.

    Args:
        hooks: Full names of the stored activations.
        key: The requested key.
        n_layers: Number of blocks of the model, for negative layers; None if not known.
        where: What holds the activations, for messages: "this cache".

    Raises:
        InputError: there is no such activation, or the key matches several.
    """
    name, layer, fits = _fits(hooks, key, n_layers, where)
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise InputError(f"{name!r} could be any of {', '.join(map(short_name, fits))}; write one of these.")
    layers = sorted({n for hook in hooks if _is_called(hook, name) and (n := layer_of(hook)) is not None})
    if layers and layer is None:
        raise InputError(f"{name!r} is an activation of every layer; give the layer, as in [{name!r}, {layers[0]}].")
    if layers:
        raise InputError(f"{name!r} of layer {layer} is not in {where}, which has it for layers {ranges(layers)}.")
    kinds = list(dict.fromkeys(map(short_name, hooks)))
    held = contents(hooks) if len(kinds) <= _FEW else f"{len(hooks)} activations of {len(kinds)} kinds"
    at = "" if layer is None else f" of layer {layer}"
    raise InputError(f"{name!r}{at} is not in {where}, which holds {held}.{nearest(name, kinds)}")


def is_stored(hooks: Collection[str], key: Any, n_layers: int | None) -> bool:
    """True if a key matches an activation; see `find_stored`."""
    try:
        return bool(_fits(hooks, key, n_layers, "")[2])
    except InputError:
        return False


def contents(hooks: Collection[str]) -> str:
    """Short names and layers as text: "resid_pre (layers 0-3), logits"."""
    layers: dict[str, list[int]] = {}
    for hook in hooks:
        layer = layer_of(hook)
        layers.setdefault(short_name(hook), []).extend([] if layer is None else [layer])
    named = (name + (f" (layers {ranges(numbers)})" if numbers else "") for name, numbers in layers.items())
    return ", ".join(named) or "nothing"


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as ranges: 0, 1, 2, 5 -> "0-2, 5"."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _fits(hooks: Collection[str], key: Any, n_layers: int | None, where: str) -> tuple[str, int | None, list[str]]:
    """The name and layer in a key, and the full names that match them."""
    name, layer, part = (*(key if isinstance(key, tuple) else (key,)), None, None, None)[:3]
    fitting = isinstance(name, str) and (layer is None or (isinstance(layer, Integral) and not isinstance(layer, bool)))
    if not fitting or not isinstance(part, str | None) or (isinstance(key, tuple) and len(key) > 3):
        raise InputError(
            f"{key!r} is not the name of an activation; write 'logits', ('pattern', 3), ('normalized', 3, 'ln1') or a "
            "full name."
        )
    if name in hooks and layer is None:
        return name, None, [name]
    compact = re.fullmatch(r"([a-z_]+?)_?(\d+)([a-z]?\w*)", name)
    if layer is None and compact and not any(_is_called(hook, name) for hook in hooks):
        name, layer, part = compact[1], int(compact[2]), compact[3] or None
    if layer is not None and layer < 0:
        if n_layers is None:
            raise InputError(
                f"{where[:1].upper() + where[1:]} was written by an older version and does not know the number of "
                f"layers; give a layer from 0 instead of {layer}."
            )
        if layer < -n_layers:
            raise InputError(f"Layer {layer} does not exist: this model has {n_layers} layers.")
        layer = n_layers + int(layer)
    name = _ALIASES.get(name, name) if not any(_is_called(hook, name) for hook in hooks) else name
    if part is not None:
        part = _PARTS.get(part, part)
        name = f"{part}.{name.replace('hook_', '')}" if part and not name.startswith(f"{part}.") else name
    return name, layer, [hook for hook in hooks if layer_of(hook) == layer and _is_called(hook, name)]


def _is_called(hook: str, name: str) -> bool:
    """Whether `name` is the short name of a hook, or its last part."""
    short, wanted = short_name(hook), name.replace("hook_", "")
    return wanted in (short, short.rsplit(".", 1)[-1])
