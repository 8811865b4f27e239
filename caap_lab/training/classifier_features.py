"""The features of all photos of a set, computed once and stored, so that a stopped run can resume."""

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.training.classifier_backbone import Backbone
from caap_lab.training.classifier_folder import TrainingFolder
from caap_lab.training.classifier_reading import Reading, pixels_of, read_photos

_SHARD = 256
"""Photos per file, which is the most that Ctrl-C loses: seconds on a GPU, about a minute of a ViT-B/16 on a CPU."""
_SHOWN = 5


def compute_features(
    backbone: Backbone, images: ImageSet, part: str, reading: Reading, folder: TrainingFolder
) -> tuple[Float[Tensor, "image width"], list[str]]:
    """The feature of each photo, and a hash of its pixels and label.

    Args:
        backbone: The model, on its device.
        images: The photos.
        part: Name of their files.
        reading: How they are read.
        folder: Folder in which features are stored.

    Raises:
        InputError: photos cannot be read; raised after all have been checked, and features of the photos before the
            first of them are stored.
    """
    backbone.body.eval()
    shards = [range(start, min(start + _SHARD, len(images))) for start in range(0, len(images), _SHARD)]
    missing = [places for places in shards if folder.kept(_name(part, places)) is None]
    if missing:
        _compute(backbone, images, missing, part, reading, folder)
    kept = [found for places in shards if (found := folder.kept(_name(part, places))) is not None]
    return torch.cat([tensors["features"] for tensors, _ in kept]), [digest for _, some in kept for digest in some]


def _name(part: str, places: range) -> str:
    return f"features-{part}-{places.start:07d}"


@torch.inference_mode()
def _compute(
    backbone: Backbone,
    images: ImageSet,
    shards: list[range],
    part: str,
    reading: Reading,
    folder: TrainingFolder,
) -> None:
    """Compute and store shards, all from one stream of photos, so that reading processes are started only once."""
    device = next(backbone.body.parameters()).device
    places = [place for shard in shards for place in shard]
    waiting = iter(shards)
    features = torch.empty(0, dtype=torch.float32, device="cpu")
    digests: list[str] = []
    problems: dict[str, str] = {}
    done = 0
    with tqdm(
        desc=f"Features of {part} photos",
        initial=len(images) - len(places),
        total=len(images),
        leave=False,
        disable=not reading.progress,
    ) as bar:
        shard = next(waiting, None)
        for photos in read_photos(images, places, backbone.preprocessing, reading):
            for place, photo in zip(places[done : done + len(photos)], photos, strict=True):
                if photo.pixels is None:
                    problems[images[place].name] = photo.problem
            done += len(photos)
            bar.update(len(photos))
            if problems:  # the remaining photos are only checked
                continue
            new = backbone.features(pixels_of(photos, device)).float().cpu()
            features = torch.cat([features, new]) if len(features) else new
            digests += [photo.digest for photo in photos]
            while shard is not None and len(features) >= len(shard):
                folder.keep(_name(part, shard), {"features": features[: len(shard)]}, digests[: len(shard)])
                features, digests = features[len(shard) :], digests[len(shard) :]
                shard = next(waiting, None)
    if problems:
        raise _unreadable(images, problems)


def _unreadable(images: ImageSet, problems: dict[str, str]) -> InputError:
    some = "; ".join(f"{name} ({problem})" for name, problem in list(problems.items())[:_SHOWN])
    more = len(problems) - _SHOWN
    return InputError(
        f"{len(problems)} of {len(images)} photos of {images.source} cannot be read: {some}"
        f"{f'; and {more} more' if more > 0 else ''}. Restore these files, or remove them from the data set. "
        "Features of the photos before the first of them are stored."
    )
