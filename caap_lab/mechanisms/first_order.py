"""First-order estimates of the effects of patching activations of one run into the other, for every cell of a trace."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caap_lab.mechanisms.slopes import Slopes
from caap_lab.mechanisms.trace_cells import TraceCells, TracePlace
from caap_lab.models.vit import HookedViT

_BY_QUERY = ("attn_scores", "pattern")
_HEADED = ("q", "k", "v", "z", "result")


def hooks_of(cells: TraceCells, correction: str | None = None) -> list[str]:
    """Full names of the hook points that the estimates need.

    Args:
        cells: What is patched.
        correction: "softmax" also reads the patterns computed from queries and keys.
    """
    shorts = {(point, layer) for place in cells.places for point in [place.point] for layer in place.layers}
    if correction is not None:
        more = ("attn.q", "attn.k", "attn.pattern")
        shorts |= {(short, layer) for point, layer in shorts if point in more[:2] for short in more}
    return [f"blocks.{layer}.{_point(short)}" for short, layer in sorted(shorts)]


def _point(short: str) -> str:
    """The part of a full name after the layer: "attn.hook_q" for "attn.q"."""
    *path, leaf = short.split(".")
    return ".".join([*path, f"hook_{leaf}"])


def estimates(
    model: HookedViT,
    cells: TraceCells,
    source: Mapping[str, Tensor],
    slopes: Slopes,
    correction: str | None,
    rows: slice,
) -> Float[Tensor, "pair cell target"]:
    """Estimated changes of the targets' scores.

    Args:
        model: The model.
        cells: What is inserted.
        source: The activations that are inserted, by full name.
        slopes: Activations and gradients of the receiving run.
        correction: "softmax" for queries and keys, or None.
        rows: Which of the pairs the activations belong to.
    """
    found = []
    for gradients in slopes.gradients:
        made: dict[str, _Linear | _Keys] = {}
        of_target = []
        for place in cells.places:
            (layer,) = place.layers
            hook = f"blocks.{layer}.{_point(place.point)}"
            if hook not in made:
                made[hook] = _effects(model, place.point, layer, source, slopes.activations, gradients, correction)
            of_target.append(made[hook].of(place, rows))
        found.append(torch.stack(of_target, dim=1))
    return torch.stack(found, dim=2)


def _effects(
    model: HookedViT,
    point: str,
    layer: int,
    source: Mapping[str, Tensor],
    receiver: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    correction: str | None,
) -> "_Linear | _Keys":
    hook, leaf = f"blocks.{layer}.{_point(point)}", point.split(".")[-1]
    if correction is not None and leaf in ("q", "k"):
        return _corrected(model, leaf, layer, source[hook], receiver, gradients)
    change = gradients[hook] * (source[hook] - receiver[hook])
    if leaf in _BY_QUERY:
        return _Linear(change.sum(-1).transpose(1, 2))
    return _Linear(change.sum(-1) if leaf in _HEADED else change.flatten(2).sum(-1)[:, :, None])


def _corrected(
    model: HookedViT,
    leaf: str,
    layer: int,
    given: Float[Tensor, "pair token head d_head"],
    receiver: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
) -> "_Linear | _Keys":
    """Effects through the pattern of patched queries or keys: its change times the gradient with respect to it."""
    attention = model.architecture.block(layer).attention
    q, k = (receiver[f"blocks.{layer}.attn.hook_{part}"].transpose(1, 2) for part in "qk")
    new = given.transpose(1, 2)
    scores = attention.scores(q, k)
    slope = gradients[f"blocks.{layer}.attn.hook_pattern"]
    if leaf == "k":
        return _Keys(scores, attention.scores(q, new), slope)
    change = attention.scores(new, k).softmax(-1) - scores.softmax(-1)
    return _Linear((change * slope).sum(-1).transpose(1, 2))  # one query's pattern does not depend on another's


class _Linear:
    """Effects that add up over tokens and heads."""

    def __init__(self, effects: Float[Tensor, "pair token head"]) -> None:
        self.effects = effects

    def of(self, place: TracePlace, rows: slice) -> Float[Tensor, " pair"]:
        """The effect of a place."""
        effects = _chosen_heads(self.effects, place).sum(-1)
        mask = _mask(place, rows, effects)
        return effects.sum(-1) if mask is None else torch.where(mask, effects, 0).sum(-1)


class _Keys:
    """Effects of keys, which share each query's softmax: those of several tokens do not add up."""

    def __init__(
        self,
        scores: Float[Tensor, "pair head query key"],
        patched: Float[Tensor, "pair head query key"],
        slope: Float[Tensor, "pair head query key"],
    ) -> None:
        self.scores, self.patched, self.slope = scores, patched, slope
        self.pattern = scores.softmax(-1)
        self._single: Tensor | None = None

    def of(self, place: TracePlace, rows: slice) -> Float[Tensor, " pair"]:
        """The effect of a place."""
        mask = _mask(place, rows, self.scores)
        if mask is not None and len(mask) == 1 and int(mask.sum()) == 1:
            return _chosen_heads(self.single[:, int(mask[0].nonzero())], place).sum(-1)
        mixed = self.patched if mask is None else torch.where(mask[:, None, None], self.patched, self.scores)
        effects = ((mixed.softmax(-1) - self.pattern) * self.slope).sum((-2, -1))
        return _chosen_heads(effects, place).sum(-1)

    @property
    def single(self) -> Float[Tensor, "pair token head"]:
        """The effects of patching each token's key only.

        If one score changes by d, the pattern p becomes p_k exp(d) / z at that key k and p_j / z at all other keys j,
        with z = 1 + p_k (exp(d) - 1). It is computed with logarithms, so large changes do not overflow.
        """
        if self._single is None:
            rest = torch.log1p(-self.pattern.clamp(max=1))  # log of the total weight of all other keys
            own = self.scores.log_softmax(-1) + self.patched - self.scores
            new = (own - torch.logaddexp(own, rest)).exp()  # the new weight of the patched key
            kept = (1 - new) / (1 - self.pattern).clamp_min(torch.finfo(new.dtype).tiny)  # factor of the others
            pull = (self.pattern * self.slope).sum(-1, keepdim=True) - self.pattern * self.slope  # due to the others
            effects = (new - self.pattern) * self.slope + (kept - 1) * pull
            self._single = effects.sum(-2).transpose(1, 2)
        return self._single


def _chosen_heads(effects: Float[Tensor, "*cell head"], place: TracePlace) -> Float[Tensor, "*cell chosen"]:
    return effects if place.heads is None else effects[..., list(place.heads)]


def _mask(place: TracePlace, rows: slice, like: Tensor) -> Bool[Tensor, "pair_or_one token"] | None:
    if place.tokens is None:
        return None
    tokens = place.tokens if len(place.tokens) == 1 else place.tokens[rows]
    return torch.from_numpy(tokens).to(like.device)
