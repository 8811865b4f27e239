"""Figure 6: attention within and between objects over the layers, on the models of table 2."""

from functools import partial
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes

from caap_lab.bench.identity import weights_digest
from caap_lab.diagnostics.attention_regions import attention_regions
from caap_lab.escaping import for_plot
from caap_lab.figures.world import Drawn, World
from caap_lab.models.vit import HookedViT
from caap_lab.plots.attention import REGION_STYLES, plot_regions
from caap_lab.plots.style import new_figure
from caap_lab.variant import Variant

QUANTITIES: dict[Literal["weight", "mass"], str] = {
    "weight": "attention weight, mean of pairs",
    "mass": "attention mass, share of a query's",
}


def fig06(world: World) -> Drawn:
    """Mean attention weight of pairs of patches above, the share of a patch's attention below."""
    study = world.study(2)
    figure = new_figure(3.4 * len(study.models), 6.4)
    panels = figure.subplots(2, len(study.models), squeeze=False, sharex="col")
    frames = []
    for column, spec in enumerate(study.models):
        digests = [world.images(study).digest_of(name) for name in study.data.names]
        told = {"figure": 6, "model": spec.text, "weights": weights_digest(spec), "images": digests}
        frame = world.frame(told, partial(_measure, world, spec))
        frames.append(frame.assign(model=spec.label))
        for ax, quantity in zip(panels[:, column], QUANTITIES, strict=True):
            _draw(ax, frame[frame["quantity"] == quantity])
        panels[0, column].set_title(for_plot(f"{spec.label}, {len(study.data.names)} images"), fontsize=9)
        panels[1, column].set_xlabel("layer (block)")
    for ax, label in zip(panels[:, 0], QUANTITIES.values(), strict=True):
        ax.set_ylabel(label)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return Drawn(figure, pd.concat(frames))


def _measure(world: World, spec: Variant) -> pd.DataFrame:
    """Means over heads, then over images, of every kind of pairs between patches."""
    model = world.model(spec)
    assert isinstance(model, HookedViT)
    found = attention_regions(model, world.images(world.study(2)), progress=False)
    lines = []
    for quantity in QUANTITIES:
        means, errors = found.mean(quantity, heads="mean"), found.standard_error(quantity, heads="mean")
        for kind in REGION_STYLES:
            place = found.kinds.index(kind)
            for layer, (mean, error) in enumerate(zip(means[place], errors[place], strict=True)):
                told = {"quantity": quantity, "kind": kind, "layer": layer}
                lines.append({**told, "mean": mean, "se": error, "n": len(found.images)})
    return pd.DataFrame(lines)


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    plot_regions(frame, ax, ylabel="", legend=False)
    ax.set_xlabel("")
