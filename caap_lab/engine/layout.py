"""The layout of the live rows of CAAP's groups, and whose keys and values each group reads.

A group belongs to one patch i. Rows are stored flat, so that neighbours clipped by the border cost nothing: first the
prefix rows of all groups, then their patch rows. Only the small products of a group with its own keys use a table with
one line per group.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caap_lab.engine.interpolation import TailRows, tail_rows
from caap_lab.engine.rows import take_rows
from caap_lab.models.device_dtype import placed
from caap_lab.models.neighbour_tables import neighbourhood_table, set_table
from caap_lab.models.neighbourhoods import Neighbourhood
from caap_lab.models.spec import ViTSpec


@dataclass(frozen=True, eq=False)
class Rows:
    """Flat rows, and their table with one line per group."""

    tokens: Int[Tensor, " row"]
    """Token number of each row."""
    group: Int[Tensor, " row"]
    slots: Int[Tensor, "group slot"]
    """Rows of each group; unused entries repeat row 0."""
    places: Int[Tensor, " row"]
    """Flat index of each row in `slots`."""

    @property
    def grouped_tokens(self) -> Int[Tensor, "group slot"]:
        """Token numbers as a table."""
        return self.tokens[self.slots]

    def grouped(self, values: Float[Tensor, "*lead row width"]) -> Float[Tensor, "*lead group slot width"]:
        """Rows as a table."""
        return take_rows(values, self.slots.flatten()).unflatten(-2, tuple(self.slots.shape))

    def flat(self, values: Float[Tensor, "*lead group slot width"]) -> Float[Tensor, "*lead row width"]:
        """The table's rows."""
        return take_rows(values.flatten(-3, -2), self.places)


@dataclass(frozen=True, eq=False)
class Layout:
    """The groups of some patches of an image; the same for every image."""

    patches: Int[Tensor, "group neighbour"]
    """Patch numbers of S_i, the patch itself first; entries of clipped neighbours are 0."""
    inside: Bool[Tensor, "group neighbour"]
    """False where the border clips the neighbourhood."""
    own_tokens: Int[Tensor, "group own"]
    """Tokens whose keys and values are the group's own: live prefix, then S_i; clipped ones are those of patch 0."""
    replaced: Int[Tensor, "group own"]
    """The same tokens as token numbers of the blank; n_tokens, which is not a token, where clipped."""
    prefix: Rows
    """The prefix rows, which run up to the cutoff."""
    live: Rows
    """All rows of the tail."""
    places: Int[Tensor, "2 place"]
    """Groups and neighbours that are inside; computed once, because looking for them on a GPU would wait for it."""
    own_prefix: Int[Tensor, "group live"]
    """Indices of a group's own keys and values that are not those of S_i: among the prefix rows."""
    span: slice
    """Tokens from the first to the last that is in any S_i."""
    own_source: Int[Tensor, "group own"]
    """Indices of a group's own keys and values up to the cutoff: in the prefix rows, then the source's in `span`."""
    own_tail: Int[Tensor, "group own"]
    """Indices of them in the tail: in the prefix rows, then the contexts that `tail` computes from the patch rows."""
    tail: TailRows
    name: tuple[Any, ...]
    """Neighbourhood and tail, which identify the groups of all patches of an image. Empty for other sets."""

    @property
    def n_groups(self) -> int:
        """Number of patches."""
        return len(self.patches)

    @property
    def n_prefix_rows(self) -> int:
        """Number of prefix rows, which come first."""
        return len(self.prefix.tokens)


@lru_cache(maxsize=64)
def layout(
    spec: ViTSpec, neighbourhood: Neighbourhood, tail: str, first: int, last: int, device: torch.device
) -> Layout:
    """The groups of patches first to last - 1; computed once and cached.

    Args:
        spec: The model's tokens.
        neighbourhood: The patches that are patched together with each patch.
        tail: "exact", "shared" or "interpolated"; the last two share rows between groups and need all patches.
        first: First patch.
        last: One more than the last patch.
        device: Device of the tables.
    """
    table = neighbourhood_table(spec.grid, neighbourhood)[first:last]
    return _of_table(spec, table, tail_rows(table, neighbourhood.offsets, tail), (neighbourhood, tail), device)


