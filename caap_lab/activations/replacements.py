"""Replacements for removed activations: means, other images' activations, noise with the same standard deviation.

Zeros are not a neutral replacement: a trained network has hardly seen them. In DINOv2 and DINOv3 zeroed registers cost
up to 36 points of accuracy, mean or shuffled ones about 1 (arXiv 2604.14433). So a result names its replacement.
"""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.activations.shards import Shard
from caap_lab.activations.store import ActivationStore
from caap_lab.checks import check_seed
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.models.device_dtype import has_float64
from caap_lab.models.names import short_name

_PIECE = 2**23
"""Number of values read from a store at once."""
OVER = ("image", ("image", "token"))
"""Axes over which means are computed."""


def mean(store: ActivationStore, over: str | Sequence[str] = "image") -> ActivationStore:
    """See `ActivationStore.mean`."""
    axes = tuple(over) if isinstance(over, (tuple, list)) else (over,)
    if axes not in (("image",), ("image", "token")):
        raise InputError(f"over={over!r} is not known; use 'image' or ('image', 'token').")
    return mean_store(store, moments_of(store), tokens=len(axes) == 2, count=len(store))


def shuffled(store: ActivationStore, seed: int) -> ActivationStore:
    """See `ActivationStore.shuffled`."""
    check_seed(seed)
    if len(store) < 2:
        raise InputError("This store holds one image, but shuffled() swaps activations between images.")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    images = torch.arange(len(store), device="cpu")
    others = images
    while bool((others == images).any()):  # e times on average; all derangements are equally likely
        others = torch.randperm(len(store), generator=generator, device="cpu")
    text = f"another image's activations ({len(store)} images, seed {seed})"
    return _of_images(store, others.tolist(), text)


