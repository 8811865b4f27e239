"""Figure 6: attention within objects, between objects and to the background over the layers, on the models of table 2.

    python figures/fig06.py --profile demo --out runs/figures

The upper panels show the mean attention weight of pairs of patches, the lower ones the fraction of a patch's attention.
Means over heads, then over the images that have such pairs, with standard errors over these. Only images with several
objects have pairs between objects: their number is above each panel. What the paper calls extra-object attention is
shown in its two parts: between objects, and from an object to the background.
"""

import sys
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

import caap_lab as cl
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.needs import Need
from caap_lab.bench.figures.words import MEANS
from caap_lab.bench.identity import weights_digest
from caap_lab.commands.figures import run_script
from caap_lab.plots.attention import plot_regions
from caap_lab.plots.printed import PAGE, at_print_size
from caap_lab.plots.style import new_figure, shared_legend, style_axes
from caap_lab.variant import Variant

QUANTITIES: dict[Literal["weight", "mass"], str] = {
    "weight": "attention weight,\nmean over pairs",
    "mass": "attention mass, share\nof a query's attention",
}
KINDS = (
    "intra-object",
    "inter-object",
    "object-to-background",
    "background-to-object",
    "background-to-background",
)

_HEIGHT = 4.05


def _content(data: FigureData, model: Variant) -> dict[str, Any]:
    """Everything that determines a model's numbers."""
    images = data.images(data.study(2))
    digests = [images.digest_of(name) for name in data.study(2).data.names]
    return {"figure": 6, "n": "by kind", "model": model.text, "weights": weights_digest(model), "images": digests}


NEEDS = (Need(2, "attention", kept=_content),)


def draw(data: FigureData) -> FigureResult:
    """Mean attention weight of pairs of patches (above) and fraction of a patch's attention (below)."""
    study = data.study(2)
    count = len(study.data.names)
    figure = new_figure(PAGE, _HEIGHT)
    panels = figure.subplots(2, len(study.models), squeeze=False, sharex="col")
    frames = []
    for column, model in zip(panels.T, study.models, strict=True):
        frame = _regions(data, model)
        frames.append(frame.assign(model=model.label))
        for ax, quantity in zip(column, QUANTITIES, strict=True):
            plot_regions(frame[frame["quantity"] == quantity], ax, ylabel="", legend=False)
        several = int(frame.loc[frame["kind"] == "inter-object", "n"].max())
        objects = f"{several} with several objects" if several else "no image has two objects"
        style_axes(column[0], xlabel="", title=f"{model.label}, n = {count}\n{objects}")
    for ax, label in zip(panels[:, 0], QUANTITIES.values(), strict=True):
        style_axes(ax, ylabel=label)
    shared_legend(figure, columns=3)
    figure.suptitle(MEANS)
    return FigureResult(at_print_size(figure, _HEIGHT), pd.concat(frames))


def _regions(data: FigureData, model: Variant) -> pd.DataFrame:
    """Mean and standard error of both quantities for each kind of pairs and layer, stored in the results' folder."""
    return data.frame(_content(data, model), partial(_measure, data, model))


def _measure(data: FigureData, model: Variant) -> pd.DataFrame:
    hooked = data.model(model)
    assert isinstance(hooked, cl.HookedViT)
    regions = cl.attention_regions(hooked, data.images(data.study(2)), progress=False)
    frames = []
    found = regions.data["mass"].isel(layer=0, head=0)  # NaN for an image without such pairs
    for quantity in QUANTITIES:
        frame = regions.over_layers(quantity, heads="mean").set_index("kind").loc[list(KINDS)].reset_index()
        frame.insert(0, "quantity", quantity)
        frame["n"] = frame["kind"].map(lambda kind: int(np.isfinite(found.sel(kind=kind)).sum()))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
