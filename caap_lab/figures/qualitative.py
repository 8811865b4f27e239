"""Figures 1 to 3 and the galleries: maps of single images."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch, Rectangle

from caap_lab.attribution.gallery import gallery as map_gallery
from caap_lab.attribution.map import AttributionMap
from caap_lab.bench.pairing import with_model_classes
from caap_lab.bench.plan import Study
from caap_lab.engine.blanks import blank_image
from caap_lab.escaping import for_plot
from caap_lab.figures.world import Drawn, World
from caap_lab.models.neighbour_tables import neighbourhood_table, table_masks
from caap_lab.plots.style import COLOURS, new_figure
from caap_lab.variant import Variant

GALLERY_IMAGES = 5


def fig01(world: World) -> Drawn:
    """CAAP in one picture, from a real run: source, blank, the patched context of one patch, and the map."""
    study = world.study(1)
    name = study.data.names[0]
    m = world.map(study, study.models[0], _caap(study), name)
    model = world.model(study.models[0])
    (row, col), (rows, cols) = m.rank()[0], m.grid
    height, width = m.image.shape[0] / rows, m.image.shape[1] / cols
    inside = table_masks(neighbourhood_table(m.grid, "box1"))[row * cols + col].reshape(rows, cols).numpy()
    pixels = np.kron(inside, np.ones((round(height), round(width)), dtype=bool))[..., None]
    blank = blank_image(model, "white")
    assert blank is not None
    empty = model.preprocessing.to_rgb(blank[0])
    figure = new_figure(11, 3.5)  # high enough that the width limits the squares: the layout makes no room else
    source, target, patched, result = figure.subplots(1, 4)
    pictures = (m.image.numpy(), empty, np.where(pixels, m.image.numpy(), empty))
    told = ("source", "blank", f"patched context of patch ({row}, {col})")
    for ax, picture, title in zip((source, target, patched), pictures, told, strict=True):
        ax.imshow(picture, interpolation="nearest")
        ax.set_title(title, fontsize=10)
        _cells(ax, m.grid, height, width)
    found = np.argwhere(inside)
    top, left = found.min(axis=0)
    size = found.max(axis=0) - (top, left) + 1
    for ax in (source, patched):
        box = Rectangle((left * width - 0.5, top * height - 0.5), size[1] * width, size[0] * height)
        box.set(fill=False, edgecolor=COLOURS[1], linewidth=2)
        ax.add_patch(box)
    middle = ((left + size[1] / 2) * width, (top + size[0] / 2) * height)
    arrow = ConnectionPatch(
        middle, middle, "data", "data", axesA=source, axesB=patched, arrowstyle="->", color=COLOURS[1]
    )
    figure.add_artist(arrow)
    cutoff = m.settings["cutoff"]
    source.set_xlabel(f"residual streams entering blocks 0 to {cutoff - 1} ...", fontsize=8)
    target.set_xlabel("... into the blank's run", fontsize=8)
    patched.set_xlabel(for_plot(f"score of '{m.target_name}': {m.scores[row, col]:.2f}"), fontsize=8)
    m.overlay(result, label=f"{m.score} of '{m.target_name}'")
    result.set_title("map: one such score a patch", fontsize=10)
    return Drawn(figure, _scores([[m]]))


def fig02(world: World) -> Drawn:
    """One image of table 1 under all its methods, on each of its models."""
    study = world.study(1)
    name = study.data.names[0]
    rows = [[world.map(study, model, method, name) for method in study.methods] for model in study.models]
    return _gallery(study, rows, [model.label for model in study.models])


def fig03(world: World) -> Drawn:
    """An image with several objects, asked for each of its classes, on the CLIP model of table 2."""
    study = world.study(2)
    model = next((m for m in study.models if m.label.startswith("CLIP")), study.models[0])
    images = world.images(study)
    hooked = world.model(model)
    known = ((s.name, _classes(with_model_classes(s, images, hooked).regions.masks)) for s in images)
    name, annotated = next((found for found in known if len(found[1]) > 1), (study.data.names[0], []))
    classes: list[int | None] = [*annotated[:2]] or [None]
    rows = [[world.map(study, model, method, name, label) for method in study.methods] for label in classes]
    return _gallery(study, rows, [model.label] * len(rows))


def gallery(world: World) -> Drawn:
    """The first images of table 1 under all its methods, one model after the other (the paper's figures 11 to 40)."""
    study = world.study(1)
    pairs = [(model, name) for model in study.models for name in study.data.names[:GALLERY_IMAGES]]
    rows = [[world.map(study, model, method, name) for method in study.methods] for model, name in pairs]
    return _gallery(study, rows, [model.label for model, _ in pairs])


def _gallery(study: Study, rows: Sequence[Sequence[AttributionMap]], models: Sequence[str]) -> Drawn:
    return Drawn(map_gallery(rows, [method.label for method in study.methods], models), _scores(rows))


def _caap(study: Study) -> Variant:
    return next(method for method in study.methods if method.text == "caap")


def _classes(masks: Mapping[int | None, np.ndarray]) -> list[int]:
    """Annotated classes, one for each mask."""
    found: dict[int, int] = {}
    for label, mask in masks.items():
        if label is not None:
            found.setdefault(id(mask), label)
    return list(found.values())


def _cells(ax: Axes, grid: tuple[int, int], height: float, width: float) -> None:
    """Thin lines between patches instead of an axis."""
    ax.set_xticks([c * width - 0.5 for c in range(1, grid[1])], labels=[])
    ax.set_yticks([r * height - 0.5 for r in range(1, grid[0])], labels=[])
    ax.tick_params(length=0)
    ax.grid(color="0.5", linewidth=0.3)


def _scores(rows: Sequence[Sequence[AttributionMap]]) -> pd.DataFrame:
    """Every patch's score of the maps in some rows."""
    lines = []
    for m in chain.from_iterable(rows):
        for (row, col), score in np.ndenumerate(m.scores.numpy()):
            told = {"model": m.model_name, "method": m.method, "target": m.target_name}
            lines.append({**told, "row": row, "column": col, "score": float(score)})
    return pd.DataFrame(lines)
