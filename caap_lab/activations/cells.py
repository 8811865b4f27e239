"""Many patched runs of the same images: cells run together, and blocks before the first patched one run only once.

A cell is the edits of one patched run. Sweeps, traces and ablations are tables of cells.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.activations.patch import Edit
from caap_lab.models.at_once import images_at_once
from caap_lab.models.names import Site
from caap_lab.models.vit import HookedViT

Cell = Sequence[tuple[Site, Edit]]
"""The edits of one run; later edits of a hook point take precedence."""


def image_chunks(model: HookedViT, count: int, batch_size: int) -> list[slice]:
    """Slices of images that run together, so that `batch_size` limits the memory for any number of images."""
    size = images_at_once(model, batch_size)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class CellRuns:
    """Patched runs of a few images, with the unpatched run that they start from."""

    def __init__(self, model: HookedViT, batch: Float[Tensor, "image 3 height width"], batch_size: int) -> None:
        """Embed the images.

        Args:
            model: The model.
            batch: Preprocessed images, at most `batch_size` of them.
            batch_size: Largest number of rows per run: cells times images.
        """
        self.model = model
        self.batch = batch
        self.per_run = max(1, images_at_once(model, batch_size) // len(batch))
        self.passes = 0.0
        """Forward passes so far, in passes of one image; each block counts as an equal part of a pass."""
        self._layer = 0
        self._class_tokens: list[Tensor] = []
        self._resid = model.embed(batch)

    def logits(self, cells: Sequence[Cell]) -> Iterator[tuple[list[int], Float[Tensor, "cell image classes"]]]:
        """Logits of all cells, several at a time, with indices into `cells`; cells with earlier patches first."""
        n_layers = self.model.spec.n_layers
        order = sorted((min(site.block(n_layers) for site, _ in cell), place) for place, cell in enumerate(cells))
        for first, group in groupby(order, key=lambda entry: entry[0]):
            places = [place for _, place in group]
            for start in range(0, len(places), self.per_run):
                run = places[start : start + self.per_run]
                logits = self._run(first, [cells[place] for place in run])
                yield run, logits.view(len(run), len(self.batch), -1)

    def unpatched(self) -> Float[Tensor, "image classes"]:
        """Logits without any patch; no cells can be run after this call."""
        self._advance(self.model.spec.n_layers)
        return self.model.unembed(self._resid, self._class_tokens)

    def _advance(self, layer: int) -> None:
        """Continue the unpatched run to the residual stream entering a layer."""
        blocks = range(self._layer, layer)
        self._resid, self._class_tokens = self.model.run_blocks(self._resid, blocks, self._class_tokens)
        self._layer = max(self._layer, layer)
        self.passes += len(self.batch) * len(blocks) / self.model.spec.n_layers

    def _run(self, first: int, cells: Sequence[Cell]) -> Float[Tensor, "cell_and_image classes"]:
        size = len(self.batch)
        by_hook: dict[str, list[tuple[slice, Edit]]] = {}
        for number, cell in enumerate(cells):
            rows = slice(number * size, (number + 1) * size)
            for site, edit in cell:
                by_hook.setdefault(site.hook, []).append((rows, edit))
        hooks: list[tuple[Any, Any]] = [(hook, _edit_rows(rows)) for hook, rows in by_hook.items()]
        self._advance(first)  # before the hooks are added
        n_layers = self.model.spec.n_layers
        self.passes += len(cells) * size * (n_layers - max(0, first)) / n_layers
        with self.model.hooks(fwd_hooks=hooks):
            if first < 0:
                return self.model(self.batch.repeat(len(cells), 1, 1, 1))
            tokens = [token.repeat(len(cells), 1) for token in self._class_tokens]
            return self.model(self._resid.repeat(len(cells), 1, 1), start_at_layer=first, class_tokens=tokens)


def _edit_rows(cells: Sequence[tuple[slice, Edit]]) -> Edit:
    def edit(activation: Tensor, hook: HookPoint) -> Tensor:
        new = activation.clone()
        for rows, replace in cells:
            new[rows] = replace(new[rows], hook)
        return new

    return edit
