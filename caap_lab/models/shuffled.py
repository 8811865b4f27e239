"""Copies of a model some of whose weights are shuffled: what is left of a map without what the model has learned?

Shuffling moves the entries of each parameter to random places of the same parameter. Every number that training made is
still there, so that activations keep about their size, and the arrangement, which is what the model has learned, is
gone. It needs no initialisation of the model's own: that differs from family to family, sets LayerScale to nearly zero
(a block that adds nothing is left out rather than random), and is unknown of models that somebody brings.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.copies import copy_of
from caap_lab.models.quantised import why_no_gradient

Model = TypeVar("Model", bound=HookedModel)
Order = Literal["cascading", "independent"]
ORDERS = ("cascading", "independent")


def weight_groups(model: HookedModel) -> dict[str, tuple[str, ...]]:
    """The names of a model's parameters in groups, from the head down to the input.

    "head" (with the final norm), "block 11" to "block 0", then "embeddings" of a ViT or Mixer or the "stem" of a CNN.
    Of a black box: its modules with the containers among them opened, the last registered one first.

    Raises:
        InputError: the model has no weights that could be shuffled.
    """
    if quantised := why_no_gradient(model.body).split(" is quantised")[0]:
        raise InputError(
            f"{quantised} is quantised, and packed weights cannot be shuffled: give the model before that."
        )
    parts = _parts(model)
    part_of = {id(p): name for name, modules in parts for module in modules for p in module.parameters()}
    weights = _weights(model)
    names = list(weights)
    owners = [part_of.get(id(weight)) for weight in weights.values()]
    inside = [place for place, owner in enumerate(owners) if owner is not None]
    entry = {"cnn": "stem", "black_box": "other parameters"}.get(model.kind, "embeddings")
    groups: dict[str, list[str]] = {name: [] for name in (entry, *(name for name, _ in parts), "head")}
    for place, (name, owner) in enumerate(zip(names, owners, strict=True)):
        if owner is None and model.kind != "black_box" and inside and place > inside[0]:
            # Between two blocks it belongs to the first of them.
            before = max(at for at in inside if at < place)
            owner = "head" if place > inside[-1] else owners[before]
        groups[owner or entry].append(name)
    found = {name: tuple(members) for name, members in reversed(groups.items()) if members}
    if not found:
        raise InputError(f"{model.model_name} has no weights that could be shuffled.")
    return found


def shuffled_models(model: Model, order: Order, seed: int) -> Iterator[tuple[str, Model]]:
    """For each group of weights, from the head down, its name and the model with shuffled weights.

    It is one copy throughout, changed from step to step; the model itself stays as it is.

    Args:
        model: The model.
        order: "cascading": all groups so far are shuffled; "independent": that group alone.
        seed: Of the permutations, which are the same in both orders.
    """
    groups = weight_groups(model)
    copied = copy_of(model)
    weights, trained = _weights(copied), _weights(model)
    seeds = torch.Generator(device="cpu").manual_seed(seed)
    for name, members in groups.items():
        own = torch.randint(2**62, (1,), generator=seeds, dtype=torch.int64, device="cpu")
        generator = torch.Generator(device="cpu").manual_seed(int(own))
        with torch.no_grad():
            for member in members:
                weight = weights[member]
                places = torch.randperm(weight.numel(), generator=generator, dtype=torch.int64, device="cpu")
                weight.copy_(weight.reshape(-1)[places.to(weight.device)].reshape(weight.shape))
        yield name, copied
        if order == "independent":
            with torch.no_grad():
                for member in members:
                    weights[member].copy_(trained[member])


def _weights(model: HookedModel) -> dict[str, torch.Tensor]:
    """Parameters, each once, and the text embeddings of a head that has them as its classes, which are buffers."""
    head = getattr(model, "head", None)
    buffers = [] if not isinstance(head, nn.Module) else head.named_buffers(prefix="head")
    texts = {name: buffer for name, buffer in buffers if buffer.ndim > 1}
    every = dict(model.named_parameters()) | texts
    return {name: weight for name, weight in every.items() if weight.is_floating_point()}


def _parts(model: HookedModel) -> Sequence[tuple[str, Sequence[nn.Module]]]:
    """Blocks, or of a black box its modules, in their order."""
    if model.kind == "black_box":
        return [(name, [module]) for name, module in _opened(model.body)]
    if model.kind == "cnn":
        blocks: Sequence[Sequence[nn.Module]] = cast(Any, model)._steps.blocks
    else:
        blocks = [[block] for block in cast(Any, model.body).blocks]
    return [(f"block {number}", modules) for number, modules in enumerate(blocks)]


def _opened(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules in a model, with lists, sequences and wrappers of a single module opened."""
    children = [(n, child) for n, child in module.named_children() if any(True for _ in child.parameters())]
    own = any(True for _ in module.parameters(recurse=False))
    container = isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
    if not own and children and (not name or container or len(children) == 1):
        for child_name, child in children:
            yield from _opened(child, f"{name}.{child_name}".lstrip("."))
    elif children and not name:
        for child_name, child in children:
            yield from _opened(child, child_name)
    else:
        yield name or "weights", module
