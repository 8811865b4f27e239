"""Figure 3: an image with several objects, each of two classes explained in turn, under all methods of table 2.

    python figures/fig03.py --profile demo --out runs/figures

The image is the first one of table 2's data set with masks of two classes that the model knows, or that of `--photos`;
the model is the table's CLIP. Images of table 2 are searched first, then the others of its data set.
"""

import sys
from collections.abc import Iterator

from tqdm.auto import tqdm

import caap_lab as cl
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.map_figures import sheet_of_maps
from caap_lab.bench.figures.needs import Need
from caap_lab.bench.figures.options import FigureOptions, photo_names
from caap_lab.bench.pairing import with_model_classes
from caap_lab.bench.plan import Data, Study
from caap_lab.commands.figures import run_script
from caap_lab.data.image_set import Sample
from caap_lab.variant import Variant

_FOUND: dict[tuple[Data, str, FigureOptions], tuple[str, list[int]]] = {}

NEEDS = (Need(2, "maps", models=("CLIP-L/14",), explained="each of two classes that the photo has masks of"),)


def check(data: FigureData) -> None:
    """Raise InputError if no photo of the data set has several classes, before anything is drawn.

    Raises:
        InputError: there is no such photo; the message says how many were searched.
    """
    _photo_of_two_classes(data)


def draw(data: FigureData) -> FigureResult:
    """An image with several objects, explained for each of two of its classes, on the CLIP model of table 2."""
    study = data.study(2)
    photo, classes = _photo_of_two_classes(data)
    return sheet_of_maps(data, study, photo, [(_model(study), index) for index in classes])


def _model(study: Study) -> Variant:
    return next((model for model in study.models if "clip" in model.label.lower()), study.models[0])


def _photo_of_two_classes(data: FigureData) -> tuple[str, list[int]]:
    """The first photo with two classes, and these; searched once, because reading a data set's masks takes minutes."""
    study = data.study(2)
    key = (study.data, _model(study).text, data.options)
    if key not in _FOUND:
        _FOUND[key] = _look_for_two_classes(data, study)
    return _FOUND[key]


def _look_for_two_classes(data: FigureData, study: Study) -> tuple[str, list[int]]:
    images, hooked = data.all_images(study), data.model(_model(study))
    looked = 0
    for sample in _photos(data, study):
        looked += 1
        found: dict[int, int] = {}  # one class per mask
        for label, mask in with_model_classes(sample, images, hooked).regions.masks.items():
            if label is not None and mask.any():
                found.setdefault(id(mask), label)
        if len(found) > 1:
            return sample.name, list(found.values())[:2]
    photos = "photo" if looked == 1 else "photos"
    chosen = " that --photos names" if photo_names(images, data.options.photos) else ""
    raise cl.InputError(
        f"Figure 3 explains two classes of one photo, but no photo has masks of two classes that {_model(study).label} "
        f"knows: searched {looked} {photos}{chosen} of {images.source}. Name a photo that does with --photos, or omit "
        "fig03."
    )


def _photos(data: FigureData, study: Study) -> Iterator[Sample]:
    """The photos that the user named; otherwise those of table 2, then all others."""
    images = data.all_images(study)
    first = data.photos(study)
    yield from images.only(first)
    if not photo_names(images, data.options.photos):
        known = set(first)
        rest = [sample.name for sample in images if sample.name not in known]
        yield from tqdm(images.only(rest), desc="photos of several classes", unit="photo", leave=False)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
