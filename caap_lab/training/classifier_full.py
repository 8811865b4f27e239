"""Fine-tuning of all weights, starting from a linear classifier (Kumar et al. 2022, arXiv 2202.10054)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.training.classifier_backbone import Backbone
from caap_lab.training.classifier_data import labels_of
from caap_lab.training.classifier_folder import TrainingFolder
from caap_lab.training.classifier_reading import Reading, pixels_of, read_crops, read_photos

_WEIGHT_DECAY, _SMOOTHING, _LONGEST_SLOPE, _WARMUP = 0.05, 0.1, 1.0, 0.05
_MOMENTS = ("exp_avg", "exp_avg_sq")
"""State of AdamW for each weight, in addition to the number of steps."""


@dataclass(frozen=True)
class Schedule:
    """Duration and learning rate of the training."""

    epochs: int
    learning_rate: float
    """The maximum, reached after a twentieth of all steps; then it falls to 0 as half a cosine."""
    batch_size: int
    seed: int

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of a step."""
        warm = min(1.0, (step + 1) / max(1.0, _WARMUP * steps))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def fine_tune(
    backbone: Backbone,
    images: ImageSet,
    places: Int[np.ndarray, " trained"],
    held_out: Int[np.ndarray, " held"],
    schedule: Schedule,
    reading: Reading,
    folder: TrainingFolder,
) -> list[dict[str, float]]:
    """Train all weights of a model with a classifier, epoch by epoch; each epoch is stored in the folder.

    Batches and crops depend only on the seed and the number of the epoch, so that a stopped and resumed run ends with
    the same result.

    Args:
        backbone: The model, on its device; on a GPU, forward passes compute in bfloat16.
        images: All training photos.
        places: Indices of those to train on.
        held_out: Indices of those on which accuracy is measured after each epoch.
        schedule: Settings that determine the weights.
        reading: Settings that do not.
        folder: Folder in which epochs are stored, and from which earlier ones are resumed.

    Returns:
        Mean loss and held-out accuracy of each epoch.

    Raises:
        InputError: the loss is no longer a number.
    """
    body, device = backbone.body, next(backbone.body.parameters()).device
    optimiser = _optimiser(body, schedule)
    history = _resume(folder, body, optimiser)
    labels = torch.from_numpy(labels_of(images))
    batches = math.ceil(len(places) / schedule.batch_size)
    for epoch in range(len(history), schedule.epochs):
        torch.manual_seed(schedule.seed * 1_000_003 + epoch)  # for dropout, if a model has it
        order = np.random.Generator(np.random.PCG64([schedule.seed, 1, epoch])).permutation(places)
        own = replace(reading, batch_size=schedule.batch_size)
        crops = read_crops(images, order.tolist(), backbone.preprocessing, own, (schedule.seed, epoch))
        body.train()
        losses = []
        title = f"Epoch {epoch + 1} of {schedule.epochs}"
        for number, photos in enumerate(tqdm(crops, title, batches, leave=False, disable=not reading.progress)):
            chosen = order[number * schedule.batch_size : (number + 1) * schedule.batch_size]
            loss = _loss(body, pixels_of(photos, device), labels[chosen].to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(body.parameters(), _LONGEST_SLOPE)
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate_at(epoch * batches + number, schedule.epochs * batches)
            optimiser.step()
            losses.append(loss.detach())
        mean = torch.stack(losses).double().mean().item()
        if not math.isfinite(mean):
            raise InputError(
                f"The loss of epoch {epoch + 1} is {mean}; train with a smaller --learning-rate, into another --out."
            )
        right = count_right(backbone, images, held_out, reading)
        history.append({"loss": mean, "held_out": right / len(held_out)})
        folder.keep("epoch", _state(body, optimiser), history)
    return history


@torch.inference_mode()
def count_right(backbone: Backbone, images: ImageSet, places: Sequence[int] | np.ndarray, reading: Reading) -> int:
    """Number of photos that the model classifies correctly, with `load_model`'s preprocessing."""
    body, device = backbone.body.eval(), next(backbone.body.parameters()).device
    labels = torch.from_numpy(labels_of(images))
    chosen = [int(place) for place in places]
    right = start = 0
    with tqdm(desc="Measuring accuracy", total=len(chosen), leave=False, disable=not reading.progress) as bar:
        for photos in read_photos(images, chosen, backbone.preprocessing, reading):
            guess = body(pixels_of(photos, device)).argmax(1).cpu()
            right += int((guess == labels[chosen[start : start + len(photos)]]).sum())
            start += len(photos)
            bar.update(len(photos))
    return right


def _loss(body: Any, pixels: Tensor, labels: Tensor) -> Tensor:
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
        logits = body(pixels)
    return F.cross_entropy(logits.float(), labels, label_smoothing=_SMOOTHING)


def _optimiser(body: Any, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW with weight decay only for matrices and kernels."""
    large = [value for value in body.parameters() if value.ndim > 1]
    small = [value for value in body.parameters() if value.ndim < 2]
    groups = [{"params": large, "weight_decay": _WEIGHT_DECAY}, {"params": small, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def _state(body: Any, optimiser: torch.optim.AdamW) -> dict[str, Tensor]:
    """Weights and the state of AdamW, by name."""
    tensors = {f"model.{name}": value for name, value in body.state_dict().items()}
    for name, value in body.named_parameters():
        kept = optimiser.state[value]
        tensors |= {f"{part}.{name}": kept[part] for part in (*_MOMENTS, "step") if part in kept}
    return tensors


def _resume(folder: TrainingFolder, body: Any, optimiser: torch.optim.AdamW) -> list[dict[str, float]]:
    """Load the state of a stopped run into a model and its optimiser; returns its epochs."""
    kept = folder.kept("epoch")
    if kept is None:
        return []
    tensors, history = kept
    body.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    for name, value in body.named_parameters():
        if f"step.{name}" in tensors:
            moments = {part: tensors[f"{part}.{name}"].to(value) for part in _MOMENTS}
            optimiser.state[value] = {"step": tensors[f"step.{name}"], **moments}
    return list(history)
