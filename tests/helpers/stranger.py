"""A stranger's folder: copies of the paper's data sets as published, and small models in the place of its own."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from caap_lab.bench.paper.parts import HEADS, MODELS
from helpers import published_layouts as layouts
from helpers.paper_models import cnn_folder, head_file, vit_folder

CNNS = ("ResNet-18", "ResNet-50", "DenseNet-161", "VGG-16")
PET, FOOD = "Oxford-IIIT-Pet/ViT-B/16", "Food-101/ViT-B/16"
"""The models of the data sets that have classes of their own."""


@dataclass(frozen=True)
class Stranger:
    """What a run of the paper profile is told, by the paper's names."""

    folder: Path
    data: Mapping[str, str]
    models: Mapping[str, str]
    heads: Mapping[str, str]

    def given(
        self,
        *without: str,
        data: Mapping[str, str] | None = None,
        models: Mapping[str, str] | None = None,
        heads: Mapping[str, str] | None = None,
        images: int | None = 2,
    ) -> list[str]:
        """Options of the command line with all of it.

        Args:
            without: Names of data sets, models and heads ("head DINOv2-L/14") that are not given.
            data: Sources instead.
            models: Models instead.
            heads: Heads instead.
            images: Images per data set; as many as the paper's by default where it is None.
        """
        sources = {**self.data, **(data or {})}
        every = {"--models": {**self.models, **(models or {})}, "--head": {**self.heads, **(heads or {})}}
        options = ["--data", *_kept(sources, without).values()]
        for option, parts in every.items():
            left = _kept(parts, [name.removeprefix("head ") for name in without] if option == "--head" else without)
            options += [option, *(f"{name}={value}" for name, value in left.items())]
        return options if images is None else [*options, "--images", str(images)]


def _kept(parts: Mapping[str, str], without: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in parts.items() if name not in without}


def stranger(folder: Path) -> Stranger:
    """Writes all that a run needs below a folder; the models have two blocks, and random weights."""
    vit, cnn = vit_folder(folder / "vit"), cnn_folder(folder / "cnn")
    headless = vit_folder(folder / "headless", 0)
    models = {name: cnn if name in CNNS else headless if name in HEADS else vit for name in MODELS}
    own = {PET: vit_folder(folder / "pet", 37), FOOD: vit_folder(folder / "food", 101)}
    head = head_file(folder / "head.safetensors")
    return Stranger(folder, layouts.all_five(folder / "data"), {**models, **own}, dict.fromkeys(HEADS, head))
