"""Direct paths between two runs: a sender's change of the residual stream, and the resulting change of receivers.

The usual four runs (Goldowsky-Dill et al. 2023; Wang et al. 2023) with fewer operations and the same numbers. If all
attention outputs and MLPs between sender and receiver are frozen, the stream at the receiver is the base run's plus the
sender's change: the third run does not need any block. The fourth starts at its first receiver.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.mechanisms.nodes import Node, NodeSet
from caap_lab.mechanisms.slopes import read_slopes
from caap_lab.models.block import BlockPoints, read_heads
from caap_lab.models.vit import HookedViT

Stream = Float[Tensor, "pair token d_model"]


class Received(NamedTuple):
    """The value of a receiver in the third run."""

    node: Node
    hook: str
    head: int | None
    value: Float[Tensor, "pair token *channel"]


def first_block(n_layers: int, sender: NodeSet, receiver: NodeSet) -> int:
    """The first block that has to run in the fourth run; `n_layers` if only the head runs."""
    first = _first_reached(sender, receiver)
    return n_layers if first.kind == "logits" else first.layer + (first.kind == "mlp")


def _first_reached(sender: NodeSet, receiver: NodeSet) -> Node:
    earliest = min(node.place for node in sender.nodes)
    return min((node for node in receiver.nodes if node.place > earliest), key=lambda node: node.place)


class PathRuns:
    """Some pairs: their base run, whose other parts are kept, and the other run, from which senders are taken."""

    def __init__(
        self,
        model: HookedViT,
        base: Float[Tensor, "pair 3 height width"],
        other: Float[Tensor, "pair 3 height width"],
        tokens: Bool[Tensor, "pair_or_one token"] | None,
    ) -> None:
        """Run both.

        Args:
            model: The model.
            base: Images of the base run.
            other: Images of the other run.
            tokens: Positions at which changes pass; None for all.
        """
        self.model = model
        self.tokens = None if tokens is None else tokens.to(model.device)[:, :, None]
        self.n_pairs = len(base)
        self.images = base
        written = ["attn.z", "attn_out", "mlp_out"]
        self.logits, self.base = _run(model, base, [*written, "resid_pre", "resid_mid", "resid_post"])
        _, self.other = _run(model, other, [*written, "resid_pre"], until=model.n_layers)

    def stream(self, node: Node) -> Stream:
        """The input of a receiver in the base run."""
        if node.kind == "logits":
            return self.base[f"blocks.{self.model.n_layers - 1}.hook_resid_post"]
        return self.base[f"blocks.{node.layer}.hook_resid_{'mid' if node.kind == 'mlp' else 'pre'}"]

    def sent(self, sender: NodeSet) -> "Sent":
        """The change that a sender causes in the stream."""
        changes: list[tuple[int, Tensor]] = []
        layers = {node.layer for node in sender.nodes if node.kind == "attn"}
        by_layer: dict[int, list[int]] = {}
        for node in sender.nodes:
            if node.kind == "head" and node.layer not in layers:
                by_layer.setdefault(node.layer, []).append(cast(int, node.head))
            elif node.kind != "head":
                leaf = {"embed": "resid_pre", "attn": "attn_out", "mlp": "mlp_out"}[node.kind]
                hook = f"blocks.{max(node.layer, 0)}.hook_{leaf}"
                changes.append((node.place, self.other[hook] - self.base[hook]))
        changes += [(2 * layer, self._heads_change(layer, heads)) for layer, heads in by_layer.items()]
        return Sent(self, [(place, self._passing(change)) for place, change in changes])

    def _heads_change(self, layer: int, heads: list[int]) -> Stream:
        """Output of attention with some heads of the other run, minus its output in the base run."""
        hook, block = f"blocks.{layer}.attn.hook_z", self.model.architecture.block(layer)
        z = self.base[hook].clone()
        z[:, :, heads] = self.other[hook][:, :, heads]
        entered = block.norm1(self.base[f"blocks.{layer}.hook_resid_pre"])  # also read by the gate of a gated attention
        written = block.scale_attention(block.attention.output(z.transpose(1, 2), entered))
        return written - self.base[f"blocks.{layer}.hook_attn_out"]

    def _passing(self, change: Stream) -> Stream:
        return change if self.tokens is None else torch.where(self.tokens, change, 0)

    def scores_of(self, start: int, cells: Sequence[tuple["Sent", NodeSet]]) -> Float[Tensor, "cell_and_pair columns"]:
        """Logits of the fourth run of some cells with the same first block, one cell after another."""
        model, n_pairs, n_layers = self.model, self.n_pairs, self.model.n_layers
        streams, by_hook = [], dict[str, list[tuple[slice, Received]]]()
        for number, (sent, receiver) in enumerate(cells):
            rows = slice(number * n_pairs, (number + 1) * n_pairs)
            stream = None
            for received in sent.values(receiver):
                if received.node.kind == "mlp" and received.node.layer == start - 1:
                    stream = self.stream(received.node) + self._kept(received, self.base[received.hook])
                else:
                    by_hook.setdefault(received.hook, []).append((rows, received))
            streams.append(self._entering(start) if stream is None else stream)
        resid = torch.cat(streams)
        earlier = [layer for layer in range(start) if model.reads_class_token(layer)]
        tokens = [
            resid[:, 0] if layer == start - 1 else self._entering(layer + 1)[:, 0].repeat(len(cells), 1)
            for layer in earlier
        ]
        hooks: list[tuple[Any, Any]] = [(hook, self._edit(rows)) for hook, rows in by_hook.items()]
        with model.hooks(fwd_hooks=hooks):
            resid, tokens = model.run_blocks(resid, range(start, n_layers), tokens)
        read = [layer for layer in range(n_layers) if model.reads_class_token(layer)]
        for number, (sent, receiver) in enumerate(cells):
            if any(node.kind == "logits" for node in receiver.nodes):
                rows = slice(number * n_pairs, (number + 1) * n_pairs)
                resid = _plus(resid, rows, sent.change(2 * n_layers))
                tokens = [
                    _plus(token, rows, sent.change(2 * layer + 2)[:, 0])
                    for layer, token in zip(read, tokens, strict=True)
                ]
        return model.unembed(resid, tokens)

    def _entering(self, layer: int) -> Stream:
        last = self.model.n_layers
        return self.base[f"blocks.{layer}.hook_resid_pre" if layer < last else f"blocks.{last - 1}.hook_resid_post"]

    def _kept(self, received: Received, live: Tensor) -> Tensor:
        """The received value at positions where changes pass, and the unchanged value elsewhere."""
        return received.value if self.tokens is None else torch.where(self.tokens, received.value, live)

    def _edit(self, edits: list[tuple[slice, Received]]) -> Any:
        def edit(activation: Tensor, hook: HookPoint) -> Tensor:
            new = activation.clone()
            for rows, received in edits:
                place = (rows,) if received.head is None else (rows, slice(None), received.head)
                new[place] = self._kept(received, new[place])
            return new

        return edit

    def estimates(
        self, senders: Sequence[NodeSet], receivers: Sequence[NodeSet], read: Any
    ) -> Float[Tensor, "pair sender receiver target"]:
        """First-order effects: the change of a receiver's value times the score's gradient with respect to it.

        The receiver is recomputed; only the steps after it are linearised. Effects on the logits are exact. NaN if
        there is no path.
        """
        hooks = {_hook(node, part) for one in receivers for node in one.nodes for part in _parts(node)}
        slopes = read_slopes(self.model, self.images, sorted(hooks - {""}), read)
        scores = read(self.logits)
        logits = NodeSet("logits", (Node("logits", self.model.n_layers),))
        result = scores.new_full((self.n_pairs, len(senders), len(receivers), scores.shape[1]), torch.nan)
        for row, sender in enumerate(senders):
            sent = self.sent(sender)
            direct = None
            for column, receiver in enumerate(receivers):
                if not sender.reaches(receiver):
                    continue
                total = torch.zeros_like(scores)
                for received in sent.values(receiver):
                    place = (slice(None), slice(None)) + (() if received.head is None else (received.head,))
                    change = self._passing(received.value - slopes.activations[received.hook][place])
                    pull = [(change * each[received.hook][place]).flatten(1).sum(1) for each in slopes.gradients]
                    total = total + torch.stack(pull, dim=1)
                if any(node.kind == "logits" for node in receiver.nodes):
                    if direct is None:
                        direct = read(self.scores_of(self.model.n_layers, [(sent, logits)])) - scores
                    total = total + direct
                result[:, row, column] = total
        return result


class Sent:
    """Changes that a sender causes in the residual stream, by the place where it writes, and the resulting values."""

    def __init__(self, runs: PathRuns, changes: list[tuple[int, Stream]]) -> None:
        self.runs = runs
        self.changes = changes
        self._heads: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def change(self, place: int) -> Stream:
        """Sum of the changes before a place."""
        before = [change for written_at, change in self.changes if written_at < place]
        return sum(before[1:], before[0]) if before else torch.zeros_like(self.changes[0][1])

    def values(self, receiver: NodeSet) -> list[Received]:
        """Values of the receiver's nodes except the logits; nodes that no change reaches are omitted."""
        earliest = min(place for place, _ in self.changes)
        found = []
        for node in receiver.nodes:
            if node.kind == "logits" or node.place <= earliest:
                continue
            for part in _parts(node):
                value = self._value(node, part)
                found.append(Received(node, _hook(node, part), node.head, value))
        return found

    def _value(self, node: Node, part: str) -> Tensor:
        runs = self.runs
        block = runs.model.architecture.block(node.layer)
        if node.kind == "head":
            if node.layer not in self._heads:
                entered = block.norm1(runs.stream(node) + self.change(node.place))
                self._heads[node.layer] = block.attention.project_qkv(entered)
            return self._heads[node.layer]["qkv".index(part)][:, node.head]
        points = cast(BlockPoints, runs.model.blocks[node.layer])
        stream = runs.stream(node) + self.change(node.place)
        if node.kind == "mlp":
            return block.scale_mlp(block.mlp(points.mlp, block.norm2(stream)))
        entered = block.norm1(stream)
        z = read_heads(block.attention, points.attn, entered)
        return block.scale_attention(block.attention.output(z, entered))


def _parts(node: Node) -> Sequence[str]:
    """Activations of a node that are replaced: queries, keys and values of a head, or its only input."""
    return (node.part or "qkv") if node.kind == "head" else ("",)


def _hook(node: Node, part: str) -> str:
    """Full name of the hook point at which a receiver is replaced; empty for the logits."""
    if node.kind == "logits":
        return ""
    return f"blocks.{node.layer}." + (f"attn.hook_{part}" if node.kind == "head" else f"hook_{node.kind}_out")


def _plus(x: Tensor, rows: slice, change: Tensor) -> Tensor:
    """A copy of `x` with something added to some rows."""
    new = x.clone()
    new[rows] += change
    return new


def _run(
    model: HookedViT, images: Tensor, shorts: Sequence[str], until: int | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, or with `until` the stream entering that block, and activations of all blocks by full name."""
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: HookPoint) -> None:
        kept[str(hook.name)] = x

    hooks: list[tuple[Any, Any]] = [(site.hook, keep) for short in shorts for site in model.find(short)]
    with model.hooks(fwd_hooks=hooks):
        return model(images, stop_at_layer=until), kept
