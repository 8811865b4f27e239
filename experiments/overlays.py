"""How maps look over photos: the candidates from which the defaults were chosen.

    CAAP_LAB_TEST_DATA=PATH python -m experiments.overlays --out docs/images/overlays

Photos are those that come with scikit-learn and matplotlib, under ViT-tiny from `weights/` of the folder that
CAAP_LAB_TEST_DATA names; without it, generated scenes under the bundled model. Maps are cached in `--maps`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float

import caap_lab as cl
from caap_lab.plots.look import LOOK
from caap_lab.plots.maps import Pixels, grey, map_colour_map, map_range, overlay_table, plot_image
from caap_lab.plots.style import figure_png, new_figure
from experiments.gallery_images import PHOTOS, kept_map, photo, photo_model, three_images, write_png

LOOKED_AT = ("caap", "transformer_attribution", "libra_ixg_plus")
"""Maps without an outlier, with one, and with both signs."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.overlays", description=__doc__)
    parser.add_argument("--maps", type=Path, default=Path("runs/gallery"), help="folder where maps are cached")
    parser.add_argument("--out", type=Path, required=True, help="folder for the picture")
    args = parser.parse_args()
    model = photo_model()
    images = three_images() if model is None else [photo(name, model) for name in PHOTOS]
    maps = [kept_map(shown, method, args.maps) for shown in images for method in LOOKED_AT]
    write_png(figure_png(looks(maps), dpi=90), args.out / "looks.png")


Curve = Callable[[Float[np.ndarray, " place"]], Float[np.ndarray, " place"]]
LOOKS: dict[str, tuple[bool, str, Curve | None, bool]] = {
    "one opacity, full range": (False, "grey", lambda place: np.full_like(place, 0.75), False),
    "one opacity, robust": (True, "grey", lambda place: np.full_like(place, 0.75), False),
    "root of the score": (True, "grey", np.sqrt, False),
    "square of the score": (True, "grey", np.square, False),
    "photo in colour": (True, "colour", None, False),
    "the default": (True, "grey", None, False),
    "the default, smooth": (True, "grey", None, True),
}
"""Robust range, photo, opacity over the score (None for the default one), and whether scores are interpolated."""


def looks(maps: list[cl.AttributionMap]) -> matplotlib.figure.Figure:
    """One row per map: the photo, and the map in each look."""
    columns = 1 + len(LOOKS)
    figure = new_figure(1.35 * columns, 1.42 * len(maps) + 0.2)
    panels = figure.subplots(len(maps), columns, squeeze=False)
    for row, (axes, m) in enumerate(zip(panels, maps, strict=True)):
        plot_image(m.image.numpy(), axes[0])
        axes[0].set_title(m.method, fontsize=7)
        for ax, (name, look) in zip(axes[1:], LOOKS.items(), strict=True):
            plot_image(laid_over(m, *look), ax)
            ax.set_title(name if row == 0 else "", fontsize=7)
    return figure


def laid_over(m: cl.AttributionMap, robust: bool, photo: str, curve: Curve | None, smooth: bool) -> Pixels:
    """A map over its image as pixels."""
    scores, signed = m.scores.double().numpy(), m.sign == "signed"
    low, high = map_range(scores, signed, robust=robust)
    large = m.upsample(mode="bilinear" if smooth else "nearest-exact").double().numpy()
    places = np.clip(256 * (large - low) / ((high - low) or 1), 0, 255).astype(int)
    table = overlay_table(map_colour_map(signed), signed=signed) / 255
    if curve is not None:
        plain = np.asarray(matplotlib.colormaps[map_colour_map(signed)](np.arange(256)))[:, :3]
        places_of_signs = np.abs(np.linspace(-1, 1, 256)) if signed else np.linspace(0, 1, 256)
        table = np.column_stack([plain, curve(places_of_signs)])
    image = m.image.numpy()
    base = (image if photo == "colour" else grey(image)) / 255
    opacity = LOOK.opacity * table[places][..., 3:]
    return np.rint(255 * (base * (1 - opacity) + table[places][..., :3] * opacity)).astype(np.uint8)


if __name__ == "__main__":
    main()
