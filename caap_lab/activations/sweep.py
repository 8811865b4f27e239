"""Sweeps: one patch per cell, over layers, heads, positions or any other axes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
from tqdm.auto import tqdm

from caap_lab.activations.cells import Cell, CellRuns, image_chunks
from caap_lab.activations.patch import Known, Patch, as_patches, possible_edits, without_effect
from caap_lab.activations.sweep_result import SweepResult
from caap_lab.activations.token_maps import Ground
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.labels import named
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import check_images
from caap_lab.models.explained import several_explained
from caap_lab.models.running import runs_model
from caap_lab.models.targets import FunctionOfLogits, Target, TargetLike, Targets
from caap_lab.models.vit import HookedViT


@runs_model
@torch.no_grad()
def sweep(
    model: HookedViT,
    images: Images,
    patch: Callable[..., Patch | Sequence[Patch]],
    *,
    over: Mapping[str, Iterable[Any]],
    metric: TargetLike | Sequence[TargetLike] | Mapping[str, TargetLike | Sequence[TargetLike]],
    batch_size: int = 32,
    progress: bool = True,
) -> SweepResult:
    """A metric for every combination of labels, each with its own patch.

    ```python
    source = model.record(images, "z").mean()
    result = cl.sweep(
        model,
        images,
        lambda layer, head: cl.Patch("z", layer, heads=head, source=source),
        over={"layer": range(8), "head": range(4)},
        metric=4,
    )
    result.plot()
    ```

    Many cells run at once, and the blocks before the first patched block of a cell run once per image, not once per
    cell. Cells whose patches cannot change the logits, such as `attn_out` of a patch in the last block of a model whose
    head reads the class token, are not run: their effect is 0.

    Args:
        model: The model.
        images: Images that receive the patches, any number of them.
        patch: Called with one label per axis, by axis name; returns the cell's patch or patches. A source with a batch
            axis (such as a store) must have one entry, or one per image.
        over: Labels by axis name, for example {"layer": range(12), "head": range(3)}.
        metric: A target, one for all images or one per image: a class, which means its logit, `cl.contrast(a, b)`, or a
            function from logits [image, class] to [image], which is called for some of the images at a time. Several by
            name, {"name": target, ...}, are computed in one pass and become the last axis, "target".
        batch_size: Rows run at once: cells times images. More images than that are run in chunks.
        progress: Show a progress bar.

    Returns:
        Values, effects, means and standard errors, labelled.

    Raises:
        InputError: a cell's patch is invalid for the model, or no patch can change the logits; all cells are checked
            before the first run.
    """
    check_kind(model, "sweep")
    check_count("batch_size", batch_size)
    axes = {name: list(labels) for name, labels in over.items()}
    if not axes or not all(axes.values()):
        raise InputError("over needs at least one axis, each with at least one label: over={'layer': range(12)}.")
    several = isinstance(metric, Mapping)
    taken = {"model", "image", "baseline", "value", "effect", *(["target"] if several else [])} & set(axes)
    if taken:
        raise InputError(f"An axis cannot be named {taken.pop()!r}: the result table has a column of that name.")
    singles = check_images(images)
    count = len(singles)
    chunks = image_chunks(model, count, batch_size)
    if callable(metric):
        read = _function(model, metric, count, chunks[0])
    else:
        model, read = several_explained(model, metric, count)
    given = cell_patches(patch, axes)
    cells = cell_edits(model, given, count, chunks[0])  # so that all are checked before the first run
    values = torch.zeros(len(read), len(given), count, dtype=torch.float64, device="cpu")
    baseline = torch.zeros(len(read), count, dtype=torch.float64, device="cpu")
    with tqdm(total=len(given) * len(chunks), desc="sweep", unit="cell", disable=not progress) as bar:
        for rows in chunks:
            cells = cells if rows.start == 0 else cell_edits(model, given, count, rows)
            run = [place for place, cell in enumerate(cells) if cell]
            still = [place for place, cell in enumerate(cells) if not cell]
            runs = CellRuns(model, model.preprocess(singles[rows]), batch_size)
            here = [targets[rows] for targets in read.values()]
            for places, logits in runs.logits([cells[place] for place in run]):
                for number, targets in enumerate(here):
                    scores = torch.stack([targets.value(cell) for cell in logits])
                    values[number, [run[place] for place in places], rows] = scores.cpu().double()
                bar.update(len(places))
            unpatched = runs.unpatched()
            for number, targets in enumerate(here):
                baseline[number, rows] = targets.value(unpatched).cpu().double()
                values[number, still, rows] = baseline[number, rows]
            bar.update(len(still))
    shape = [len(labels) for labels in axes.values()]
    found = values.permute(2, 1, 0).reshape(count, *shape, len(read)).numpy()
    pixels = model.preprocessing.to_rgb(model.preprocess(singles[:1])[0]) if count == 1 else None
    about: dict[str, Any] = {"model_name": model.model_name}
    about["ground"] = Ground(model.spec.grid, model.spec.prefix, pixels)
    if several:
        names = [*read]
        return SweepResult.of({**axes, "target": names}, found, baseline.T.numpy(), metric=", ".join(names), **about)
    (targets,) = read.values()
    return SweepResult.of(axes, found[..., 0], baseline[0].numpy(), metric=_metric_name(targets), **about)


def _function(model: HookedViT, metric: FunctionOfLogits, count: int, rows: slice) -> dict[str, Targets]:
    """A function as the target of all images; unlike other targets it may treat rows differently.

    Raises:
        InputError: it does not return one number per image.
    """
    name = getattr(metric, "__name__", "<lambda>")
    target = Target(metric, "a function of the logits" if name == "<lambda>" else name, model.n_classes)
    targets = Targets((target,) * count)
    targets[rows].value(torch.zeros(rows.stop, model.n_classes, device=model.device, dtype=model.dtype))
    return {target.name: targets}


def cell_patches(
    patch: Callable[..., Patch | Sequence[Patch]], axes: Mapping[str, Sequence[Any]]
) -> list[tuple[str, list[Patch]]]:
    """The name of every cell in error messages, and its patches.

    Raises:
        InputError: a cell has none.
    """
    cells = []
    for labels in product(*axes.values()):
        cell = dict(zip(axes, labels, strict=True))
        name = ", ".join(f"{axis}={label}" for axis, label in cell.items())
        given = patch(**cell)
        if given is None:
            raise InputError(f"The patch function returned None for the cell {name}; it must return a Patch.")
        with _named(name):
            cells.append((name, as_patches(given)))
        if not cells[-1][1]:
            raise InputError(f"The cell {name} has no patch.")
    return cells


def cell_edits(
    model: HookedViT, patches: Sequence[tuple[str, Sequence[Patch]]], count: int, rows: slice | None = None
) -> list[Cell]:
    """The edits of every cell, with the values of their sources; none where they cannot change the logits.

    Args:
        model: The model.
        patches: The name of every cell, and its patches.
        count: Number of images.
        rows: Images to which the edits apply, if not all.

    Raises:
        InputError: a patch is invalid for the model, or no cell could change the logits.
    """
    known: Known = {}
    cells: list[Cell] = []
    for name, given in patches:
        with _named(name):
            made = [possible_edits(model, patch, count, known, rows) for patch in given]
        cells.append([edit for edits, _ in made for edit in edits] if any(reaches for _, reaches in made) else [])
    if not any(cells):
        raise without_effect(model, patches[0][1][0])
    return cells


@contextmanager
def _named(cell: str) -> Iterator[None]:
    """Adds the cell to the message of an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"Cell {cell}: {error}") from error


def _metric_name(targets: Targets) -> str:
    if any(callable(target.given) for target in targets):
        return targets.name
    return f"logit of {named(sorted(target.name for target in targets))}"
