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
    """A classifier in its folder, as training.json tells of it."""

    folder: Path
    card: dict[str, Any]

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of photos classified correctly, by "training", "held-out" and, where there is one, "test"."""
        return {part: counts["right"] / counts["photos"] for part, counts in self.card["accuracy"].items()}

    def __str__(self) -> str:
        """What it was trained on, and how well it does."""
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
        """What fine-tuning has changed."""
        if self.card["settings"]["mode"] == "linear":
            return ""
        linear = min(self.card["regularisation"], key=lambda one: one["loss"])
        return f"; before fine-tuning, the linear classifier had {linear['accuracy']:.1%} of the held-out photos"

    def _name(self) -> str:
        """The folder as `load_model` takes it: a bare "demo" would be the bundled model."""
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
    """Train a classifier, and write it as a folder that `load_model` opens; run it again to go on after a stop.

    A tenth of the training photos of each class is held out. "linear" is multinomial logistic regression on the feature
    that the model's own head reads, of each photo as `load_model` preprocesses it: held-out photos choose the strength
    of its regularisation, and the classifier that is written is then fitted to all training photos. "full" goes on from
    a linear classifier of the photos that are not held out and trains all weights on these: AdamW, half a cosine, label
    smoothing 0.1, random crops and mirroring, after Kumar et al. 2022 (arXiv 2202.10054).

    Args:
        model: A name or folder for `load_model`, with options as text ("vit_base_patch16_224:checkpoint=FILE"). Its
            own classifier is not used.
        data: What `open_images` opens, with labels. "pet:PATH" and "food101:PATH" are trained on their lists of
            training photos, and tested on their test photos.
        out: The classifier's folder.
        mode: "linear" or "full".
        epochs: How often "full" sees each photo.
        learning_rate: The highest of "full".
        batch_size: Photos that run at once; a step of "full" is one batch.
        device: Where the model runs, such as "cuda".
        workers: Processes that read photos; by default none beside a CPU's own work, else one a core and 16 at most.
        seed: Of which photos are held out, and of the order and the crops of "full".
        progress: Show progress bars.

    Returns:
        The classifier with its accuracy; at once, if the folder holds this very classifier already.

    Raises:
        InputError: something cannot be used; the message says what.
    """
    place = as_device(device)
    schedule = _checked(mode, epochs, learning_rate, batch_size, seed)
    if workers is not None and (not is_whole(workers) or workers < 0):
        raise InputError(f"workers must be a whole number from 0 on, not {workers!r}.")
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
        """Train, and leave the classifier in the backbone; returns what there is to say of it."""
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
        """The linear classifier of all photos or of those that are not held out, found once and kept."""
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
            "epochs and learning_rate go with mode 'full'; a linear classifier is fitted until it is best."
        )
    return Schedule(epochs, float(learning_rate), batch_size, seed)


def _settings(backbone: Backbone, photos: TrainingData, mode: str, schedule: Schedule) -> dict[str, Any]:
    """All that decides the weights, and the texts that say what it is."""
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
