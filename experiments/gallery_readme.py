"""Pictures at the top of the README: one photo under four methods, and CAAP's map over its cutoff."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import caap_lab as cl
from caap_lab.plots.gallery import Tile, plot_tiles
from caap_lab.plots.maps import plot_image, plot_map
from caap_lab.plots.style import figure_png, new_figure
from experiments.gallery_images import Shown, kept_map, write_png

COMPARED = {
    "caap": "CAAP",
    "libra_ixg_plus": "Libra IxG+",
    "transformer_attribution": "Transformer Attribution",
    "rollout": "Rollout",
}
CUTOFFS = (1, 3, 5, 7, 8, 9, 10, 12)
CURVE = range(13)


def write_readme_pictures(shown: Shown, maps: Path, out: Path) -> None:
    """Write `readme_methods.png` and `readme_sweep.png`."""
    found = {title: kept_map(shown, method, maps) for method, title in COMPARED.items()}
    first = next(iter(found.values()))
    tiles = [Tile(first.image.numpy(), f"photo: {first.caption}")]
    tiles += [tile(m, title) for title, m in found.items()]
    write_png(figure_png(plot_tiles([tiles], panel=1.9), dpi=100), out / "readme_methods.png")
    write_png(figure_png(sweep_figure(shown, maps), dpi=100), out / "readme_sweep.png")


def tile(m: cl.AttributionMap, title: str) -> Tile:
    """A map over its image."""
    return Tile(m.image.numpy(), title, m.scores.double().numpy(), m.sign == "signed")


def sweep_figure(shown: Shown, maps: Path) -> Figure:
    """The photo and its maps over some cutoffs; below, insertion minus deletion over all of them."""
    sweep = cl.sweep_cutoffs(
        shown.model, [shown.image], shown.target, cutoffs=list(CURVE), protocol="rise-28", progress=False,
        out=maps / "sweep",
    )  # fmt: skip
    figure = new_figure(9.5, 3.4)
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.5)))
    axes = top.subplots(1, 1 + len(CUTOFFS))
    for ax, cutoff in zip(axes[1:], CUTOFFS, strict=True):
        m = kept_map(shown, f"caap:cutoff={cutoff}", maps)
        plot_map(m.scores.double().numpy(), m.image.numpy(), ax, title=f"cutoff {cutoff}")
    plot_image(np.asarray(m.image), axes[0], title=m.caption)
    sweep.plot(bottom.subplots())
    return figure
