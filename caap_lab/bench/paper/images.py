"""The images of the paper's data sets that a run uses."""

from caap_lab.bench.paper.settings import PaperSettings
from caap_lab.bench.ready import count_problem
from caap_lab.data.image_set import ImageSet, read_list
from caap_lab.data.open import open_images


def chosen_images(settings: PaperSettings, dataset: str) -> ImageSet:
    """A data set, or the images of it that the user's list names.

    Raises:
        InputError: it cannot be opened, or a listed image does not exist.
    """
    images = open_images(settings.data[dataset])
    listed = settings.image_lists.get(dataset)
    return images if listed is None else images.only(read_list(listed))


def drawn(settings: PaperSettings, dataset: str, images: ImageSet, count: int) -> ImageSet:
    """The required number of images, or all that the user lists. A smaller draw is the start of a larger one."""
    if dataset in settings.image_lists or len(images) <= count:
        return images
    return images.sample(count, settings.seed)


def few_images(settings: PaperSettings, dataset: str, there: int) -> str:
    """A sentence if a data set has fewer images than its tables need; otherwise empty."""
    return "" if dataset in settings.image_lists else count_problem(dataset, there, due(settings, dataset))


def due(settings: PaperSettings, dataset: str) -> list[int]:
    """The number of images of a data set that each chosen table uses."""
    tables = [table for table in settings.wanted if dataset in settings.datasets(table)]
    return [settings.count(table, dataset) for table in tables]
