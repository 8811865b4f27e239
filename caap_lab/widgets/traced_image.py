"""Computations of the trace widget: the corrupted image, traces layer by layer, and the run of one cell."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.activations.patch import Patch
from caap_lab.activations.run_patched import run_patched
from caap_lab.mechanisms.corruption import corrupt
from caap_lab.mechanisms.trace_result import Trace
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.photos import Photo

OTHER = "other image"
CORRUPTIONS = ("blur", "noise", "blank")


class Cell(NamedTuple):
    """A place of a trace."""

    kind: str
    """Kind of the cell in its layer: "token" or "head"."""
    layer: int
    number: int


class Options(NamedTuple):
    """Settings shared by all traces of a pair."""

    clean: Photo
    how: str
    painted: tuple[int, ...]
    """Numbers of the corrupted patches; empty for all."""
    direction: str
    target: Any
    """The target in the class field; None for the default of `cl.trace`."""


@dataclass(eq=False)
class Traced:
    """Results computed for some options."""

    corrupted: Float[Tensor, "1 3 height width"]
    ends: dict[str, Float[Tensor, "classes"]] = field(default_factory=dict)
    """Logits of the "clean" and the "corrupted" run."""
    tokens: dict[tuple[str, int], Trace] = field(default_factory=dict)
    """Traces by point and layer."""
    heads: Trace | None = None
    logits: dict[tuple[str, Cell], Float[Tensor, "classes"]] = field(default_factory=dict)
    """Logits of patched runs, by point and cell."""

    def effects(self, point: str, layers: int, tokens: int) -> Float[np.ndarray, "layer token"]:
        """Effects of all tokens; NaN if they are not computed yet."""
        found = np.full((layers, tokens), np.nan)
        for layer in range(layers):
            if (point, layer) in self.tokens:
                found[layer] = self.tokens[point, layer].mean[0]
        return found

    @property
    def target(self) -> str:
        """Name of the target, once anything is traced."""
        known = [*self.tokens.values(), *([] if self.heads is None else [self.heads])]
        return str(known[0].data.attrs["target"]) if known else ""


def corrupted_image(
    model: HookedViT, clean: Tensor, other: Tensor | None, how: str, painted: Sequence[int]
) -> Float[Tensor, "1 3 height width"]:
    """The image with its painted patches corrupted, or all patches if none is painted."""
    mask = None
    if painted:
        mask = np.isin(np.arange(model.spec.n_patches), list(painted)).reshape(model.grid)
    if how == OTHER:
        return corrupt(model, clean[0], "blank", masks=mask, blank=other)[None]
    return corrupt(model, clean[0], how, masks=mask)[None]


@torch.no_grad()
def cell_logits(model: HookedViT, given: Tensor, receiver: Tensor, point: str, cell: Cell) -> Float[Tensor, "classes"]:
    """Logits of the receiving image's run with one cell of the given run inserted."""
    name = point if cell.kind == "token" else "z"
    source = model.record(given, [name], layers=cell.layer, device=model.device, progress=False)
    where = {"tokens": [cell.number]} if cell.kind == "token" else {"heads": cell.number}
    return run_patched(model, receiver, Patch(name, cell.layer, source=source, **where))[0].float().cpu()


def calls(
    image: str, other: str, options: Options, target: str, point: str, cell: Cell | None, grid: tuple[int, int]
) -> list[str]:
    """The Python calls that compute what is shown."""
    lines, masks = [], ""
    if options.painted:
        rows, cols = grid
        lines += [
            "import numpy as np",
            f"mask = np.isin(np.arange({rows * cols}), {list(options.painted)}).reshape({rows}, {cols})",
        ]
        masks = ", masks=mask"
    how = f"'blank'{masks}, blank={other}" if options.how == OTHER else f"{options.how!r}{masks}"
    given = f"model, {image}, changed, {target}, direction={options.direction!r}"
    lines += [
        f"changed = cl.corrupt(model, {image}, {how})",
        f"cl.trace({given}, points={point!r})",
        f"cl.trace({given}, points='z', by='head')",
    ]
    if cell is not None:
        source, receiver = (image, "changed") if options.direction == "denoise" else ("changed", image)
        name = point if cell.kind == "token" else "z"
        where = f"tokens=[{cell.number}]" if cell.kind == "token" else f"heads={cell.number}"
        lines += [
            f"source = model.record({source}, [{name!r}], layers={cell.layer})",
            f"model.run_patched({receiver}, cl.Patch({name!r}, {cell.layer}, source=source, {where}))",
        ]
    return lines
