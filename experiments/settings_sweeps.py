"""Measurements of `experiments.settings` for one model: sweeps of CAAP's settings, and other methods."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from tqdm import tqdm

import caap_lab as cl
from caap_lab.bench.paper.published import METRICS as PAPER_METRICS
from caap_lab.engine.blanks import BLANKS, Blank
from caap_lab.engine.settings import cutoff_blocks
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from experiments.photos import HELD_OUT, held_out

CUTOFFS = (2, 4, 5, 6, 7, 8, 9, 10, 12)
"""Cutoffs in twelfths of the blocks, because models may differ in depth."""
RANGES = ((0, 4), (0, 8), (0, 12), (4, 8), (4, 12), (8, 12))
"""Ranges whose metrics are measured, in twelfths: every third of the blocks and what they join to."""
RIVALS = ("transformer_attribution", "gen_att", "libra_ixg_plus", "grad_sam", "tam")
"""The methods with the smallest sums of absolute differences to CAAP: InsDel and AUPR1, both models, on the 64 ECSSD
photos of `docs/tables/real_weights.md`."""
METRICS = {name: label for label, name in PAPER_METRICS.items()}
MAIN = ("insdel", "aupr1", "aupr0", "pointing")
OTHER_SEED = "noise, another seed"
N_MEAN, N_CLASS, N_POOL = 32, 8, 64
"""Photos behind the mean and behind the class-averaged activations; photos of the calibration set for the latter."""
BATCH = 16
"""Faster than more on one thread, where a batch has to fit the processor's cache."""

Values = Float[np.ndarray, "image"]
Table = dict[str, dict[str, Values]]
"""Values of each image, by the setting's label and the metric."""


@dataclass(frozen=True, eq=False)
class Measured:
    """All measurements of one model."""

    label: str
    cutoffs: cl.CaapSweep
    neighbourhoods: Table
    blanks: Table
    ranges: Table
    rivals: Table
    """Metrics of other methods."""
    blank_labels: list[str]
    blank_ranks: Float[np.ndarray, "blank blank"]
    range_labels: list[tuple[int, int]]
    range_ranks: Float[np.ndarray, "range range"]
    checks: dict[str, Float[np.ndarray, "image 2"]]
    """By setting: effect of the highest patches together, and the sum of their single effects."""
    default_range: tuple[int, int]


