"""Measurements of `experiments.prompts`: maps of two prompts for every photo, their areas, and attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor
from tqdm import tqdm

import caap_lab as cl
from caap_lab.attribution.enlarge import enlarged
from caap_lab.engine.settings import cutoff_blocks
from caap_lab.files import atomic_path
from caap_lab.variant import Variant, parse_variant

TARGETS = ("own logit", "contrast to the mean", "contrast of the two")
AREAS = ("against the other", "against the rest", "the other's map")
"""Of the asked object's own pixels: against the other object's, against all others in the photo's own map, and the same
in the map for the other prompt."""
SUM = "rank sum of caap and libra_ixg_plus"

Values = Float[np.ndarray, "photo target area"]


@dataclass(frozen=True, eq=False)
class Pair:
    """A photo and its two objects."""

    name: str
    image: Float[Tensor, "3 height width"]
    classes: tuple[int, int]
    masks: Bool[np.ndarray, "2 height width"]
    """Masks at the model's input size."""

    @property
    def own(self) -> Bool[np.ndarray, "2 height width"]:
        """Pixels of only one of the objects."""
        return self.masks & ~self.masks[::-1]


@dataclass(frozen=True, eq=False)
class Measured:
    """All measurements."""

    pairs: list[Pair]
    methods: dict[str, Values]
    cutoffs: dict[int, Values]
    attention: cl.AttentionRegions
    control: cl.AttentionRegions
    """With the next photo's masks, because attention to near patches stays within any compact region."""
    class_names: list[str]
    """Classes of each pair, such as "oven, dining table"."""


def pairs_of(model: cl.HookedViT, folder: Path) -> list[Pair]:
    """Photos with two objects whose classes the model has, the classes that it scores highest."""
    pairs = []
    for photo in sorted((folder / "images").iterdir()):
        files = {
            model.class_names.find(file.stem.rpartition("__")[2].replace("_", " ")): file
            for file in sorted((folder / "masks").glob(f"{photo.stem}__*.png"))
        }
        if len(files) < 2:
            continue
        x = model.preprocess(Image.open(photo).convert("RGB"))
        with torch.no_grad():
            logits = model(x)[0]
        first, second = sorted(files, key=lambda index: -float(logits[index]))[:2]
        masks = [model.preprocessing.mask(Image.open(files[i]).convert("L")).numpy() for i in (first, second)]
        pair = Pair(photo.stem, x[0], (first, second), np.stack(masks).astype(bool))
        if pair.own.any(axis=(1, 2)).all():
            pairs.append(pair)
    return pairs


def measure(
    model: cl.HookedViT, pairs: list[Pair], methods: Sequence[Variant], run: Path, *, only_kept: bool = False
) -> Measured:
    """Maps of all methods and of CAAP at every second cutoff, and attention; saved maps are read."""
    default = cutoff_blocks(None, model.n_layers)
    counts = sorted({*range(2, model.n_layers + 1, 2), default})
    cutoffs = {count: parse_variant("caap" if count == default else f"caap:cutoff={count}") for count in counts}
    store = run / model.fingerprint[:16]
    kept: dict[str, np.ndarray] = {}
    for method in {one.label: one for one in (*methods[:3], *reversed(cutoffs.values()), *methods[3:])}.values():
        files = [store / method.text.replace(":", "_") / f"{pair.name}.npy" for pair in pairs]
        if only_kept and not all(file.is_file() for file in files):
            continue
        bar = tqdm(list(zip(pairs, files, strict=True)), desc=method.label)
        kept[method.label] = np.stack([maps_of(model, pair, method, file) for pair, file in bar])
    if "caap" in kept and "libra_ixg_plus" in kept:
        kept[SUM] = sum(rankdata(kept[name], axis=-1) for name in ("caap", "libra_ixg_plus"))
    areas = {
        label: np.stack([areas_of(pair, scores) for pair, scores in zip(pairs, maps, strict=True)])
        for label, maps in kept.items()
    }
    labels = [method.label for method in methods if method.label in areas] + [SUM] * (SUM in areas)
    images = [pair.image for pair in pairs]
    objects = [list(map(torch.from_numpy, pair.masks)) for pair in pairs]
    return Measured(
        pairs,
        {label: areas[label] for label in labels},
        {cutoff: areas[method.label] for cutoff, method in cutoffs.items() if method.label in areas},
        cl.attention_regions(model, images, objects, progress=False),
        cl.attention_regions(model, images, [*objects[1:], objects[0]], progress=False),
        [", ".join(map(model.class_names.name, pair.classes)) for pair in pairs],
    )


def maps_of(model: cl.HookedViT, pair: Pair, method: Variant, file: Path) -> Float[np.ndarray, "target prompt patch"]:
    """Scores of the patches for every target of both prompts; from the file if it exists."""
    if file.is_file():
        return np.load(file)
    a, b = pair.classes
    targets = [
        target
        for of, against in ((a, b), (b, a))
        for target in (cl.logit(of), cl.contrast(of), cl.contrast(of, against))
    ]
    first = cl.attribute(model, pair.image, method.name, targets[0], progress=False, **method.options)
    assert isinstance(first, cl.AttributionMap)
    found = [first]
    for target in targets[1:]:
        if first.all_scores is not None:
            found.append(first.for_target(target))
        else:
            another = cl.attribute(model, pair.image, method.name, target, progress=False, **method.options)
            assert isinstance(another, cl.AttributionMap)
            found.append(another)
    scores = np.stack([one.scores.flatten().numpy() for one in found]).reshape(2, len(TARGETS), -1).swapaxes(0, 1)
    with atomic_path(file) as part, part.open("wb") as stream:
        np.save(stream, scores)
    return scores


def areas_of(pair: Pair, scores: Float[np.ndarray, "target prompt patch"]) -> Float[np.ndarray, "target area"]:
    """Areas under the ROC curve, see `AREAS`, each the mean of both prompts."""
    side = round(scores.shape[-1] ** 0.5)
    size = (pair.masks.shape[1], pair.masks.shape[2])
    found = np.empty((len(TARGETS), len(AREAS)))
    for target, of_prompts in enumerate(scores):
        maps = [enlarged(torch.from_numpy(of.reshape(side, side)), size).numpy() for of in of_prompts]
        areas = [
            (
                area(maps[i], pair.own[i], pair.own[1 - i]),
                area(maps[i], pair.masks[i], ~pair.masks[i]),
                area(maps[1 - i], pair.masks[i], ~pair.masks[i]),
            )
            for i in (0, 1)
        ]
        found[target] = np.mean(areas, axis=0)
    return found


def area(scores: np.ndarray, asked: np.ndarray, others: np.ndarray) -> float:
    """Area under the ROC curve: how often a pixel of the one has the higher score; ties count half."""
    ranks = rankdata(np.concatenate([scores[asked], scores[others]]))
    n = int(asked.sum())
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * others.sum()))
