"""Many attribution maps in one grid."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gallery(
    rows: Sequence[Sequence[AttributionMap]], titles: Sequence[str] | None = None, models: Sequence[str] | None = None
) -> "Figure":
    """One row per image and model, one column per method: the image, then each map of the row over it.

    Args:
        rows: Maps of one image and model each, as many in every row.
        titles: Of the columns; by default the methods.
        models: What each row's model is called; by default the model's own name.

    Raises:
        InputError: rows differ in length, or there is none.
    """
    from caap_lab.plots.gallery import GalleryRow, plot_gallery

    if not rows or not all(rows):
        raise InputError("A gallery needs rows of maps, as many in every row.")
    models = [row[0].model_name for row in rows] if models is None else models
    return plot_gallery(
        [
            GalleryRow(
                row[0].image.numpy(),
                (model, f"'{row[0].target_name}'" if isinstance(row[0].target, int) else row[0].target_name),
                [m.scores.double().numpy() for m in row],
                [m.sign == "signed" for m in row],
            )
            for row, model in zip(rows, models, strict=True)
        ],
        [m.method for m in rows[0]] if titles is None else titles,
    )