def measure(label: str, model: cl.HookedViT, args: argparse.Namespace) -> Measured:
    """All sweeps of one model."""
    n_calibration, n_metrics, n_maps, n_checks = args.images
    depth = model.n_layers
    photos, masked = cl.open_images(args.calibration), cl.open_images(args.masks)
    protocol = protocol_of(args, model.image_size[1])
    kept: Any = {"out": args.run, "protocol": protocol, "progress": False, "batch_size": BATCH}

    counts = [round(share * depth / 12) for share in CUTOFFS]
    cutoffs = cl.sweep_cutoffs(
        model, photos.sample(n_calibration, seed=0), cutoffs=counts, metrics=("faithfulness",), **kept
    )
    images = held_out(masked, n_metrics)
    neighbourhoods = cl.sweep_neighbourhoods(model, images, **kept)
    thirds = [(start * depth // 12, cutoff * depth // 12) for start, cutoff in RANGES]
    ranges = cl.sweep_ranges(model, images, ranges=thirds, **kept)
    choose = BlankChooser(model, photos, masked)
    blanks = [
        cl.sweep_blanks(model, images[i : i + 1], blanks=choose(images[i].image), **kept)
        for i in tqdm(range(len(images)), desc=f"{label}, blanks")
    ]
    noise = {OTHER_SEED: "noise"}
    other_noise = [cl.sweep_blanks(model, images[i : i + 1], blanks=noise, seed=1, **kept) for i in range(len(images))]
    names = [sample.name for sample in images]
    result = cl.benchmark(model, RIVALS, images, **kept)
    frame = result.to_dataframe().set_index(["method", "image"]).sort_index()
    rivals = {m: {k: frame.loc[m].loc[names][k].to_numpy(float) for k in METRICS} for m in RIVALS}

    more = held_out(masked, n_maps)
    alone: Any = {**kept, "metrics": ()}
    step = max(1, depth // 6)  # every second of 12 blocks: enough to see the course, at a quarter of the cost
    pairs = list(combinations(range(0, depth + 1, step), 2))
    range_maps = cl.sweep_ranges(model, more, ranges=pairs, **alone)
    blank_maps = [
        cl.sweep_blanks(model, more[i : i + 1], blanks=choose(more[i].image), **alone)
        for i in tqdm(range(len(more)), desc=f"{label}, maps")
    ]
    return Measured(
        label,
        cutoffs,
        table_of([neighbourhoods]),
        table_of(blanks) | table_of(other_noise),
        table_of([ranges]),
        rivals,
        [str(name) for name in blank_maps[0].labels],
        np.mean([one.rank_correlation().to_numpy() for one in blank_maps], axis=0),
        pairs,
        range_maps.rank_correlation().to_numpy(),
        checks_of(model, images[:n_checks], choose, blanks, ranges),
        (0, cutoff_blocks(None, depth)),
    )


def checks_of(
    model: cl.HookedViT,
    images: cl.ImageSet,
    choose: "BlankChooser",
    blanks: Sequence[cl.CaapSweep],
    ranges: cl.CaapSweep,
) -> dict[str, Float[np.ndarray, "image 2"]]:
    """`cl.interaction_check` of the maps with every blank and every range."""
    found: dict[str, list[tuple[float, float]]] = {}
    for i, sample in enumerate(tqdm(images, desc=f"{model.model_name}, interactions")):
        given = choose(sample.image)
        maps = [(label, blanks[i].map(0, label), given[str(label)]) for label in blanks[i].labels]
        maps += [(label, ranges.map(i, label), None) for label in ranges.labels]
        for label, m, blank in maps:
            check = cl.interaction_check(model, m, sample.image, blank=blank)
            found.setdefault(name_of(label), []).append((float(check.joint[0]), float(check.singles[0])))
    return {label: np.array(values) for label, values in found.items()}


def protocol_of(args: argparse.Namespace, width: int) -> CurveProtocol:
    """The protocol of the curves, with the requested steps."""
    protocol = curve_protocol(args.protocol)
    if args.rows is None:
        return protocol
    return replace(protocol, name=f"{protocol.name}, {args.rows} rows of pixels a step", step=args.rows * width)


def table_of(sweeps: Sequence[cl.CaapSweep]) -> Table:
    """Values by setting and metric; sweeps of single images are joined."""
    return {
        name_of(label): {metric: np.concatenate([one.values(metric)[:, i] for one in sweeps]) for metric in METRICS}
        for i, label in enumerate(sweeps[0].labels)
    }


def name_of(label: object) -> str:
    """A setting's label in tables: the first and last block of a range, counted from 0."""
    return f"blocks {label[0]} to {label[1] - 1}" if isinstance(label, tuple) else str(label).replace("_", " ")


def is_plain(blank: str) -> bool:
    """False for blanks with content, and for zero activations, which no picture has."""
    return blank.replace("_", " ") != "zero activations" and "photo" not in blank


class BlankChooser:
    """All blanks for an image; the class-averaged one depends on the explained class.

    Photos behind blanks are never measured: of the calibration set they come from the end of the draw, and the cutoff
    is chosen on its start; of the set with masks they are those that are not held out.
    """

    def __init__(self, model: cl.HookedViT, photos: cl.ImageSet, masked: cl.ImageSet) -> None:
        """Runs the pool of photos once."""
        self.model = model
        draw = [sample.image for sample in photos.sample(len(photos), seed=0)[-N_POOL:]]
        self.shared: dict[str, Blank] = {name: name for name in BLANKS}
        self.shared["mean activations"] = cl.blanks.mean_activations(draw[:N_MEAN])
        self.shared |= {"a photo": draw[-1], "another photo": draw[-2]}
        self.pool = draw + [sample.image for sample in masked.sample(len(masked), seed=0)[:-HELD_OUT]]
        self.scores = self.score(self.pool)

    def __call__(self, image: Image.Image) -> dict[str, Blank]:
        """Label to blank: the photos of the pool that the model gives the image's class the highest probability."""
        target = int(self.score([image]).argmax())
        nearest = self.scores[:, target].topk(N_CLASS).indices.tolist()
        return {**self.shared, "class average": cl.blanks.mean_activations([self.pool[i] for i in nearest])}

    @torch.no_grad()
    def score(self, images: Sequence[Image.Image]) -> Float[torch.Tensor, "image class"]:
        """Log-probabilities."""
        return torch.cat([self.model(self.model.preprocess(image)).log_softmax(dim=-1) for image in images])


def cutoff_columns(models: Sequence[Measured]) -> list[Float[np.ndarray, "image cutoff"]]:
    """InsDel of each model at `CUTOFFS`."""
    columns = []
    for one in models:
        counts = [round(share * one.cutoffs.model.n_layers / 12) for share in CUTOFFS]
        columns.append(one.cutoffs.values("insdel")[:, [one.cutoffs.labels.index(count) for count in counts]])
    return columns
