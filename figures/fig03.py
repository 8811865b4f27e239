"""Figure 3: an image with several objects, each of two classes explained in turn, under all methods of table 2.

    python figures/fig03.py --profile demo --out runs/figures

The image is the first one of table 2 with two annotated classes that the model knows; the model is its CLIP.
"""

import sys

import caap_lab as cl
from caap_lab.bench.figure_data import FigureData, FigureResult, map_scores
from caap_lab.bench.pairing import with_model_classes
from caap_lab.bench.plan import Study
from caap_lab.commands.figures import run_script
from caap_lab.variant import Variant


def draw(data: FigureData) -> FigureResult:
    """An image with several objects, explained for each of its classes, on the CLIP model of table 2."""
    study = data.study(2)
    model = next((model for model in study.models if "clip" in model.label.lower()), study.models[0])
    image, classes = _image_of_two_classes(data, study, model)
    rows = [[data.map(study, model, method, image, label) for method in study.methods] for label in classes]
    figure = cl.gallery(rows, [method.label for method in study.methods], [model.label] * len(rows))
    return FigureResult(figure, map_scores(rows))


def _image_of_two_classes(data: FigureData, study: Study, model: Variant) -> tuple[str, list[int | None]]:
    """The first image with two classes, and these; if there is none, the first image and None, for its own target."""
    images, hooked = data.images(study), data.model(model)
    for sample in images:
        masks = with_model_classes(sample, images, hooked).regions.masks
        classes: dict[int, int | None] = {}  # one per mask
        for label, mask in masks.items():
            if label is not None:
                classes.setdefault(id(mask), label)
        if len(classes) > 1:
            return sample.name, list(classes.values())[:2]
    return study.data.names[0], [None]


if __name__ == "__main__":
    sys.exit(run_script(__file__))
