"""Tables below an explorer's maps: the classes favoured by the chosen patch and by the box."""

from collections.abc import Sequence

from caap_lab.attribution.registry import METHODS
from caap_lab.engine.settings import DEFAULTS
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Target
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.class_table import class_table
from caap_lab.widgets.explore_results import Box, ExploreResults, Logits
from caap_lab.widgets.target_box import compared_classes

NEIGHBOURHOOD: str = DEFAULTS["neighbourhood"]


def explore_details(
    model: HookedModel,
    results: ExploreResults,
    photos: Sequence[tuple[int, str]],
    chosen: Sequence[int],
    box: Box,
    targets: Sequence[Target | None],
    cutoff: int,
) -> str:
    """HTML of one table per photo and per patch or box, as far as they are computed.

    Args:
        model: The model, for the classes' names.
        results: The computed results.
        photos: Index and name of each photo that is shown.
        chosen: Row and column of the chosen patch, or empty.
        box: The box, or empty.
        targets: The targets: the first in bold, the one it is compared with in italics.
        cutoff: Number of blocks that the box is inserted into.
    """
    index, against = compared_classes(targets[0])
    if against is None and len(photos) < len(targets):  # two classes of one photo
        against = compared_classes(targets[1])[0]
    tables = []
    for place, name in photos:
        where = f"{name}: " if len(photos) > 1 else ""
        for title, logits in (_of_patch(results, place, chosen), _of_box(results, place, box, cutoff)):
            if logits is not None:
                others = {"whole image": results.logits.get(place), "blank": results.blank}
                tables.append(class_table(where + title, logits, others, index, model, against))
    return f'<div class="caap-details">{"".join(tables) or _hint(model)}</div>'


def _hint(model: HookedModel) -> str:
    if not METHODS["caap"].runs_on(model):
        return ""
    box = ", or drag a box around several" if isinstance(model, HookedViT) else ""
    return f'<div class="caap-hint">Click a patch{box} to see the classes that it favours on its own.</div>'


def _of_patch(results: ExploreResults, place: int, chosen: Sequence[int]) -> tuple[str, Logits | None]:
    m = results.caap_map(place)
    if not chosen or m is None or m.all_scores is None:
        return "", None
    row, col = chosen
    if not (row < m.grid[0] and col < m.grid[1]):
        return "", None
    return f"Patch at row {row}, column {col}, with its neighbours ({NEIGHBOURHOOD})", m.all_scores[row, col]


def _of_box(results: ExploreResults, place: int, box: Box, cutoff: int) -> tuple[str, Logits | None]:
    if not box:
        return "", None
    top, left, bottom, right = box
    title = f"Box, rows {top} to {bottom}, columns {left} to {right}, in the first {cutoff} blocks"
    return title, results.boxes.get((place, box))
