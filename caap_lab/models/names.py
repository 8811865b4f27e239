"""Hook points by the names that users type, with the nearest names in the error for an unknown one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from caap_lab.checks import whole_numbers
from caap_lab.errors import InputError
from caap_lab.models.spec import ViTSpec


@dataclass(frozen=True)
class Site:
    """One hook point: its full name, its short name, and its layer (None outside the blocks)."""

    hook: str
    short: str
    layer: int | None

    def block(self, n_layers: int) -> int:
        """The block that the hook point belongs to: -1 before the first block, n_layers after the last."""
        if self.layer is not None:
            return self.layer
        return -1 if self.short in ("embed", "full_embed") else n_layers


def short_name(hook: str) -> str:
    """Short name of a hook: "attn.q" for "blocks.3.attn.hook_q", "logits" for "hook_logits"."""
    return (hook.split(".", 2)[2] if hook.startswith("blocks.") else hook).replace("hook_", "")


def layer_of(hook: str) -> int | None:
    """Layer in a full hook name; None outside the blocks."""
    return int(hook.split(".")[1]) if hook.startswith("blocks.") else None


def find_sites(
    hook_dict: Mapping[str, Any], n_layers: int, name: str, layers: int | Iterable[int] | None = None
) -> list[Site]:
    """The hook points for a name and layers.

    A name is a full TransformerLens name ("blocks.3.attn.hook_q"), or a short one for all given layers: "resid_pre",
    "attn.q" or just "q" if that is unambiguous: "pattern" means that of the blocks, and "attn_pool.pattern" that of a
    head that pools by attention. `layers=None` means all layers.

    Raises:
        InputError: there is no such name or layer, or the short name matches several points.
    """
    if name in hook_dict:
        if layers is not None:
            raise InputError(f"{name!r} already includes its layer; omit layers.")
        return [Site(name, short_name(name), layer_of(name))]
    shorts = {short_name(hook): layer_of(hook) is not None for hook in hook_dict}
    wanted = name.replace("hook_", "")
    fits = [wanted] if wanted in shorts else [s for s in shorts if s.split(".")[-1] == wanted]
    fits = [short for short in fits if not short.startswith("attn_pool.")] or fits
    if len(fits) > 1:
        raise InputError(f"{name!r} could be any of {', '.join(fits)}; write one of these.")
    if not fits:
        raise InputError(unknown_name(name, [*shorts, *hook_dict]))
    (short,) = fits
    if not shorts[short]:
        if layers is not None:
            raise InputError(f"{name!r} is not inside a block; omit layers.")
        return [Site(next(h for h in hook_dict if short_name(h) == short), short, None)]
    chosen = check_layers(layers, n_layers)
    by_layer = {layer_of(hook): hook for hook in hook_dict if short_name(hook) == short}
    return [Site(by_layer[layer], short, layer) for layer in chosen]


def check_layers(layers: Any, n_layers: int) -> list[int]:
    """Layers as a list of numbers from 0 to n_layers - 1; None means all."""
    if layers is None:
        return list(range(n_layers))
    chosen = whole_numbers("layers", layers)
    wrong = [layer for layer in chosen if not 0 <= layer < n_layers]
    if wrong:
        raise InputError(f"Layer {wrong[0]} does not exist: this model has layers 0 to {n_layers - 1}.")
    if not chosen:
        raise InputError("No layers were given; omit layers to select all of them.")
    return chosen


def unknown_name(name: str, known: Sequence[str]) -> str:
    """The error message for an unknown name, with the nearest names."""
    return f"There is no hook point named {name!r}.{nearest(name, known)} All names are in model.hook_dict."


def nearest(name: str, known: Sequence[str]) -> str:
    """A sentence with the names nearest to an unknown one, with a leading space; empty if none is near."""
    near = get_close_matches(name, known, n=4, cutoff=0.4)
    return f" Nearest: {', '.join(near)}." if near else ""


def activation_shape(spec: ViTSpec, short: str, d_pooled: tuple[int, ...], n_classes: int) -> tuple[int, ...]:
    """Shape of the activation at a hook point for one image, without the batch axis."""
    leaf = short.split(".")[-1]
    if leaf in ("q", "k", "v", "z"):
        return (spec.n_tokens, spec.n_heads, spec.d_head)
    if leaf == "result":
        return (spec.n_tokens, spec.n_heads, spec.d_model)
    if leaf in ("attn_scores", "pattern"):
        return (spec.n_heads, spec.n_tokens, spec.n_tokens)
    if leaf in ("pre", "pre_linear", "post"):
        return (spec.n_tokens, spec.d_mlp)
    if leaf == "embed":
        return (spec.n_patches, spec.d_model)
    if leaf == "pooled":
        return d_pooled
    if leaf == "logits":
        return (n_classes,)
    return (spec.n_tokens, spec.d_model)
