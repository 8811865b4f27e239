"""Sweeps: one patch per cell, over layers, heads, positions or any other axes.

Cells are run many at a time, and the blocks before a cell's first patched one are run once for each image, not once a
cell.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from caap_lab.activations.patch import Edit, Patch, edits
from caap_lab.activations.sweep_result import SweepResult
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import single_images
from caap_lab.models.names import Site
from caap_lab.models.quantised import images_at_once
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT

Metric = Callable[[Float[Tensor, "image classes"]], Float[Tensor, " image"]]


@runs_model
@torch.no_grad()
def sweep(
    model: HookedViT,
    images: Images,
    patch: Callable[..., Patch | Sequence[Patch]],
    *,
    over: Mapping[str, Iterable[Any]],
    metric: int | str | Sequence[int | str] | Metric,
    batch_size: int = 32,
    progress: bool = True,
) -> SweepResult:
    """Patch every combination of labels, and read a metric.

    Args:
        model: The model.
        images: Images that receive the patches.
        patch: Called with one label of each axis, by axis name; gives the cell's patch or patches. A source with a
            batch axis (a store, say) must have one entry, or one for each image.
        over: Axis name to labels, for example {"layer": range(12), "head": range(3)}.
        metric: A target, whose logit is read, or one target per image, or a function from logits [image, class] of all
            images to [image].
        batch_size: Cells run at once (each on all images of a batch of one).
        progress: Show a progress bar.

    Returns:
        Values, effects, means and standard errors, labelled.

    Raises:
        InputError: a cell's patch does not fit the model (all cells are checked before the first run).
    """
    check_kind(model, "sweep")
    check_count("batch_size", batch_size)
    axes = {name: list(labels) for name, labels in over.items()}
    if not axes or not all(axes.values()):
        raise InputError("over needs at least one axis, each with at least one label: over={'layer': range(12)}.")
    taken = {"model", "image", "baseline", "value", "effect"} & set(axes)
    if taken:
        raise InputError(f"An axis cannot be called {taken.pop()!r}: the result table has a column of that name.")
    batch = model.preprocess(single_images(images))
    read, metric_name = _metric(model, metric, len(batch))
    tried = read(torch.zeros(len(batch), model.n_classes, device=model.device, dtype=model.dtype))
    if not isinstance(tried, Tensor) or tried.shape != (len(batch),):
        shape = list(tried.shape) if isinstance(tried, Tensor) else type(tried).__name__
        raise InputError(f"The metric must give one number per image, a tensor [{len(batch)}]; it gives {shape}.")
    cells = []
    known: set[int] = set()
    for number, labels in enumerate(product(*axes.values())):
        given = patch(**dict(zip(axes, labels, strict=True)))
        if given is None:
            raise InputError(f"The patch function returned None for the cell {labels}; it must return a Patch.")
        made = [e for p in ([given] if isinstance(given, Patch) else given) for e in edits(model, p, len(batch), known)]
        if not made:  # an empty list of patches
            raise InputError(f"The cell {labels} has no patch.")
        cells.append((min(site.block(model.spec.n_layers) for site, _ in made), number, made))
    cells.sort(key=lambda cell: cell[:2])

    values = torch.zeros(len(cells), len(batch), dtype=torch.float64, device="cpu")
    prefix = _Prefix(model, batch)
    per_run = max(1, images_at_once(model.body, batch_size) // len(batch))
    with tqdm(total=len(cells), unit="cell", disable=not progress) as bar:
        for first, group in groupby(cells, key=lambda cell: cell[0]):
            waiting = list(group)
            for start in range(0, len(waiting), per_run):
                run = waiting[start : start + per_run]
                logits = _run_cells(model, prefix, first, [made for _, _, made in run])
                numbers = torch.stack([read(cell) for cell in logits.view(len(run), len(batch), -1)])
                values[[number for _, number, _ in run]] = numbers.cpu().double()
                bar.update(len(run))
    shape = [len(labels) for labels in axes.values()]
    return SweepResult.of(
        axes,
        values.T.reshape(len(batch), *shape).numpy(),
        read(prefix.logits()).cpu().double().numpy(),
        metric=metric_name,
        model_name=model.model_name,
    )


class _Prefix:
    """The unpatched run of the images, carried forward block by block as later cells need it."""

    def __init__(self, model: HookedViT, batch: Tensor) -> None:
        self.model = model
        self.batch = batch
        self.layer = 0
        self.class_tokens: list[Tensor] = []
        self.resid = model.embed(batch)

    def advance(self, layer: int) -> None:
        """Run on to the residual stream entering `layer`."""
        blocks = range(self.layer, layer)
        self.resid, self.class_tokens = self.model.run_blocks(self.resid, blocks, self.class_tokens)
        self.layer = max(self.layer, layer)

    def logits(self) -> Tensor:
        """Logits without any patch."""
        self.advance(self.model.spec.n_layers)
        return self.model.unembed(self.resid, self.class_tokens)


def _run_cells(
    model: HookedViT, prefix: _Prefix, first: int, cells: Sequence[Sequence[tuple[Site, Edit]]]
) -> Float[Tensor, "cell_and_image classes"]:
    size = len(prefix.batch)
    by_hook: dict[str, list[tuple[slice, Edit]]] = {}
    for number, made in enumerate(cells):
        rows = slice(number * size, (number + 1) * size)
        for site, edit in made:
            by_hook.setdefault(site.hook, []).append((rows, edit))
    hooks: list[tuple[Any, Any]] = [(hook, _edit_rows(rows)) for hook, rows in by_hook.items()]
    prefix.advance(first)  # before the hooks are on
    with model.hooks(fwd_hooks=hooks):
        if first < 0:
            return model(prefix.batch.repeat(len(cells), 1, 1, 1))
        tokens = [token.repeat(len(cells), 1) for token in prefix.class_tokens]
        return model(prefix.resid.repeat(len(cells), 1, 1), start_at_layer=first, class_tokens=tokens)


def _edit_rows(cells: Sequence[tuple[slice, Edit]]) -> Edit:
    def edit(activation: Tensor, hook: HookPoint) -> Tensor:
        new = activation.clone()
        for rows, replace in cells:
            new[rows] = replace(new[rows], hook)
        return new

    return edit


def _metric(model: HookedViT, metric: int | str | Sequence[int | str] | Metric, count: int) -> tuple[Metric, str]:
    if callable(metric):
        return metric, getattr(metric, "__name__", "metric")
    targets = model.targets(metric, count)
    names = sorted({model.class_names.name(target) for target in targets})
    return lambda logits: logits[range(count), targets], f"logit of {', '.join(names)}"
