"""The photos for training and testing a classifier, and their checks."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from caap_lab.data.image_set import ImageSet
from caap_lab.data.open import open_images
from caap_lab.digests.hashing import pieces_digest
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

_TRAINING_LISTS = {"pet": ("oxford-iiit-pet", "annotations/trainval.txt"), "food101": ("food-101", "meta/train.txt")}
"""By kind: the folder that may contain the data set, and its list of training photos (`open_images` reads another)."""
_LABELS = "?labels="
_HELD_OUT = 0.1
_SHOWN = 3


@dataclass(frozen=True)
class TrainingData:
    """Photos with classes, for training and for testing."""

    training: ImageSet
    test: ImageSet | None
    """None if the data set has no test split."""

    @property
    def class_names(self) -> ClassNames:
        """The data set's classes, which become the classifier's."""
        assert self.training.class_names is not None
        return self.training.class_names

    @property
    def digest(self) -> str:
        """Hash of the names of all photos, their labels and the classes; no photo is read."""
        lists = [[(s.name, s.label) for s in images] for images in (self.training, self.test) if images is not None]
        names = self.class_names
        return pieces_digest([json.dumps([lists, names.names, names.ids])])

    def held_out(self, seed: int) -> Int[np.ndarray, " held"]:
        """Indices of a tenth of the training photos of each class, at least one, in sorted order."""
        rng = np.random.Generator(np.random.PCG64([seed, 0]))
        labels = labels_of(self.training)
        places: list[int] = []
        for label in range(len(self.class_names)):
            of_class = rng.permutation(np.flatnonzero(labels == label))
            places += of_class[: max(1, round(_HELD_OUT * len(of_class)))].tolist()
        return np.sort(np.array(places, dtype=np.int64))


def labels_of(images: ImageSet) -> Int[np.ndarray, " image"]:
    """The class index of each image."""
    return np.array([sample.label for sample in images], dtype=np.int64)


def open_training_data(data: str) -> TrainingData:
    """Open a data set for training; no photo is read.

    Oxford-IIIT Pet and Food-101 are opened with their lists of training photos, and tested on their test photos.

    Args:
        data: What `open_images` opens.

    Raises:
        InputError: it cannot be opened, photos have no label, a class has fewer than two photos, or test photos are
            among the training photos.
    """
    training, test = _splits(data)
    _check_labels(training)
    if test is not None:
        _check_test(training, test)
    return TrainingData(training, test)


def _splits(data: str) -> tuple[ImageSet, ImageSet | None]:
    images = open_images(data)
    kind, _, place = images.source.partition(":")
    if kind not in _TRAINING_LISTS:
        return images, None
    folder, mark, _ = place.rpartition(_LABELS)
    if mark:  # the user's own list of training photos
        try:
            return images, open_images(f"{kind}:{folder}")
        except InputError:  # without the list of test photos there is no test
            return images, None
    inner, name = _TRAINING_LISTS[kind]
    files = [Path(place) / name, Path(place) / inner / name]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise InputError(
            f"{place} has no {name}, the list of its training photos. Download it from the data set's site, or use "
            f"another list of photos to train on: {kind}:{place}{_LABELS}FILE."
        )
    return open_images(images.source, labels=found), images


def _check_labels(images: ImageSet) -> None:
    without = [sample.name for sample in images if sample.label is None]
    if without or images.class_names is None:
        raise InputError(
            f"{len(without)} of {len(images)} images of {images.source} have no label, such as {without[0]}. A "
            "classifier needs classes: put the photos of each class into a separate folder, or list their labels "
            "in labels.json."
        )
    names = images.class_names
    count = Counter(labels_of(images).tolist())
    beyond = max(count)
    if beyond >= len(names):
        raise InputError(f"{images.source} has the label {beyond}, but only {len(names)} classes, counted from 0.")
    if len(names) < 2:
        raise InputError(f"{images.source} has only the class {names.name(0)!r}; a classifier needs at least two.")
    few = [names.name(label) for label in range(len(names)) if count[label] < 2]
    if few:
        raise InputError(
            f"{len(few)} of {len(names)} classes of {images.source} have fewer than two photos: {_list(few)}. One is "
            "needed for training, one is held out. Add photos, or open a data set with only the other classes."
        )


def _check_test(training: ImageSet, test: ImageSet) -> None:
    tested = {sample.name for sample in test}
    shared = [sample.name for sample in training if sample.name in tested]
    if shared:
        raise InputError(
            f"{len(shared)} of {len(training)} photos in {training.source} are also test photos: {_list(shared)}. "
            "Accuracy on test photos would then be meaningless. Use other photos: without ?labels=, the data set's own "
            "list is used."
        )
    if training.class_names != test.class_names:
        raise InputError(
            f"{training.source} and {test.source} do not have the same classes, so one of their lists does not belong "
            "to the data set."
        )


def _list(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
