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
    """A figure with one row per image and model and one column per method: the image, then each map over it.

    Each map has its colour scale. If some maps are signed and others are not, a key below explains both.

    ```python
    maps = [cl.attribute(model, images, method) for method in ("caap", "rollout")]
    cl.gallery(list(zip(*maps)))
    ```

    Args:
        rows: One list of maps per image and model, all of the same length.
        titles: Titles of the columns; by default the methods.
        models: Name of each row's model; by default the model's own name.
        opacity: Opacity of the maps over their images, 0 to 1.
        smooth: Interpolate between patches instead of showing each patch's own score.
        robust: End the colours of each map at the 2nd and 98th percentile of its scores instead of the lowest and
            highest.
        fade: Let opacity follow the score: low scores, or signed scores near 0, leave the image visible.
        colour_map: A matplotlib colour map; by default one that suits the sign of the scores.

    Raises:
        InputError: rows differ in length, or there are none.
    """
    from caap_lab.plots.gallery import GalleryRow, plot_gallery

    if isinstance(rows, AttributionMap) or any(isinstance(row, AttributionMap) for row in rows):
        raise InputError("A gallery needs rows of maps, as in cl.gallery([maps]); MapList.plot() draws a list of them.")
    if not rows or not all(rows):
        raise InputError("A gallery needs rows of maps of the same length.")
    models = [row[0].model_name for row in rows] if models is None else models
    return plot_gallery(
        [
            GalleryRow(
                row[0].image.numpy(),
                (model, row_target(row)),
                [m.scores.double().numpy() for m in row],
                [m.sign == "signed" for m in row],
                [m.quantity for m in row],
            )
            for row, model in zip(rows, models, strict=True)
        ],
        [m.method for m in rows[0]] if titles is None else titles,
        Look(opacity, smooth, robust, fade, colour_map),
    )


def row_target(row: Sequence[AttributionMap]) -> str:
    """The target of a row: that of its first map that is class-specific."""
    return next((m.caption for m in row if m.class_specific), row[0].caption)
