"""What a tooltip says of each patch of a map."""

from caap_lab.attribution.map import AttributionMap
from caap_lab.models.classes import ClassNames
from caap_lab.models.probability import probabilities

LIKELIEST = 2
"""Classes named in a tooltip."""


def patch_tips(m: AttributionMap, caap_map: AttributionMap | None, names: ClassNames) -> list[str]:
    """One sentence per patch, row by row: its score and rank, and the classes that it speaks for when inserted alone.

    Args:
        m: The map.
        caap_map: CAAP's map of the same image with the scores of all classes, once it is known.
        names: Of the classes.
    """
    rank = {cell: place + 1 for place, cell in enumerate(m.rank())}
    rows, cols = m.grid
    alone = [""] * (rows * cols)
    if caap_map is not None and caap_map.all_scores is not None and caap_map.grid == m.grid:
        best = probabilities(caap_map.all_scores.flatten(0, 1)).topk(min(LIKELIEST, caap_map.all_scores.shape[-1]))
        alone = [
            "; inserted alone: " + ", ".join(f"{names.name(i)} {p:.0%}" for p, i in zip(ps, indices, strict=True))
            for ps, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    scores, count = m.scores.tolist(), rows * cols
    return [
        f"row {row}, column {col}: {m.score} {scores[row][col]:.4g}, rank {rank[row, col]} of {count}"
        f"{alone[row * cols + col]}"
        for row in range(rows)
        for col in range(cols)
    ]
