"""A patch: which activations to replace, and by what. Edits are out of place: caches and inputs do not change."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.activations.directions import DirectionEdit
from caap_lab.activations.store import ActivationStore
from caap_lab.checks import whole_numbers
from caap_lab.errors import InputError
from caap_lab.models.names import Site
from caap_lab.models.tokens import Tokens
from caap_lab.models.vit import HookedViT

HEADED = ("q", "k", "v", "z", "result", "attn_scores", "pattern")
"""Last parts of the names of hook points with heads."""
_AFTER_LAST_MIX = (
    "attn.q",
    "attn.attn_scores",
    "attn.pattern",
    "attn.z",
    "attn.result",
    "attn_out",
    "resid_mid",
    "ln2.normalized",
    "mlp.pre",
    "mlp.pre_linear",
    "mlp.post",
    "mlp_out",
    "resid_post",
)
"""Hook points of the last block after which no token reads another: only tokens that the head reads matter there."""

Edit = Callable[[Tensor, HookPoint], Tensor]


@dataclass(frozen=True)
class Patch:
    """A replacement of the activations `name` at some layers and tokens by those of a source.

    ```python
    zero = cl.Patch("z", 3, heads=[0, 2])    # two heads of layer 3
    mean = cl.Patch("resid_pre", 5, tokens=cl.tokens.patches(), source=model.record(images, "resid_pre").mean())
    logits = cl.run_patched(model, image, [zero, mean])
    ```
    """

    name: str
    """Hook name, full or short: "resid_pre", "z", "pattern", "blocks.3.hook_mlp_out", "logits"."""
    layers: int | Iterable[int] | None = None
    """Layers, None for all; omitted for a full name or a hook point outside the blocks."""
    tokens: (
        Tokens | Sequence[int] | Int[Tensor | np.ndarray, " token"] | Bool[Tensor | np.ndarray, "*batch token"] | None
    ) = None
    """A choice from `caap_lab.tokens`, token numbers, or a boolean tensor [batch, token] for a different choice per
    image; None for all tokens. For scores and pattern these are the query tokens. The learned queries of a pooling head
    are not tokens: omit tokens for its q, scores, pattern and z."""
    source: ActivationStore | Tensor | DirectionEdit | Mapping[int, Tensor | DirectionEdit] | float = field(
        default=0.0, kw_only=True
    )
    """A store, a tensor shaped like the activation (with a batch axis of 1 or the batch's size, or none), an edit from
    `caap_lab.directions`, a tensor or edit per layer, or a number. Zeros, the default, are far from what a model has
    seen in training: `store.mean()`, `.shuffled()` and `.noise()` are less extreme."""
    heads: int | Sequence[int] | None = field(default=None, kw_only=True)
    """Attention heads, for q, k, v, z, result, attn_scores and pattern; None for all."""

    def __post_init__(self) -> None:
        """Store layers as a list, so that a generator is not exhausted by the first run."""
        if isinstance(self.layers, Iterable):
            object.__setattr__(self, "layers", list(self.layers))

    def __repr__(self) -> str:
        """The call that creates it, with a large source summarised in one line."""
        source: Any = self.source
        if isinstance(source, ActivationStore):
            source = repr(source).split("\n", 1)[0]
        elif isinstance(source, Tensor) and source.numel() > 1:
            source = f"tensor {list(source.shape)}"
        chosen = {"layers": self.layers, "tokens": self.tokens, "heads": self.heads}
        given = "".join(f", {name}={value}" for name, value in chosen.items() if value is not None)
        return f"Patch({self.name!r}{given}, source={source})"

    def sites(self, model: HookedViT) -> list[Site]:
        """The hook points that this patch edits."""
        return model.find(self.name, self.layers)


Known = dict[int, dict[str, Tensor]]
"""Stores (by `id`) already checked to be of this model, with the activations read from them, by hook name."""


def edits(
    model: HookedViT, patch: Patch, batch: int, known: Known | None = None, rows: slice | None = None
) -> list[tuple[Site, Edit]]:
    """The edits of a patch for a batch of a given size, all checked before anything runs.

    Args:
        model: The model.
        patch: The patch.
        batch: Number of images.
        known: A cache for calls with the same rows, so that stores are checked and read once: a check reads all
            weights.
        rows: Images of the batch to which the edits apply, if not all.

    Raises:
        InputError: the patch is invalid for the model, or could not change the output.
    """
    made, reaches = possible_edits(model, patch, batch, known, rows)
    if not reaches:
        raise without_effect(model, patch)
    return made


def without_effect(model: HookedViT, patch: Patch) -> InputError:
    """The error for a patch that cannot change the logits."""
    return InputError(
        f"Patching {patch.name} of these tokens in the last block cannot change the logits: after its attention no "
        f"token reads another, and the head reads only {_read_roles(model)}."
    )


def as_patches(given: Any) -> list[Patch]:
    """One patch or several, as a list.

    Raises:
        InputError: they are something else.
    """
    patches = [given] if isinstance(given, Patch) or not isinstance(given, Iterable) else list(given)
    wrong = [one for one in patches if not isinstance(one, Patch)]
    if isinstance(given, str) or wrong:
        other = given if isinstance(given, str) else wrong[0]
        what = repr(other) if isinstance(other, str) else type(other).__name__
        raise InputError(f"Expected a cl.Patch, or a list of them, not {what}; for example cl.Patch('resid_pre', 3).")
    return patches


def possible_edits(
    model: HookedViT, patch: Patch, batch: int, known: Known | None = None, rows: slice | None = None
) -> tuple[list[tuple[Site, Edit]], bool]:
    """As `edits`, but returns whether the edits can affect the logits instead of raising an error.

    They cannot if they only patch tokens that the head does not read, after the attention of the last block.
    """
    sites = patch.sites(model)
    known = {} if known is None else known
    if isinstance(patch.source, ActivationStore) and id(patch.source) not in known:
        patch.source.require_model(model)
        known[id(patch.source)] = {}
    made: list[tuple[Site, Edit]] = []
    effective = False
    for site in sites:
        shape = model.activation_shape(site.hook)
        chosen, reaches = _selection(model, patch, site, shape, batch)
        effective = effective or reaches
        source = _source(patch, site, shape, batch, known, rows)
        made.append((site, _replacement(_of_rows(chosen, rows), source)))
    return made, effective


def _of_rows(tensor: Tensor, rows: slice | None) -> Tensor:
    """Rows of a tensor with one entry per image; a tensor with one entry for all is unchanged."""
    return tensor if rows is None or len(tensor) == 1 else tensor[rows]


def _replacement(chosen: Bool[Tensor, "..."], source: Tensor | DirectionEdit | float) -> Edit:
    def edit(activation: Tensor, hook: HookPoint) -> Tensor:
        if isinstance(source, DirectionEdit):
            new = source(activation)
        else:
            new = source.to(activation) if isinstance(source, Tensor) else activation.new_full((), source)
        return torch.where(chosen.to(activation.device), new, activation)

    return edit


def _selection(
    model: HookedViT, patch: Patch, site: Site, shape: tuple[int, ...], batch: int
) -> tuple[Bool[Tensor, "..."], bool]:
    """Mask that broadcasts over [batch, *shape], and whether an edit there can reach the logits."""
    leaf = site.short.split(".")[-1]
    if leaf in ("pooled", "logits"):
        if patch.tokens is not None or patch.heads is not None:
            raise InputError(f"{patch.name!r} has no tokens or heads; omit them.")
        return torch.ones(1, *[1] * len(shape), dtype=torch.bool, device="cpu"), True
    tokens = token_mask(model, patch, batch)
    pooling = model.readout.attention if site.short.startswith("attn_pool.") else None
    if pooling is not None:
        if pooling.n_latents is None or leaf in ("k", "v"):
            tokens = tokens[:, list(model.spec.read_tokens)]
        elif patch.tokens is None:
            tokens = tokens[:, :1]
        else:
            raise InputError(
                f"The queries of the pooling head are {pooling.n_latents} learned latents, not tokens; omit tokens for "
                f"{patch.name!r}, or patch attn_pool.k or attn_pool.v of these tokens."
            )
        heads = head_mask(model, patch, leaf, pooling.n_heads)
        heard = tokens if leaf in ("k", "v") else tokens[:, pooling.answers]
        return _headed(tokens, heads, leaf), bool(heard.any())
    reaches = True
    if site.short == "ln_final.normalized" or (site.layer == model.spec.n_layers - 1 and site.short in _AFTER_LAST_MIX):
        reaches = bool(tokens[:, list(model.spec.read_tokens)].any())
    if leaf == "embed":
        if patch.tokens is not None and tokens[:, : model.spec.n_prefix].any():
            raise InputError("'embed' holds patch tokens only; prefix tokens are added at 'full_embed'.")
        tokens = tokens[:, model.spec.n_prefix :]
    heads = head_mask(model, patch, leaf, model.spec.n_heads)
    return _headed(tokens, heads, leaf) if leaf in HEADED else tokens[:, :, None], reaches


def _headed(
    tokens: Bool[Tensor, "batch token"], heads: Bool[Tensor, " head"], leaf: str
) -> Bool[Tensor, "batch token head 1"] | Bool[Tensor, "batch head token 1"]:
    """Mask of tokens and heads over the activation of a hook point that has both."""
    if leaf in ("attn_scores", "pattern"):
        return tokens[:, None, :, None] & heads[None, :, None, None]
    return tokens[:, :, None, None] & heads[None, None, :, None]


def token_mask(model: HookedViT, patch: Patch, batch: int) -> Bool[Tensor, "batch token"]:
    """Mask of the tokens of a patch: one row for all images, or one per image.

    Raises:
        InputError: they are not tokens of the model, or there are none.
    """
    n_tokens = model.spec.n_tokens
    tokens = patch.tokens
    if tokens is None:
        return torch.ones(1, n_tokens, dtype=torch.bool, device="cpu")
    if isinstance(tokens, Tokens):
        chosen: np.ndarray = np.asarray(tokens.indices(model.spec))
    else:
        chosen = np.asarray(tokens.cpu() if isinstance(tokens, Tensor) else tokens)
    if chosen.dtype == bool:
        tokens = torch.from_numpy(np.ascontiguousarray(chosen if chosen.ndim == 2 else chosen[None]))
        if tokens.ndim != 2 or tokens.shape[1] != n_tokens or tokens.shape[0] not in (1, batch):
            raise InputError(
                f"A boolean token choice must be [{batch} images (or 1), {n_tokens} tokens], not {list(tokens.shape)}."
            )
        if not tokens.any():
            raise InputError("The boolean token choice selects no token.")
        return tokens
    if not chosen.size:
        raise InputError("No tokens were given; omit tokens to select all of them.")
    if chosen.dtype.kind not in "iu" or chosen.ndim > 1:
        raise InputError(
            "tokens must be one choice from cl.tokens, a list of token numbers, or booleans [token] or [batch, token]."
        )
    numbers = chosen.reshape(-1).tolist()
    wrong = [t for t in numbers if not 0 <= t < n_tokens]
    if wrong:
        raise InputError(f"Token {wrong[0]} does not exist: this model has tokens 0 to {n_tokens - 1}.")
    mask = torch.zeros(1, n_tokens, dtype=torch.bool, device="cpu")
    mask[0, numbers] = True
    return mask


def head_mask(model: HookedViT, patch: Patch, leaf: str, n_heads: int) -> Bool[Tensor, " head"]:
    """Mask of the heads of a patch.

    Raises:
        InputError: the point has no heads, or there are no such heads.
    """
    if patch.heads is None:
        return torch.ones(n_heads, dtype=torch.bool, device="cpu")
    if leaf not in HEADED:
        raise InputError(f"{patch.name!r} has no heads; they exist at {', '.join(HEADED)}.")
    heads = whole_numbers("heads", patch.heads)
    wrong = [h for h in heads if not 0 <= h < n_heads]
    if wrong or not heads:
        raise InputError(f"heads={heads}: there are heads 0 to {n_heads - 1}.")
    mask = torch.zeros(n_heads, dtype=torch.bool, device="cpu")
    mask[heads] = True
    return mask


def _source(
    patch: Patch, site: Site, shape: tuple[int, ...], batch: int, known: Known, rows: slice | None
) -> Tensor | DirectionEdit | float:
    source: Any = patch.source
    if isinstance(source, ActivationStore):
        _check_source(site, (len(source), *source.shapes.get(site.hook, shape)), shape, batch)
        read = known[id(source)]
        if site.hook not in read:  # from a store on disk, only these rows are read
            read[site.hook] = (source if rows is None or len(source) == 1 else source[rows])[site.hook]
        return read[site.hook]
    if isinstance(source, Mapping):
        if site.layer not in source:
            raise InputError(f"The source of {patch.name} has no layer {site.layer}.")
        source = source[site.layer]
    if isinstance(source, DirectionEdit):
        source.check(site.hook, shape, batch)
        return source.of_rows(rows, len(shape) + 1)
    if isinstance(source, np.ndarray):
        source = _from_numpy(patch, source)
    if not isinstance(source, Tensor):
        if not isinstance(source, Real):
            kind = type(source).__name__
            raise InputError(
                f"The source of {patch.name} must be a store, a tensor, a number or an edit of cl.directions, "
                f"not {kind}."
            )
        if isinstance(source, bool) or isnan(source):
            raise InputError(f"The source of {patch.name} must be a number, not {source}.")
        return float(source)
    if source.ndim == 0:
        return source
    _check_source(site, tuple(source.shape), shape, batch)
    return _of_rows(source if source.ndim == len(shape) + 1 else source[None], rows)


def _check_source(site: Site, given: tuple[int, ...], shape: tuple[int, ...], batch: int) -> None:
    if given not in (shape, (1, *shape), (batch, *shape)):
        raise InputError(
            f"The source of {site.hook} has shape {list(given)}; expected {list(shape)}, with a batch axis of 1"
            f"{f' or {batch}' * (batch != 1)} in front or none."
        )


def _from_numpy(patch: Patch, source: np.ndarray) -> Tensor:
    """An array of numbers as a tensor, for any memory layout."""
    if source.dtype.kind not in "fiu":
        raise InputError(f"The source of {patch.name} must hold real numbers; this array is {source.dtype}.")
    # torch supports neither negative strides nor foreign byte order, and few unsigned formats.
    plain = np.dtype(np.int64) if source.dtype.kind == "u" else source.dtype.newbyteorder("=")
    if plain == np.longdouble:
        plain = np.dtype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(source, dtype=plain))


def _read_roles(model: HookedViT) -> str:
    if model.spec.reads_patches:
        return "patch tokens"
    return " and ".join(f"the {model.spec.prefix[t]} token" for t in model.spec.read_tokens)
