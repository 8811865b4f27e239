"""How maps look over photos: ten pictures under all methods, and the looks that the defaults were chosen from.

    CAAP_LAB_TEST_DATA=PATH python -m experiments.overlays --out docs/images/overlays

Photos are those that come with scikit-learn and matplotlib, under ViT-tiny from `weights/` of the folder that
CAAP_LAB_TEST_DATA names; without it there are only generated scenes under the bundled model. Maps are kept in `--maps`.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import sklearn
from jaxtyping import Float
from PIL import Image

import caap_lab as cl
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.data.scenes import Kind
from caap_lab.plots.gallery import Tile, plot_tiles
from caap_lab.plots.look import LOOK
from caap_lab.plots.maps import Pixels, grey, map_colour_map, map_range, overlay_table, plot_image
from caap_lab.plots.style import figure_png, new_figure
from experiments.photos import one

WEIGHTS = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
PHOTOS = {
    "china": Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg",
    "flower": Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg",
    "hopper": Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
}
SCENES: dict[Kind, int] = {"single": 3, "two": 2, "twice": 1, "spurious": 1}
OPTIONS: dict[str, dict[str, Any]] = {"rise": {"samples": 300}, "mda": {"steps": 14}}
"""Of methods that take hundreds of passes."""
LOOKED_AT = ("caap", "transformer_attribution", "libra_ixg_plus")
"""Without an outlier, with one, and of both signs."""
COLUMNS = 7
PALETTE = 160
"""Colours of a PNG."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("python -m experiments.overlays", description=__doc__)
    parser.add_argument("--maps", type=Path, default=Path("runs/overlays"), help="where maps are kept")
    parser.add_argument("--most", type=float, default=120, help="forward passes of a map of a photo; default 120")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    looked_at: list[cl.AttributionMap] = []
    drawn: set[str] = set()
    for name, model, image in pictures():
        size, most = ModelSize.of(model), args.most if name in PHOTOS else math.inf
        methods = [method for method in METHODS if METHODS[method].passes(size, OPTIONS.get(method)) <= most]
        maps = [made(model, image, method, args.maps / name) for method in methods]
        tiles = [Tile(maps[0].image.numpy(), maps[0].caption)]
        tiles += [Tile(m.image.numpy(), m.method, m.scores.double().numpy(), m.sign == "signed") for m in maps]
        lines = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
        write(figure_png(plot_tiles(lines, panel=1.3), dpi=100), args.out / f"{name}.png")
        if name in PHOTOS or not PHOTOS.keys() & drawn:
            looked_at += [m for m in maps if m.method in LOOKED_AT]
        drawn.add(name)
    write(figure_png(looks(looked_at[: len(LOOKED_AT) * len(PHOTOS)]), dpi=90), args.out / "looks.png")


def pictures() -> Iterator[tuple[str, cl.HookedViT, Image.Image]]:
    """A name, the model and the image of each picture."""
    folder = Path(os.environ.get("CAAP_LAB_TEST_DATA", "")) / "weights" / WEIGHTS
    if folder.is_dir():
        about = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        weights = {"checkpoint": folder / "model.safetensors", "mean": about["mean"], "std": about["std"]}
        model = cl.load_model(about["timm_model"], **weights)
        for name, path in PHOTOS.items():
            yield name, model, cl.load_image(path)  # type: ignore[misc]
    else:
        print("No weights in CAAP_LAB_TEST_DATA: scenes only.")
    demo = cl.load_model("demo")
    for kind, count in SCENES.items():
        for index, scene in enumerate(cl.demo_images(kind, count, seed=5)):
            yield f"{kind}_{index}", demo, scene.image  # type: ignore[misc]


def made(model: cl.HookedViT, image: Image.Image, method: str, folder: Path) -> cl.AttributionMap:
    """The map of a method, from its file if it was made before."""
    path = folder / f"{method}.safetensors"
    if not path.exists():
        print(folder.name, method, flush=True)
        one(cl.attribute(model, image, method, **OPTIONS.get(method, {}))).save(path)
    return cl.AttributionMap.load(path)


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
    """A map over its image, as pixels."""
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


def write(png: bytes, path: Path) -> None:
    """Write a picture with a palette, which makes it a third as large."""

    with Image.open(BytesIO(png)) as picture:
        small = picture.convert("RGB").quantize(PALETTE, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(path, f"{path.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