def layout_of_sets(spec: ViTSpec, masks: Bool[Tensor, "group patch"], device: torch.device) -> Layout:
    """The groups of any sets of patches, with the exact tail.

    Args:
        spec: The model's tokens.
        masks: True at the patches of each group's S_i, at least one.
        device: Device of the tables.
    """
    table = set_table(masks)
    return _of_table(spec, table, tail_rows(table, (), "exact"), (), device)


def _of_table(
    spec: ViTSpec,
    table: Int[Tensor, "group neighbour"],
    tail_of_groups: TailRows,
    name: tuple[Any, ...],
    device: torch.device,
) -> Layout:
    n_groups, n_live = len(table), len(spec.live_prefix)
    inside, patches = table >= 0, table.clamp(min=0)
    prefix_tokens = torch.arange(n_live, device="cpu").expand(n_groups, -1)
    prefix_rows = torch.arange(n_groups * n_live, device="cpu").view(n_groups, n_live)
    first, last = int(table[inside].min()), int(table[inside].max())
    run = torch.zeros_like(inside).flatten().index_fill_(0, tail_of_groups.run, True).view_as(inside)
    on_cpu = Layout(
        patches=patches,
        inside=inside,
        own_tokens=torch.cat([prefix_tokens, patches + spec.n_prefix], dim=1),
        replaced=torch.cat([prefix_tokens, torch.where(inside, patches + spec.n_prefix, spec.n_tokens)], dim=1),
        prefix=_rows(prefix_tokens, torch.zeros_like(patches[:, :0]), run[:, :0]),
        live=_rows(prefix_tokens, patches + spec.n_prefix, run),
        places=inside.nonzero().T.contiguous(),
        own_prefix=prefix_rows,
        span=slice(spec.n_prefix + first, spec.n_prefix + last + 1),
        own_source=torch.cat([prefix_rows, n_groups * n_live + (table - first).clamp(min=0)], dim=1),
        own_tail=torch.cat([prefix_rows, n_groups * n_live + tail_of_groups.reads], dim=1),
        tail=tail_of_groups,
        name=name,
    )
    return _on(on_cpu, device)


def _rows(
    prefix_tokens: Int[Tensor, "group live"], tokens: Int[Tensor, "group slot"], run: Bool[Tensor, "group slot"]
) -> Rows:
    """Prefix rows of all groups, then the patch rows that are run."""
    n_groups, n_live = prefix_tokens.shape
    used = run.any(dim=0)  # slots that no group needs are left out of the table
    tokens, run = tokens[:, used], run[:, used]
    group, slot = run.nonzero(as_tuple=True)
    first = torch.arange(n_groups, device="cpu")[:, None]
    width = n_live + run.shape[1]
    numbers = torch.zeros_like(tokens)
    numbers[group, slot] = n_groups * n_live + torch.arange(len(group), device="cpu")
    prefix_rows = first * n_live + torch.arange(n_live, device="cpu")
    return Rows(
        tokens=torch.cat([prefix_tokens.flatten(), tokens[group, slot]]),
        group=torch.cat([first.expand(-1, n_live).flatten(), group]),
        slots=torch.cat([prefix_rows, numbers], dim=1),
        places=torch.cat(
            [(first * width + torch.arange(n_live, device="cpu")).flatten(), group * width + n_live + slot]
        ),
    )


def _on(value: Any, device: torch.device) -> Any:
    """A dataclass with all of its tensors on a device."""
    moved = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor):
            moved[field.name] = placed(part, device)
        elif isinstance(part, (Rows, TailRows)):
            moved[field.name] = _on(part, device)
    return replace(value, **moved)
