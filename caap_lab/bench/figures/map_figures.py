"""The common part of figures 2, 3 and 11 to 40: photos with the maps of all methods of a table, and their targets."""

from collections.abc import Sequence

from caap_lab.attribution.gallery import row_target
from caap_lab.attribution.map import AttributionMap
from caap_lab.bench.figures.data import FigureData, FigureResult, map_scores
from caap_lab.bench.plan import Study
from caap_lab.bench.target_rule import reads_label, reads_prediction
from caap_lab.plots.gallery import GalleryRow
from caap_lab.plots.sheet import plot_sheet
from caap_lab.variant import Variant


def sheet_of_maps(
    data: FigureData, study: Study, photo: str, rows: Sequence[tuple[Variant, int | str | None]], name: str = ""
) -> FigureResult:
    """One photo with the maps of all methods of a study, one row per model and target.

    Args:
        data: The source of the maps.
        study: Its methods are the columns.
        photo: Name of the photo.
        rows: Models and targets, as `FigureData.map` accepts them.
        name: Name of the files, see `FigureResult`.
    """
    methods = [method.label for method in study.methods]
    maps = [[data.map(study, model, m, photo, target) for m in study.methods] for model, target in rows]
    sheet = [_row(study, model, target, row) for (model, target), row in zip(rows, maps, strict=True)]
    frame = map_scores(
        (model, method, m)
        for (model, _), row in zip(rows, maps, strict=True)
        for method, m in zip(study.methods, row, strict=True)
    )
    frame.insert(0, "photo", photo)
    return FigureResult(plot_sheet(sheet, methods, title=photo), frame, name)


def _row(study: Study, model: Variant, target: int | str | None, row: Sequence[AttributionMap]) -> GalleryRow:
    rule = study.target if target is None else target
    words = "the photo's label" if reads_label(rule) else "the model's prediction" if reads_prediction(rule) else ""
    explained = "the same for any class"
    if any(m.class_specific for m in row):
        explained = f"target {row_target(row)}{f', {words}' if words else ''}"
    scores = [m.scores.double().numpy() for m in row]
    return GalleryRow(row[0].image.numpy(), (model.label, explained), scores, [m.sign == "signed" for m in row])
