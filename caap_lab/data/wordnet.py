"""ImageNet-1k's classes by their WordNet ids, as folders and label files name them."""

from functools import cache

from caap_lab.models.classes import ClassNames


@cache
def wordnet_index() -> dict[str, int]:
    """Class indices of the 1000 classes by WordNet id."""
    return {wordnet_id: index for index, wordnet_id in enumerate(ClassNames.imagenet1k().ids)}
