"""Parts of a model between which paths run, by the names that users type: "3.1", "mlp 4", "3.1.q", "logits"."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caap_lab.checks import is_whole
from caap_lab.errors import InputError
from caap_lab.models.spec import ViTSpec

_HEAD = re.compile(r"(?:head\s*)?l?(\d+)\s*[.h ]\s*(\d+)(?:[. ]\s*([qkv]))?")
_LAYER = re.compile(r"(mlp|attn)[\s._]*(\d+)")
SENDER_WORDS = '"3.1" (layer.head), "mlp 4", "attn 4", "embed", or "all", "heads", "mlps"'
RECEIVER_WORDS = '"3.1.q" (layer.head, then q, k or v), "3.1", "mlp 4", "attn 4", "logits", or "all", "heads", "mlps"'


@dataclass(frozen=True)
class Node:
    """A part of the model that writes into the residual stream, or one that reads from it."""

    kind: str
    """ "embed", "head", "attn", "mlp" or "logits"."""
    layer: int
    """-1 for the embeddings, the number of layers for the logits."""
    head: int | None = None
    part: str | None = None
    """"q", "k" or "v" of a head that receives; None for all three."""

    @property
    def place(self) -> int:
        """Order along the residual stream: what is written at a place is read at all later ones."""
        return 2 * self.layer + (self.kind in ("mlp", "embed"))

    @property
    def name(self) -> str:
        """Its label in results."""
        if self.kind == "head":
            return f"{self.layer}.{self.head}" + (f".{self.part}" if self.part else "")
        return self.kind if self.kind in ("embed", "logits") else f"{self.kind} {self.layer}"


@dataclass(frozen=True)
class NodeSet:
    """Nodes that are patched jointly, under one label; usually a single one."""

    name: str
    nodes: tuple[Node, ...]

    def reaches(self, receiver: "NodeSet") -> bool:
        """True if a direct path leads from one of these nodes to one of the receiver's."""
        return min(node.place for node in self.nodes) < max(node.place for node in receiver.nodes)


def senders_of(spec: ViTSpec, given: Any) -> list[NodeSet]:
    """Nodes that write: heads, attention layers, MLPs, and the embeddings that enter block 0.

    Raises:
        InputError: an entry is not such a node, or not in the model.
    """
    layers, heads = range(spec.n_layers), range(spec.n_heads)
    sets = {
        "heads": [Node("head", layer, head) for layer in layers for head in heads],
        "mlps": [Node("mlp", layer) for layer in layers],
    }
    everything = sorted([Node("embed", -1), *sets["heads"], *sets["mlps"]], key=lambda node: node.place)
    found = _node_sets(spec, given, sets | {"all": everything}, SENDER_WORDS)
    for node in (node for one in found for node in one.nodes):
        if node.kind == "logits" or node.part is not None:
            raise InputError(f"{node.name!r} only reads, so it cannot be a sender; senders are {SENDER_WORDS}.")
    return found


def receivers_of(spec: ViTSpec, given: Any) -> list[NodeSet]:
    """Nodes that read: queries, keys and values of heads, attention layers, MLPs, and the logits.

    Raises:
        InputError: an entry is not such a node, or not in the model.
    """
    layers, heads = range(spec.n_layers), range(spec.n_heads)
    sets = {
        "heads": [Node("head", layer, head, part) for layer in layers for head in heads for part in "qkv"],
        "mlps": [Node("mlp", layer) for layer in layers],
    }
    logits = Node("logits", spec.n_layers)
    everything = [*sorted([*sets["heads"], *sets["mlps"]], key=lambda node: node.place), logits]
    found = _node_sets(spec, given, sets | {"all": everything}, RECEIVER_WORDS)
    for node in (node for one in found for node in one.nodes):
        if node.kind == "embed":
            raise InputError(
                f"The embeddings read nothing, so they cannot be a receiver; receivers are {RECEIVER_WORDS}."
            )
    return found


def _node_sets(spec: ViTSpec, given: Any, sets: Mapping[str, Sequence[Node]], words: str) -> list[NodeSet]:
    if isinstance(given, Mapping):
        found = [NodeSet(str(name), _joint(spec, one, sets, words)) for name, one in given.items()]
    else:
        several = isinstance(given, (list, tuple)) and not _is_node(given)
        found = []
        for one in given if several else [given]:
            if isinstance(one, str) and one in sets:
                found += [NodeSet(node.name, (node,)) for node in sets[one]]
            else:
                nodes = _joint(spec, one, sets, words)
                found.append(NodeSet(" + ".join(node.name for node in nodes), nodes))
    if not found:
        raise InputError(f"The list is empty; use {words}.")
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice!r} was given twice.")
    return found


def _joint(spec: ViTSpec, given: Any, sets: Mapping[str, Sequence[Node]], words: str) -> tuple[Node, ...]:
    """Nodes of one label: a single node, or a list of nodes."""
    if isinstance(given, str) and given in sets:
        return tuple(sets[given])
    if isinstance(given, (str, Node)) or _is_node(given):
        return (_node(spec, given, words),)
    if not isinstance(given, (list, tuple)) or not given:
        raise InputError(f"{given!r} is not a part of the model; use {words}.")
    return tuple(dict.fromkeys(node for one in given for node in _joint(spec, one, sets, words)))


def _is_node(given: Any) -> bool:
    """True for tuples that name one node: ("head", 3, 1), ("mlp", 4), (3, 1), (3, 1, "q")."""
    if not isinstance(given, tuple) or not given:
        return False
    numbers = given[1:] if given[0] in ("head", "mlp", "attn") else given
    numbers = numbers[:-1] if numbers and numbers[-1] in ("q", "k", "v") else numbers
    return bool(numbers) and all(is_whole(number) for number in numbers)


def _node(spec: ViTSpec, given: Any, words: str) -> Node:
    if isinstance(given, Node):
        node: Node | None = given
    else:
        kind, *rest = (str(part) for part in given) if isinstance(given, tuple) else (str(given),)
        if kind in ("head", "mlp", "attn") and rest:
            text = (" " if kind != "head" else ".").join([kind, *rest] if kind != "head" else rest)
        else:
            text = ".".join([kind, *rest])
        node = _parsed(spec, text.strip().lower())
    if node is None:
        raise InputError(f"{given!r} is not a part of the model; use {words}.")
    if node.kind not in ("embed", "logits") and not 0 <= node.layer < spec.n_layers:
        raise InputError(f"{given!r}: layer {node.layer} does not exist; there are layers 0 to {spec.n_layers - 1}.")
    if node.head is not None and not 0 <= node.head < spec.n_heads:
        raise InputError(f"{given!r}: head {node.head} does not exist; there are heads 0 to {spec.n_heads - 1}.")
    return node


def _parsed(spec: ViTSpec, text: str) -> Node | None:
    if text == "embed":
        return Node("embed", -1)
    if text == "logits":
        return Node("logits", spec.n_layers)
    if found := _LAYER.fullmatch(text):
        return Node(found[1], int(found[2]))
    if found := _HEAD.fullmatch(text):
        return Node("head", int(found[1]), int(found[2]), found[3])
    return None
