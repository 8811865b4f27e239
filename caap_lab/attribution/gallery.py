"""Many attribution maps in one grid."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError
from caap_lab.plots.look import LOOK, Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gallery(
    rows: Sequence[Sequence[AttributionMap]],
    titles: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    *,
    opacity: float = LOOK.opacity,
    smooth: bool = LOOK.smooth,
    robust: bool = LOOK.robust,
    fade: bool = LOOK.fade,
    colour_map: str | None = LOOK.colour_map,
) -> "Figure":
    """One row per image and model, one column per method: the image, then each map of the row over it with its scale.

    Where some maps are signed and others are not, a key below says what the colours of each mean.

    ```python
    maps = [cl.attribute(model, images, method) for method in ("caap", "rollout")]
    cl.gallery(list(zip(*maps)))
    ```

    Args:
        rows: Maps of one image and model each, as many in every row.
        titles: Of the columns; by default the methods.
        models: What each row's model is called; by default the model's own name.
        opacity: Of the maps over their images, 0 to 1.
        smooth: Interpolate between patches instead of showing each patch's own score.
        robust: The colours of each map end at the 2nd and 98th percentile of its scores; else at the lowest and the
            highest.
        fade: Opacity follows the score: low scores, or those near 0 of signed ones, leave the image clear.
        colour_map: A matplotlib colour map; by default one that fits the sign of the scores.

    Raises:
        InputError: rows differ in length, or there is none.
    """
    from caap_lab.plots.gallery import GalleryRow, plot_gallery

    if isinstance(rows, AttributionMap) or any(isinstance(row, AttributionMap) for row in rows):
        raise InputError("A gallery needs rows of maps, as in cl.gallery([maps]); MapList.plot() draws a list of them.")
    if not rows or not all(rows):
        raise InputError("A gallery needs rows of maps, as many in every row.")
    models = [row[0].model_name for row in rows] if models is None else models
    return plot_gallery(
        [
            GalleryRow(
                row[0].image.numpy(),
                (model, row_target(row)),
                [m.scores.double().numpy() for m in row],
                [m.sign == "signed" for m in row],
                [m.score for m in row],
            )
            for row, model in zip(rows, models, strict=True)
        ],
        [m.method for m in rows[0]] if titles is None else titles,
        Look(opacity, smooth, robust, fade, colour_map),
    )


def row_target(row: Sequence[AttributionMap]) -> str:
    """What the maps of a row explain: that of the first that is not the same for all targets."""
    return next((m.caption for m in row if m.class_specific), row[0].caption)
