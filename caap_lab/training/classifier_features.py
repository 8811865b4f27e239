"""What a model makes of every photo of a set, computed once and kept, so that a stopped run goes on."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.training.classifier_backbone import Backbone
from caap_lab.training.classifier_folder import TrainingFolder
from caap_lab.training.classifier_reading import Photo, Reading, pixels_of, read_photos

_SHARD = 256
"""Photos in a file: what Ctrl-C loses at most; some seconds on a GPU, about a minute of a ViT-B/16 on a CPU."""
_SHOWN = 5


def compute_features(
    backbone: Backbone, images: ImageSet, part: str, reading: Reading, folder: TrainingFolder
) -> tuple[Float[Tensor, "image width"], list[str]]:
    """The feature of each photo, and a hash of its pixels and label.

    Args:
        backbone: The model, on its device.
        images: The photos.
        part: What their files are called.
        reading: How they are read.
        folder: Where features are kept.

    Raises:
        InputError: photos cannot be read; all the others have been by then, and their features are kept.
    """
    backbone.body.eval()
    features: list[Tensor] = []
    digests: list[str] = []
    problems: dict[str, str] = {}
    with tqdm(desc=f"Features of {part} photos", total=len(images), disable=not reading.progress, leave=False) as bar:
        for start in range(0, len(images), _SHARD):
            places = range(start, min(start + _SHARD, len(images)))
            name = f"features-{part}-{start // _SHARD:05d}"
            kept = folder.kept(name)
            if kept is None:
                shard = _shard(backbone, images, places, reading, problems, bar.update)
                if problems:  # what remains is only looked at
                    continue
                folder.keep(name, {"features": shard[0]}, shard[1])
            else:
                shard = kept[0]["features"], kept[1]
                bar.update(len(places))
            features.append(shard[0])
            digests += shard[1]
    if problems:
        raise _unreadable(images, problems)
    return torch.cat(features), digests


@torch.inference_mode()
def _shard(
    backbone: Backbone,
    images: ImageSet,
    places: range,
    reading: Reading,
    problems: dict[str, str],
    advance: Callable[[int], object],
) -> tuple[Tensor, list[str]]:
    device = next(backbone.body.parameters()).device
    features: list[Tensor] = []
    digests: list[str] = []
    done = places.start
    for photos in read_photos(images, places, backbone.preprocessing, reading):
        for place, photo in enumerate(photos, done):
            if photo.pixels is None:
                problems[images[place].name] = photo.problem
        if not problems:
            features.append(_features(backbone, photos, device))
        digests += [photo.digest for photo in photos]
        done += len(photos)
        advance(len(photos))
    return torch.cat(features) if features else torch.empty(0), digests


def _features(backbone: Backbone, photos: list[Photo], device: torch.device) -> Tensor:
    return backbone.features(pixels_of(photos, device)).float().cpu()


def _unreadable(images: ImageSet, problems: dict[str, str]) -> InputError:
    some = "; ".join(f"{name} ({problem})" for name, problem in list(problems.items())[:_SHOWN])
    more = len(problems) - _SHOWN
    return InputError(
        f"{len(problems)} of {len(images)} photos of {images.source} cannot be read: {some}"
        f"{f'; and {more} more' if more > 0 else ''}. Get these files again, or take them out of the data set; what "
        "was computed is kept."
    )
