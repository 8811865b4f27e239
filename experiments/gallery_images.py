"""Photos and scenes that the pictures of the documentation show, their maps, and how a picture is written."""

import json
import os
import re
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import sklearn
from PIL import Image, ImageOps

import caap_lab as cl
from experiments.photos import one

WEIGHTS = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
PHOTOS = {
    "china": Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg",
    "flower": Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg",
    "hopper": Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
}
"""Photos that come with scikit-learn and matplotlib."""
SEED = 5
"""Seed of the generated scenes."""
MARGIN = 4
"""Margin in pixels above and below the drawing."""


class Shown(NamedTuple):
    """An image, the model that sees it, and the explained class."""

    name: str
    model: cl.HookedViT
    image: Image.Image
    target: int | None
    """A class; None is the model's prediction."""


def photo_model() -> cl.HookedViT | None:
    """ViT-tiny from `weights/` of the folder that CAAP_LAB_TEST_DATA names; None without it."""
    folder = Path(os.environ.get("CAAP_LAB_TEST_DATA", "")) / "weights" / WEIGHTS
    if not folder.is_dir():
        return None
    about = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    weights: dict[str, Any] = {"checkpoint": folder / "model.safetensors", "mean": about["mean"], "std": about["std"]}
    return cl.load_model(about["timm_model"], **weights)  # type: ignore[return-value]


def photo(name: str, model: cl.HookedViT) -> Shown:
    """One of `PHOTOS` and the model's prediction for it."""
    return Shown(name, model, cl.load_image(PHOTOS[name]), None)


def three_images() -> list[Shown]:
    """A scene and two objects under the bundled model, and a photo under ViT-tiny, or a scene without its weights."""
    demo, real = cl.load_model("demo"), photo_model()
    (single, other), two = cl.demo_images("single", 2, seed=SEED), cl.demo_images("two", 2, seed=SEED)[1]
    assert isinstance(demo, cl.HookedViT)
    if real is None:
        print("No weights in CAAP_LAB_TEST_DATA: scenes only.", flush=True)
    middle = Shown("other", demo, other.image, other.label) if real is None else photo("china", real)
    return [Shown("single", demo, single.image, single.label), middle, Shown("two", demo, two.image, two.labels[0])]


def kept_map(shown: Shown, method: str, folder: Path) -> cl.AttributionMap:
    """The map of a method (with options, as "caap:cutoff=3"), from its file if it exists."""
    path = folder / shown.name / (re.sub(r"[^\w=.]", "_", method) + ".safetensors")
    if not path.exists():
        print(shown.name, method, flush=True)
        one(cl.attribute(shown.model, shown.image, method, shown.target, progress=False)).save(path)
    return cl.AttributionMap.load(path)


def write_png(png: bytes, path: Path) -> None:
    """Write a picture without white margins above and below, and with a palette, which makes it a third as large."""
    with Image.open(BytesIO(png)) as opened:
        picture = opened.convert("RGB")
        inked = ImageOps.invert(picture).getbbox()
        if inked is not None:
            top, bottom = max(inked[1] - MARGIN, 0), min(inked[3] + MARGIN, picture.height)
            picture = picture.crop((0, top, picture.width, bottom))
        # Of the methods this one keeps the colours of thin colour bars.
        small = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    small.save(path, optimize=True)
    print(path, f"{path.stat().st_size / 1024:.0f} kB", flush=True)
