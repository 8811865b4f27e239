"""Which methods recover planted evidence whose worth is known?

    python -m experiments.planted --run runs/planted --out docs/tables/planted.md --figures docs/images

The script trains a small ViT on scenes of symbols that are worth something by construction (see
`experiments.planted_world`), and checks on new scenes that the model uses the planted patches in the planted way, by
removing them and by inserting them into blanks. Each scene holds one class's symbols and two symbols of other classes;
the class is explained.

- found: every planted patch is higher than all patches except neighbours of planted ones, and is above the
  map's median by at least a tenth of the method's score for a single patch with all the evidence (median over
  scenes), so that no chance order of tiny scores counts. Neighbours do not count, because a method that scores a patch
  with its surroundings is right to raise them.
- share: the fraction of a map above its median that is on planted patches. For methods that score patches with their
  neighbours, this is low by construction.
- ratio: score of the stronger of two unequal symbols to that of the weaker one, both above the map's median. It is 2.

Scores are saved method by method, and the same command resumes a stopped run; `--no-compute` makes table and figure
from the saved scores.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.attribution.rank_sum import on_cells
from experiments.planted_figure import draw
from experiments.planted_world import (
    CLASSES,
    GRID,
    SYMBOLS,
    errors_of_interventions,
    pixels,
    planted_model,
    scenes,
)

METHODS = (
    "caap",
    "caap:neighbourhood=none",
    "caap:attention=cached",
    "caap:direction=remove",
    "caap:direction=remove,neighbourhood=none",
    "rank_sum",
    "rank_sum:first=caap,second=caap:direction=remove",
    "simple_insertion:neighbourhood=none",
    "simple_deletion:neighbourhood=none",
    "simple_insertion",
    "simple_deletion",
    "occlusion",
    "atman",
    "mutex",
    "score_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "input_x_gradient",
    "integrated_gradients",
    "smoothgrad",
    "full_grad_plus",
    "ixg_plus",
    "libra_ixg_plus",
    "attn_lrp",
    "transformer_attribution",
    "tam",
    "attcat",
    "gen_att",
    "grad_sam",
    "legrad",
    "rollout",
    "vit_cx",
    "tis",
    "shapley:samples=1000",
    "rise:samples=1000",
    "mda",
)
"""The methods, slow ones last."""
KINDS = {
    "one": "one patch",
    "halves": "two that add up",
    "unequal": "two, 2 to 1",
    "and": "AND, apart",
    "and, side by side": "AND, side by side",
    "or": "OR",
}
"""Kinds of planted evidence, and their names in tables."""


LEAST = 0.1
"""Fraction of a single patch's score that a patch needs to count as found."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.planted", description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="training steps; default %(default)s")
    parser.add_argument("--scenes", type=int, default=16, help="scenes of each kind; default %(default)s")
    parser.add_argument("--run", type=Path, required=True, help="folder for the model and the scores")
    parser.add_argument("--no-compute", dest="compute", action="store_false", help="only read saved scores")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    parser.add_argument("--figures", type=Path, help="write the figure into this folder")
    args = parser.parse_args()
    model = planted_model(args.run, args.steps)
    worlds = {kind: planted_scenes(kind, args.scenes, 100 + number) for number, kind in enumerate(KINDS)}
    rows = []
    for method in tqdm(METHODS):
        path = args.run / f"scores-{args.steps}-{args.scenes}" / f"{method.replace(':', '-').replace(',', '-')}.npy"
        if not path.exists():
            if not args.compute:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.stack([maps_of(model, method, kind, where) for kind, where in worlds.items()]))
        known = np.load(path)
        unit = one_patch(known[0], worlds["one"])
        for (kind, where), maps in zip(worlds.items(), known, strict=True):
            rows += [{"method": method, "kind": kind} | row for row in judged(maps, where, class_of(kind), unit)]
    found = pd.DataFrame(rows)
    text = checks(model, worlds, args.steps) + "\n" + table(found, args.scenes) + f"\n{describe()}\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.figures is not None:
        draw(found, KINDS, args.figures / "planted.png")


def class_of(kind: str) -> str:
    """The class whose evidence is planted."""
    return kind.split(",")[0]


def planted_scenes(kind: str, count: int, seed: int) -> Int[np.ndarray, "scene symbol"]:
    """Places of symbols: a class's own, and two others. All are three patches apart, except for a pair side by side."""
    generator = np.random.default_rng(seed)
    own = list(SYMBOLS[class_of(kind)])
    where = np.full((count, 9), -1)
    for scene in where:
        others = generator.permutation([symbol for symbol in range(9) if symbol not in own])[:2]
        while True:
            cells = generator.permutation(GRID**2)[: len(own) + 2]
            far = [distance(a, b) for place, a in enumerate(cells) for b in cells[:place]]
            if kind.endswith("side by side"):
                beside, *far = far
                if beside != 1:
                    continue
            if min(far) >= 3:
                break
        scene[own + list(others)] = cells
    return where


