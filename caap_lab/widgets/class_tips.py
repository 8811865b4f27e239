"""Texts about each patch next to its score: the classes that the patch favours when only it is inserted."""

from caap_lab.attribution.map import AttributionMap
from caap_lab.models.classes import ClassNames
from caap_lab.models.probability import probabilities

LIKELIEST = 2
"""Number of classes named per patch."""


def class_tips(m: AttributionMap, names: ClassNames) -> list[str]:
    """One phrase per patch, in reading order: the likeliest classes of the blank with this patch inserted.

    Args:
        m: CAAP's map with the scores of all classes; other maps, and maps of removed patches, have no texts.
        names: Names of the classes.
    """
    if m.all_scores is None or m.settings.get("direction") == "remove":
        return []
    best = probabilities(m.all_scores.flatten(0, 1)).topk(min(LIKELIEST, m.all_scores.shape[-1]))
    return [
        "only this patch inserted: " + ", ".join(f"{names.name(i)} {p:.0%}" for p, i in zip(ps, indices, strict=True))
        for ps, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
