"""Settings of a patch made by hand, and the patches built from them."""

from dataclasses import dataclass
from typing import NamedTuple

from caap_lab.activations.patch import HEADED, Patch
from caap_lab.activations.store import ActivationStore
from caap_lab.mechanisms.reference import REPLACEMENTS
from caap_lab.models import tokens
from caap_lab.models.names import layer_of, short_name
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.photos import Photo

SOURCE = "source"
"""Replace by the activations of the source photo."""
PUT_IN = (SOURCE, *REPLACEMENTS)
OTHERS = ("evolve", "held")
"""How unpatched tokens behave: they evolve and take up the patch, or are held as in the target's own run."""
_ABOUT = {
    "resid_pre": "stream into the block",
    "resid_mid": "stream between attention and MLP",
    "resid_post": "stream out of the block",
    "attn_out": "output of attention",
    "mlp_out": "output of the MLP",
    "z": "outputs of the heads",
    "result": "heads' contributions to the stream",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "pattern": "attention, rows of the tokens",
    "attn_scores": "attention before the softmax",
    "ln1.normalized": "normalised, into attention",
    "ln2.normalized": "normalised, into the MLP",
    "mlp.pre": "MLP before its activation",
    "mlp.pre_linear": "the gate's other branch",
    "mlp.post": "MLP after its activation",
    "embed": "patches without positions",
    "full_embed": "patches and positions",
    "ln_final.normalized": "normalised, into the head",
    "pooled": "the head's feature",
    "logits": "the logits themselves",
}
"""The order in which points are offered; those of pooling heads follow."""


@dataclass(frozen=True)
class Point:
    """A kind of hook point, and the choices that it allows."""

    name: str
    """The name that `Patch` accepts."""
    in_blocks: bool
    """True if each layer has one."""
    heads: int
    """Number of heads; 0 if it has none."""
    has_tokens: bool
    """True if tokens can be chosen."""

    @property
    def label(self) -> str:
        """Its name and description."""
        about = _ABOUT.get(self.name)
        return f"{self.name}: {about}" if about else self.name


class PatchSettings(NamedTuple):
    """The settings of a patch."""

    source: Photo
    """The photo whose activations are inserted."""
    target: Photo
    """The photo whose run is patched."""
    point: Point
    layers: tuple[int, int]
    """First and last layer."""
    cells: tuple[int, ...]
    """Numbers of the patches, in reading order."""
    prefix: tuple[int, ...]
    """Numbers of the prefix tokens."""
    heads: tuple[int, ...]
    """Numbers of the heads; empty for all."""
    put_in: str
    """One of `PUT_IN`."""
    others: str
    """One of `OTHERS`."""

    def cleaned(self) -> "PatchSettings":
        """The settings without those that do not apply to the point, so that equal patches compare equal."""
        point = self.point
        return self._replace(
            layers=self.layers if point.in_blocks else (0, 0),
            cells=self.cells if point.has_tokens else (),
            prefix=self.prefix if point.has_tokens else (),
            heads=self.heads if len(self.heads) < point.heads else (),
            others=self.others if point.has_tokens else "evolve",
        )

    @property
    def layer_range(self) -> range | None:
        """The layers; None outside the blocks."""
        return range(self.layers[0], self.layers[1] + 1) if self.point.in_blocks else None

    def tokens(self, model: HookedViT) -> list[int] | None:
        """Token numbers; None if the point has no tokens to choose from."""
        if not self.point.has_tokens:
            return None
        return [*self.prefix, *(model.spec.n_prefix + cell for cell in self.cells)]

    def is_empty(self, model: HookedViT) -> bool:
        """True if no token is chosen."""
        return self.tokens(model) == []

    def held_tokens(self, model: HookedViT) -> list[int]:
        """Tokens held as in the target's own run: all but the chosen ones and those that carry the prediction."""
        if self.others == "evolve":
            return []
        free = {*(self.tokens(model) or ()), *model.spec.live_prefix}
        return [token for token in range(model.spec.n_tokens) if token not in free]

    def patch(self, model: HookedViT, source: ActivationStore | float) -> Patch:
        """The patch.

        Raises:
            InputError: the point does not accept these tokens or heads.
        """
        heads = list(self.heads) or None
        return Patch(self.point.name, self.layer_range, self.tokens(model), source=source, heads=heads)


def points_of(model: HookedViT) -> list[Point]:
    """Every kind of hook point of a model, the usual ones first."""
    found = {}
    for hook in model.hook_dict:
        short, in_blocks = short_name(hook), layer_of(hook) is not None
        leaf = short.split(".")[-1]
        name = leaf if short.startswith("attn.") else short
        if name in found:
            continue
        heads = 0
        if leaf in HEADED:
            shape = model.activation_shape(hook)
            heads = shape[0] if leaf in ("attn_scores", "pattern") else shape[1]
        found[name] = Point(name, in_blocks, heads, _has_tokens(model, short, leaf))
    order = [*_ABOUT]
    return sorted(found.values(), key=lambda point: order.index(point.name) if point.name in order else len(order))


def _has_tokens(model: HookedViT, short: str, leaf: str) -> bool:
    pooling = model.readout.attention
    if short.startswith("attn_pool.") and pooling is not None:
        return pooling.n_latents is None or leaf in ("k", "v")
    return leaf not in ("pooled", "logits")


def neighbours_of(model: HookedViT, cell: int, kind: str) -> list[int]:
    """Numbers of a patch and its neighbours, in reading order."""
    row, col = divmod(cell, model.grid[1])
    return sorted(token - model.spec.n_prefix for token in tokens.neighbourhood(row, col, kind).indices(model.spec))