def distance(one: int, other: int) -> int:
    """Distance of two patches, in steps to any of the eight neighbours."""
    return max(abs(one // GRID - other // GRID), abs(one % GRID - other % GRID))


def maps_of(
    model: cl.HookedViT, method: str, kind: str, where: Int[np.ndarray, "scene symbol"]
) -> Float[np.ndarray, "scene patch"]:
    """Maps of the scenes of a kind, for its class."""
    images = pixels(scenes(where, np.random.default_rng(1)))
    target = CLASSES.index(class_of(kind))
    maps = cl.attribute(model, list(images), method, target, batch_size=4, progress=False)
    assert isinstance(maps, list)
    return np.stack([on_cells(m.scores, model.grid).numpy().ravel() for m in maps])


def one_patch(maps: Float[np.ndarray, "scene patch"], where: Int[np.ndarray, "scene symbol"]) -> float:
    """A method's score of the one patch with all the evidence, above the map's median; the median over scenes."""
    (symbol,) = SYMBOLS["one"]
    return float(np.median(maps[np.arange(len(maps)), where[:, symbol]] - np.median(maps, axis=1)))


def judged(
    maps: Float[np.ndarray, "scene patch"], where: Int[np.ndarray, "scene symbol"], name: str, unit: float
) -> Iterator[dict[str, float]]:
    """How well the maps of a kind show its planted patches."""
    for scores, scene in zip(maps, where, strict=True):
        cells = scene[list(SYMBOLS[name])]
        far = [patch for patch in range(GRID**2) if min(distance(patch, cell) for cell in cells) > 1]
        above = scores - np.median(scores)
        positive = above.clip(0)
        tolerance = 1e-6 * np.ptp(scores)
        least = max(above[far].max() + tolerance, LEAST * unit)
        row = {
            "found": float(above[cells].min() > least),
            "some": float(above[cells].max() > least),
            "share": float(positive[cells].sum() / positive.sum()) if positive.sum() else 0.0,
        }
        if name == "unequal":
            strong, weak = above[cells]
            row["ratio"] = float(strong / weak) if weak > tolerance else np.inf
        yield row


def checks(model: cl.HookedViT, worlds: Mapping[str, Int[np.ndarray, "scene symbol"]], steps: int) -> str:
    """Markdown: whether the model uses the evidence as planted."""
    lines = [
        f"A ViT of {model.n_layers} blocks and {GRID} x {GRID} patches, trained for {steps} steps with seed 0; the "
        "class whose evidence is planted is explained. Error of the model (root mean square; evidence is worth 1 in "
        "all), on scenes that it has not seen:",
        "",
    ]
    lines += ["| planted | sets of planted patches taken out | put into a blank |", "|---|---|---|"]
    for kind, where in worlds.items():
        off = errors_of_interventions(model, where, class_of(kind), np.random.default_rng(1))
        lines.append(f"| {KINDS[kind]} | {off['removed']:.3f} | {off['inserted']:.3f} |")
    return "\n".join([*lines, ""])


def table(found: pd.DataFrame, count: int) -> str:
    """Markdown: one row per method, those that find most first."""
    means = found.groupby(["method", "kind"])[["found", "some", "share"]].mean()
    ratio = (
        found.dropna(subset="ratio")
        .groupby("method")
        .ratio.quantile([0.25, 0.5, 0.75], interpolation="nearest")
        .unstack()
    )
    lines = [
        f"Scenes in which all planted patches were found, of {count} each; in brackets, where more: in which at "
        "least one was. Share: on planted patches, mean over all kinds. Ratio: median over scenes, with quartiles.",
        "",
        f"| method | {' | '.join(KINDS.values())} | share | ratio (2 is right) |",
        "|---" * (len(KINDS) + 3) + "|",
    ]
    for method in means.found.groupby("method").mean().sort_values(ascending=False, kind="stable").index:
        cells = []
        for kind in KINDS:
            every, some = (round(count * float(means.loc[(method, kind), name])) for name in ("found", "some"))
            cells.append(f"{every} ({some})" if some > every else f"{every}")
        low, middle, high = ratio.loc[method]
        share = means.share[method].mean()
        lines.append(
            f"| `{method}` | {' | '.join(cells)} | {100 * share:.0f} % | "
            + ("weaker one unseen |" if np.isinf(middle) else f"{middle:.1f} ({number(low)} to {number(high)}) |")
        )
    return "\n".join([*lines, ""])


def number(value: float) -> str:
    """A ratio; infinite if the weaker patch is not above the median."""
    return "∞" if np.isinf(value) else f"{value:.1f}"


if __name__ == "__main__":
    main()
