"""Check that a model's classes are those of the paper's data set."""

from caap_lab.bench.pairing import count_pairs, label_of
from caap_lab.bench.paper.parts import OWN_CLASSES
from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.explained import by_contrast

_IMAGENET_21K = (10450, 11221, 21841, 21842, 21843)
"""Numbers of classes of classifiers trained on all of ImageNet, in timm's versions of it."""


def class_problem(dataset: str, images: ImageSet, model: HookedModel, *, by_label: bool) -> str:
    """Why a model cannot run on a data set of the paper, in sentences; empty if it can.

    The numbers of classes have to agree. All names have to agree only if the image's label is explained; otherwise it
    is enough that some do, and models whose classes are texts may have any names.

    Args:
        dataset: The paper's name.
        images: The chosen images.
        model: The model to check.
        by_label: True if labels are explained, not predictions.
    """
    names = images.class_names
    if names is None:
        return f"{images.source} has no labels, so the model's classes cannot be compared with its classes."
    try:
        model.target(0)
    except InputError as error:  # it has no classifier
        return str(error)
    count, own = len(names), len(model.class_names)
    if own != count:
        whose = dataset if dataset in OWN_CLASSES else "ImageNet"  # one sentence for all ImageNet data sets
        return f"It has {own:,} classes{_which(model)}, and {whose} has {count:,}. {_way_out(dataset)}"
    if by_label:
        for sample in {sample.label: sample for sample in images}.values():
            try:
                label_of(sample, images, model)
            except InputError as error:
                return str(error)
    elif count_pairs(names, model.class_names) == 0 and not by_contrast(model):
        return (
            f"None of its classes ({_first(model.class_names.names)}) is one of {dataset}'s ({_first(names.names)}). "
            f"{_way_out(dataset)}"
        )
    return ""


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(name.split(",")[0] for name in names[:3]) + ", ..." * (len(names) > 3)


def _which(model: HookedModel) -> str:
    own = len(model.class_names)
    if by_contrast(model):
        return " (texts)"
    return " (ImageNet-21k's)" if own in _IMAGENET_21K else " (ImageNet-1k's)" if own == 1000 else ""


def _way_out(dataset: str) -> str:
    name = f"{dataset}/NAME" if dataset in OWN_CLASSES else "NAME"
    return f'Use a model with its classes: --models "{name}=MODEL".'