def drawn(store: ActivationStore, same: Sequence[Sequence[int]], seed: int) -> ActivationStore:
    """Activations of images drawn from a store, for other images; none repeats before all were drawn.

    Args:
        store: The activations to draw from.
        same: For each image, where the image itself is in the store, which must hold another as well. If it is drawn,
            another is drawn instead.
        seed: Seed of the draws.
    """
    check_seed(seed)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    n_rounds = -(-len(same) // len(store))
    rounds = [torch.randperm(len(store), generator=generator, device="cpu") for _ in range(n_rounds)]
    chosen = torch.cat(rounds)[: len(same)].tolist()
    for image, own in enumerate(same):
        if chosen[image] in own:
            others = sorted({*range(len(store))} - {*own})
            chosen[image] = others[int(torch.randint(len(others), (), generator=generator, device="cpu"))]
    text = f"another image's activations (drawn from {_images(len(store))}, seed {seed})"
    return _of_images(store, chosen, text)


def noise(store: ActivationStore, seed: int) -> ActivationStore:
    """See `ActivationStore.noise`."""
    return noise_store(store, moments_of(store), seed, images=len(store), count=len(store))


def class_mean(store: ActivationStore, labels: Sequence[Hashable], of: Any = None) -> ActivationStore:
    """See `ActivationStore.class_mean`."""
    names = _as_labels(labels)
    if len(names) != len(store):
        raise InputError(f"{len(names)} labels were given for a store of {_images(len(store))}; give one per image.")
    single = of is not None and (isinstance(of, str) or not isinstance(of, (Sequence, np.ndarray, Tensor)))
    wanted = names if of is None else [of] if single else _as_labels(of)
    known = list(dict.fromkeys(names))
    unknown = [label for label in wanted if label not in known]
    if unknown or not wanted:
        given = f"{unknown[0]!r} is not among the labels" if unknown else "No class was given"
        raise InputError(f"{given}; there are {', '.join(map(str, known[:8]))}{' ...' * (len(known) > 8)}.")
    rows = {label: [i for i, name in enumerate(names) if name == label] for label in dict.fromkeys(wanted)}
    means = {}
    for label, images in rows.items():
        part = _of_images(store, images, "")
        means[label] = mean(part).shards[0]
    if single:
        text = f"mean over the {_images(len(rows[of]))} of class {of}"
    else:
        text = f"mean over a class ({_images(len(store))}, {len(known)} class{'es' * (len(known) != 1)})"
    return replace(store, shards=tuple(means[label] for label in wanted), replacement=text)


def moments_of(store: ActivationStore) -> dict[str, "Moments"]:
    """Mean and standard deviation of each activation of a store, over images."""
    return {hook: Moments.of(_pieces(store, hook)) for hook in store.shapes}


def mean_store(like: ActivationStore, moments: Mapping[str, "Moments"], *, tokens: bool, count: int) -> ActivationStore:
    """A store of one image: the mean over images, or over their tokens as well.

    Args:
        like: A store with the names, the model and the number format.
        moments: Moments of each of its activations.
        tokens: Whether to average over tokens as well.
        count: Number of images, for the text.
    """
    tensors = {}
    for hook, shape in like.shapes.items():
        found, _ = moments[hook].over_tokens(_need_tokens(hook)) if tokens else (moments[hook].mean, None)
        tensors[hook] = found.expand(shape)[None].to(like.device, like.dtype)
    text = f"mean over {_images(count)}" + f" and all {'its' if count == 1 else 'their'} tokens" * tokens
    return replace(like, shards=(Shard(tensors, 0, 1),), replacement=text)


def noise_store(
    like: ActivationStore, moments: Mapping[str, "Moments"], seed: int, *, images: int, count: int
) -> ActivationStore:
    """A store of Gaussian noise for a number of images, generated when it is read.

    Args:
        like: A store with the names, the model and the number format.
        moments: Moments of each of its activations.
        seed: Seed of the noise.
        images: Number of images.
        count: Number of images from which the moments were computed, for the text.
    """
    check_seed(seed)
    of_channels = {hook: moments[hook].over_tokens(token_axis(hook)) for hook in like.shapes}
    source = _Noise(of_channels, like.shapes, seed, like.dtype, like.device)
    text = f"Gaussian noise per channel ({_images(count)}, seed {seed})"
    return replace(like, shards=(Shard(source, 0, images),), replacement=text)


@dataclass
class Moments:
    """Mean and standard deviation over images of every value of an activation, in float64, accumulated."""

    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0
    """Sum of squared deviations from the mean."""

    @classmethod
    def of(cls, pieces: Iterator[Float[Tensor, "image *shape"]]) -> "Moments":
        """The moments of all images in some pieces."""
        moments = cls()
        for piece in pieces:
            moments.add(piece)
        return moments

    def add(self, rows: Float[Tensor, "image *shape"]) -> None:
        """Include more images, by the numerically stable pairwise formula of Chan, Golub & LeVeque (1983)."""
        wide = (rows if has_float64(rows.device) else rows.cpu()).double()
        mean = wide.mean(dim=0)
        squares = (wide - mean).square().sum(dim=0)
        total = self.count + len(rows)
        away = mean - self.mean
        self.mean = self.mean + away * (len(rows) / total)
        self.squares = self.squares + squares + away.square() * (self.count * len(rows) / total)
        self.count = total

    def over_tokens(self, axis: int | None) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Mean and standard deviation (ddof 0) over images and tokens, with an axis of length 1 for the tokens."""
        variance = self.squares / self.count
        if axis is None:
            return self.mean, variance.sqrt()
        mean = self.mean.mean(dim=axis, keepdim=True)
        return mean, (variance + (self.mean - mean).square()).mean(dim=axis, keepdim=True).sqrt()


@dataclass(frozen=True, eq=False)
class _Noise:
    """Gaussian rows, each of which depends only on the seed, its index and its hook point."""

    of_channels: Mapping[str, tuple[Tensor, Tensor]]
    shapes: Mapping[str, tuple[int, ...]]
    seed: int
    dtype: torch.dtype
    device: torch.device

    def read(self, hook: str, start: int, stop: int) -> Float[Tensor, "image *shape"]:
        mean, spread = (numbers.cpu() for numbers in self.of_channels[hook])
        rows = [mean + spread * self._row(hook, row) for row in range(start, stop)]
        return torch.stack(rows).to(self.device, self.dtype)

    def _row(self, hook: str, row: int) -> Float[Tensor, "*shape"]:
        digest = hashlib.blake2b(f"{self.seed} {hook} {row}".encode(), digest_size=8).digest()
        generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.randn(self.shapes[hook], generator=generator, dtype=torch.float64, device="cpu")


def token_axis(hook: str) -> int | None:
    """The token axis of the activation for one image (for scores and patterns, the queries); None if there is none."""
    leaf = short_name(hook).split(".")[-1]
    if leaf in ("pooled", "logits"):
        return None
    return 1 if leaf in ("attn_scores", "pattern") else 0


def _need_tokens(hook: str) -> int:
    axis = token_axis(hook)
    if axis is None:
        raise InputError(f"{hook} has no tokens to average over; use over='image', or record other names.")
    return axis


def _pieces(store: ActivationStore, hook: str) -> Iterator[Float[Tensor, "image *shape"]]:
    """Rows of one activation, a few at a time."""
    step = max(1, _PIECE // max(1, torch.Size(store.shapes[hook]).numel()))
    for shard in store.shards:
        for start in range(shard.start, shard.stop, step):
            yield replace(shard, start=start, stop=min(start + step, shard.stop)).read(hook)


def _of_images(store: ActivationStore, images: Sequence[int], text: str) -> ActivationStore:
    """A store of some images, in the given order; nothing is read."""
    places = [replace(s, start=row, stop=row + 1) for s in store.shards for row in range(s.start, s.stop)]
    return replace(store, shards=tuple(places[image] for image in images), replacement=text)


def _as_labels(labels: Any) -> list[Hashable]:
    if isinstance(labels, (Tensor, np.ndarray)):
        labels = labels.tolist()
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise InputError(f"labels={labels!r} must be a sequence: the class of each image, in order.")
    found = list(labels)
    if not all(isinstance(label, Hashable) for label in found):
        raise InputError("Labels must be names or numbers, one per image, not lists or arrays.")
    return found


def _images(count: int) -> str:
    return counted(count, "image")
