"""The paper's figures 11 to 40: one photo each, under all methods of table 1, one row per model.

    python figures/gallery.py --profile demo --out runs/figures

The photos are the first ones of table 1, or those of `--photos`; `caap-lab figures fig12` draws only the second. The
explained class is the photo's label, or `--target`. Each map has its own colour range.
"""

import sys
from collections.abc import Iterator, Sequence

import caap_lab as cl
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.map_figures import sheet_of_maps
from caap_lab.bench.figures.needs import Need
from caap_lab.bench.figures.scripts import SHEETS
from caap_lab.commands.figures import run_script

NEEDS = (Need(1, "maps", images=len(SHEETS), target="label"),)
DEMO_SHEETS = 5
"""Number of sheets in the demo profile, which has few images."""


def check(data: FigureData, sheets: Sequence[str] = ()) -> None:
    """Raise InputError for sheets without a photo, or photos without a label, before anything is drawn.

    Raises:
        InputError: there is no such photo or label; the message says which, and what to do.
    """
    study = data.study(1)
    count = len(data.photos(study))
    for sheet in sheets:
        if SHEETS.index(sheet) >= count:
            raise cl.InputError(f"{sheet} shows photo {SHEETS.index(sheet) + 1}; photos available: {count}.")
    if data.target("label") == "label" and not data.all_images(study).has_labels:
        raise cl.InputError(
            f"Figures 11 to 40 explain the photos' labels, but {study.data.source} has none. Explain the models' own "
            "predictions with --target prediction."
        )


def draw(data: FigureData, sheets: Sequence[str] = ()) -> Iterator[FigureResult]:
    """Draw figures 11 to 40 or some of them, one photo each, one row per model.

    Args:
        data: What they are drawn from.
        sheets: Names of the wanted figures; by default one for each photo.
    """
    study = data.study(1)
    photos = data.photos(study, len(SHEETS))
    by_sheet = dict(zip(SHEETS, photos, strict=False))
    several = DEMO_SHEETS if data.plan.profile == "demo" and not data.options.photos else None
    for sheet in sheets or list(by_sheet)[:several]:
        rows = [(model, data.target("label")) for model in study.models]
        yield sheet_of_maps(data, study, by_sheet[sheet], rows, sheet)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
