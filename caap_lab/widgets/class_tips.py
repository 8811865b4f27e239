"""What is said of each patch beside its score: the classes that it speaks for alone."""

from caap_lab.attribution.map import AttributionMap
from caap_lab.models.classes import ClassNames
from caap_lab.models.probability import probabilities

LIKELIEST = 2
"""Classes named for each patch."""


def class_tips(m: AttributionMap, names: ClassNames) -> list[str]:
    """One phrase per patch, in reading order: the likeliest classes of the blank with this patch inserted.

    Args:
        m: CAAP's map with the scores of all classes; of any other map, and where patches are removed, nothing is said.
        names: Of the classes.
    """
    if m.all_scores is None or m.settings.get("direction") == "remove":
        return []
    best = probabilities(m.all_scores.flatten(0, 1)).topk(min(LIKELIEST, m.all_scores.shape[-1]))
    return [
        "inserted alone: " + ", ".join(f"{names.name(i)} {p:.0%}" for p, i in zip(ps, indices, strict=True))
        for ps, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
