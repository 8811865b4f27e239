"""Train a classifier from a Vision Transformer and photos with classes: `caap-lab train`."""

import os
import platform
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from caap_lab._version import __version__
from caap_lab.checks import check_choice, check_count, check_seed, is_number, is_whole
from caap_lab.data.image_set import ImageSet
from caap_lab.digests.hashing import hex_digest, pieces_digest
from caap_lab.errors import InputError
from caap_lab.models.device_dtype import as_device
from caap_lab.training.classifier_backbone import Backbone, open_backbone
from caap_lab.training.classifier_data import TrainingData, labels_of, open_training_data
from caap_lab.training.classifier_features import compute_features
from caap_lab.training.classifier_folder import TrainingFolder
from caap_lab.training.classifier_full import Schedule, count_right, fine_tune
from caap_lab.training.classifier_linear import LinearHead, Tried, choose_strength, fit
from caap_lab.training.classifier_reading import Reading

MODES = ("linear", "full")
EPOCHS, LEARNING_RATE, BATCH_SIZE = 10, 3e-5, 64
_MOST_WORKERS = 16


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier in its folder, as described by training.json."""

    folder: Path
    card: dict[str, Any]

    @property
    def accuracy(self) -> dict[str, float]:
        """Fraction of photos classified correctly, by "training", "held-out" and, if there is a test split, "test"."""
        return {part: counts["right"] / counts["photos"] for part, counts in self.card["accuracy"].items()}

    def __str__(self) -> str:
        """The training data, and the accuracy."""
        parts = [
            f"{counts['right'] / counts['photos']:.1%} of {counts['photos']} {part} photos"
            for part, counts in self.card["accuracy"].items()
        ]
        settings = self.card["settings"]
        without = "" if "test" in self.card["accuracy"] else "; the data set has no test split of its own"
        return (
            f"{settings['model']} on {settings['data']} ({settings['mode']}, {len(self.card['classes'])} classes, "
            f"reads {self.card['feature']})\n"
            f"accuracy: {', '.join(parts)}{without}{self._began()}\n"
            f"{self.folder}: open it with cl.load_model({self._name()!r})"
        )

    def _began(self) -> str:
        """The accuracy before fine-tuning, as text."""
        if self.card["settings"]["mode"] == "linear":
            return ""
        linear = min(self.card["regularisation"], key=lambda one: one["loss"])
        return f"; before fine-tuning, the linear classifier had {linear['accuracy']:.1%} of the held-out photos"

    def _name(self) -> str:
        """The folder as `load_model` accepts it: a bare "demo" would be the bundled model."""
        name = str(self.folder)
        return name if os.sep in name else f"./{name}"


def train_classifier(
    model: str,
    data: str,
    out: str | Path,
    *,
    mode: str = "linear",
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> TrainedClassifier:
    """Train a classifier, and write a folder that `load_model` opens; the same call resumes training after a stop.

    A tenth of the training photos of each class is held out. "linear" is multinomial logistic regression on the feature
    that the model's own head reads, with photos preprocessed as by `load_model`: held-out photos determine the strength
    of its regularisation, and the final classifier is then fitted to all training photos. "full" starts from a linear
    classifier of the photos that are not held out and trains all weights on these: AdamW, half a cosine, label
    smoothing 0.1, random crops and mirroring, after Kumar et al. 2022 (arXiv 2202.10054).

    Args:
        model: A name or folder for `load_model`, with options as text ("vit_base_patch16_224:checkpoint=FILE"). Its
            own classifier is not used.
        data: What `open_images` opens, with labels. "pet:PATH" and "food101:PATH" use their lists of training photos,
            and their test photos for the test.
        out: The classifier's folder.
        mode: "linear" or "full".
        epochs: Number of passes of "full" over the photos.
        learning_rate: Maximum learning rate of "full".
        batch_size: Number of photos that run at once; a step of "full" is one batch.
        device: Device of the model, such as "cuda".
        workers: Processes that read photos; by default none if the model runs on the CPU, otherwise one per core, at
            most 16.
        seed: Seed of the choice of held-out photos, and of the order and the crops of "full".
        progress: Show progress bars.

    Returns:
        The classifier with its accuracy; without training, if the folder already contains this classifier.

    Raises:
        InputError: an argument or a photo cannot be used; the message explains why.
    """
    place = as_device(device)
    schedule = _checked(mode, epochs, learning_rate, batch_size, seed)
    if workers is not None and (not is_whole(workers) or workers < 0):
        raise InputError(f"workers must be a whole number of at least 0, not {workers!r}.")
    reading = Reading(batch_size, _default_workers(place) if workers is None else workers, progress)
    photos = open_training_data(data)
    backbone = open_backbone(model, place)
    settings = _settings(backbone, photos, mode, schedule)
    folder = TrainingFolder(out)
    with folder.opened(settings):
        if not folder.finished:
            began = time.monotonic()
            result = _Training(backbone, photos, folder, reading, schedule).run(mode)
            command = _command(model, data, out, mode, schedule)
            card = {"command": command, "settings": settings, **result, "versions": _versions(place)}
            card["seconds"] = round(time.monotonic() - began, 1)
            folder.finish(backbone, photos.class_names, card)
    return TrainedClassifier(folder.path, folder.read_card())


@dataclass(frozen=True)
class _Training:
    """The steps of one training."""

    backbone: Backbone
    photos: TrainingData
    folder: TrainingFolder
    reading: Reading
    schedule: Schedule

    def run(self, mode: str) -> dict[str, Any]:
        """Train, and leave the classifier in the backbone; returns the results for training.json."""
        features, digests = self._features(self.photos.training, "training")
        test = None if self.photos.test is None else self._features(self.photos.test, "test")
        labels = torch.from_numpy(labels_of(self.photos.training)).to(features.device)
        held = self.photos.held_out(self.schedule.seed)
        rest = np.setdiff1d(np.arange(len(labels)), held)
        head, tried = self._head(features, labels, rest, held, all_photos=mode == "linear")
        self.backbone.put_head(*head)
        about: dict[str, Any] = {
            "feature": self.backbone.feature,
            "classes": list(self.photos.class_names.names),
            "training list": self.photos.training.source,
            "images": pieces_digest([*digests, *([] if test is None else test[1])]),
            "regularisation": [one._asdict() for one in tried],
        }
        right: dict[str, tuple[int, int]] = {}
        if mode == "linear":
            chosen = min(tried, key=lambda one: one.loss)
            right["training"] = _right(head, features, labels), len(labels)
            right["held-out"] = round(chosen.accuracy * len(held)), len(held)
            if test is not None and self.photos.test is not None:
                right["test"] = _right(head, test[0], torch.from_numpy(labels_of(self.photos.test))), len(test[0])
        else:
            training = self.photos.training
            about["epochs"] = fine_tune(self.backbone, training, rest, held, self.schedule, self.reading, self.folder)
            for part, images, places in (("training", training, rest), ("held-out", training, held)):
                right[part] = count_right(self.backbone, images, places, self.reading), len(places)
            if self.photos.test is not None:
                every = range(len(self.photos.test))
                right["test"] = count_right(self.backbone, self.photos.test, every, self.reading), len(every)
        about["accuracy"] = {part: {"right": n, "photos": count} for part, (n, count) in right.items()}
        return about

    def _features(self, images: ImageSet, part: str) -> tuple[torch.Tensor, list[str]]:
        features, digests = compute_features(self.backbone, images, part, self.reading, self.folder)
        return features.to(next(self.backbone.body.parameters()).device), digests

    def _head(
        self, features: torch.Tensor, labels: torch.Tensor, rest: np.ndarray, held: np.ndarray, all_photos: bool
    ) -> tuple[LinearHead, list[Tried]]:
        """The linear classifier of all photos or of those that are not held out, fitted once and stored."""
        kept = self.folder.kept("head")
        if kept is not None:
            tensors, tried = kept
            return LinearHead(tensors["weight"].to(features), tensors["bias"].to(features)), [Tried(**t) for t in tried]
        n_classes = len(self.photos.class_names)
        head, tried = choose_strength(
            features[rest], labels[rest], features[held], labels[held], n_classes, self.reading.progress
        )
        if all_photos:
            head = fit(features, labels, n_classes, min(tried, key=lambda one: one.loss).strength, head)
        self.folder.keep("head", head._asdict(), [one._asdict() for one in tried])
        return head, tried


def _right(head: LinearHead, features: torch.Tensor, labels: torch.Tensor) -> int:
    return int((head(features).argmax(1) == labels.to(features.device)).sum())


def _checked(mode: str, epochs: int, learning_rate: float, batch_size: int, seed: int) -> Schedule:
    check_choice("mode", mode, MODES)
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    check_seed(seed, bits=32)
    if not is_number(learning_rate) or not 0 < learning_rate < 1:
        raise InputError(f"learning_rate={learning_rate!r} must be above 0 and below 1; usual are 1e-5 to 1e-4.")
    if mode == "linear" and (epochs != EPOCHS or learning_rate != LEARNING_RATE):
        raise InputError(
            "epochs and learning_rate are only for mode 'full'; a linear classifier is fitted to convergence."
        )
    return Schedule(epochs, float(learning_rate), batch_size, seed)


def _settings(backbone: Backbone, photos: TrainingData, mode: str, schedule: Schedule) -> dict[str, Any]:
    """All settings that determine the weights, and texts that describe them."""
    test = {} if photos.test is None else {"tested on": photos.test.source}
    full = {
        "epochs": schedule.epochs,
        "learning_rate": schedule.learning_rate,
        "batch_size": schedule.batch_size,
    }
    return {
        "model": backbone.text,
        "weights": hex_digest(backbone.weights, size=12),
        "data": photos.training.source,
        **test,
        "photos": photos.digest,
        "mode": mode,
        "seed": schedule.seed,
        **(full if mode == "full" else {}),
    }


def _command(model: str, data: str, out: str | Path, mode: str, schedule: Schedule) -> str:
    words = ["caap-lab", "train", model, "--data", data, "--out", str(out)]
    if mode == "full":
        words += ["--mode", "full", "--epochs", str(schedule.epochs), "--learning-rate", f"{schedule.learning_rate:g}"]
        words += ["--batch-size", str(schedule.batch_size)]
    return shlex.join([*words, *(["--seed", str(schedule.seed)] if schedule.seed else [])])


def _versions(device: torch.device) -> dict[str, str]:
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "caap_lab": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
        "device": kind,
    }


def _default_workers(device: torch.device) -> int:
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)
