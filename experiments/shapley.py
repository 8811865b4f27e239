"""How close is each method's ranking of patches to their Shapley values? A reference independent of the metrics.

    python -m experiments.shapley --cifar PATH/model.safetensors --photos masks:PATH \
        --models ViT-tiny=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --run runs/shapley --out docs/tables/shapley.md --figures docs/images

A patch's Shapley value is its contribution to the logit of the model's own prediction, averaged over all numbers and
choices of other patches that are present; absent patches are white, or grey (the mean colour). Values are sampled until
the root mean square of their standard errors is 2 % of the range of the values. The CIFAR-10 ViT (4 blocks, 64 patches
of 4 pixels) sees the photos shrunk to 32 pixels.

Numbers are rank correlations (Spearman) of maps with these values, mean ± standard error over photos (ddof = 0). Their
ceiling is the result of a method that knows the values up to sampling noise: the correlation of the values with
themselves plus normal noise of their standard errors. Every map is saved; the same command resumes a stopped run, and
`--no-compute` makes the table from saved maps.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import spearmanr
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.attribution.rank_sum import on_cells
from caap_lab.data.image_set import ImageSet
from caap_lab.models.base import HookedModel
from caap_lab.statistics import holm, sign_flip_p, standard_error
from caap_lab.variant import parse_variant
from experiments.interactions import cifar_model
from experiments.photos import held_out, one
from experiments.shapley_figure import draw

BLANKS = ("white", "mean")
METHODS = (
    "caap",
    "caap:blank=mean",
    "caap:direction=remove",
    "caap:direction=remove,blank=mean",
    "caap:context=free",
    "caap:neighbourhood=none",
    "caap:direction=remove,neighbourhood=none",
    "caap:attention=cached",
    "rank_sum",
    "rank_sum:first=caap,second=caap:direction=remove",
    "rank_sum:first=caap,second=transformer_attribution",
    'rank_sum:first="caap:neighbourhood=none",second=libra_ixg_plus',
    "grad_cam",
    "rollout",
    "transformer_attribution",
    "tam",
    "ixg_plus",
    "libra_ixg_plus",
    "mutex",
    "input_x_gradient",
    "integrated_gradients",
    "smoothgrad",
    "full_grad_plus",
    "grad_cam_plus_plus",
    "attcat",
    "grad_sam",
    "gen_att",
    "legrad",
    "attn_lrp",
    "simple_insertion",
    "simple_deletion",
    "simple_insertion:neighbourhood=none",
    "simple_deletion:neighbourhood=none",
    "simple_insertion:blank=mean",
    "simple_deletion:blank=mean",
    "occlusion",
    "atman",
    "score_cam",
    "vit_cx",
    "tis",
    "rise:samples=1000",
    "mda",
)
"""The methods, quick ones first; RISE with 1000 masks."""
NOISE_DRAWS = 20


@dataclass(frozen=True)
class Study:
    """A model, its photos and the folder of its maps."""

    label: str
    model: HookedModel
    photos: ImageSet
    folder: Path
    compute: bool

    def map_of(self, method: str, index: int, **options: Any) -> cl.AttributionMap | None:
        """A photo's map, read from its file or computed; None if it should not be computed.

        Raises:
            InputError: the file's map is of another model or photo.
        """
        name = method.replace('"', "").replace(":", "-").replace(",", "-")
        path = self.folder / self.label / name / f"{index:02}.safetensors"
        if path.exists():
            found = cl.AttributionMap.load(path)
            if found.fingerprint != self.model.fingerprint:
                raise cl.InputError(f"{path} was made with another model; choose another folder with --run.")
            return found
        if not self.compute:
            return None
        made = one(cl.attribute(self.model, self.photos[index].image, method, progress=False, **options))
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save(path)
        return made


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.shapley", description=__doc__)
    parser.add_argument("--cifar", type=Path, help="weights of the CIFAR-10 ViT; without them it is omitted")
    parser.add_argument("--models", nargs="*", default=[], metavar="LABEL=NAME:key=value")
    parser.add_argument("--photos", required=True, help="what cl.open_images opens; the held-out photos are used")
    parser.add_argument("--small", type=int, default=64, help="photos for the CIFAR-10 ViT; default %(default)s")
    parser.add_argument("--count", type=int, default=8, help="photos for the other models; default %(default)s")
    parser.add_argument(
        "--until", type=float, default=0.02, help="standard error relative to the range; default %(default)s"
    )
    parser.add_argument(
        "--most", type=int, default=100_000, help="largest number of samples per photo; default %(default)s"
    )
    parser.add_argument("--run", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--no-compute", dest="compute", action="store_false", help="only read saved maps")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    parser.add_argument("--figures", type=Path, help="write the figure into this folder")
    args = parser.parse_args()
    photos = cl.open_images(args.photos)
    studies = []
    if args.cifar is not None:
        studies.append(
            Study("CIFAR-10 ViT", cifar_model(args.cifar), held_out(photos, args.small), args.run, args.compute)
        )
    for spec in map(parse_variant, args.models):
        model = cl.load_model(spec.name, **spec.options)
        studies.append(Study(spec.label, model, held_out(photos, args.count), args.run, args.compute))
    parts, columns = [], {}
    for study in studies:
        references = {blank: list(values(study, blank, args.until, args.most)) for blank in BLANKS}
        found = correlations(study, references)
        if found is not None:
            parts.append(report(study, references, found, args.until))
            columns[study.label] = found
    text = "\n\n".join([*parts, f"Photos: {args.photos.split('/')[-1]}, held out. {describe()}."]) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.figures is not None:
        draw(columns, args.figures / "shapley.png")


def values(study: Study, blank: str, until: float, most: int) -> Iterator[cl.AttributionMap]:
    """Shapley values, photo by photo, as far as they exist or should be computed."""
    for index in tqdm(range(len(study.photos)), desc=f"{study.label}, {blank}", disable=not study.compute):
        found = study.map_of(f"shapley:blank={blank}", index, until=until, samples=most)
        if found is None:
            return
        yield found


def correlations(study: Study, references: dict[str, list[cl.AttributionMap]]) -> pd.DataFrame | None:
    """One row per method and photo: the rank correlation with the values of each blank; None without any values."""
    count = min(len(found) for found in references.values())
    rows = []
    for method in METHODS if count else ():
        for index in tqdm(range(count), desc=f"{study.label}, {method}", disable=not study.compute):
            found = study.map_of(method, index)
            if found is not None:
                of_cells = on_cells(found.scores, study.model.grid).numpy()
                rows.append({"method": method, "image": index} | against(of_cells, references, index))
        if rows and rows[-1]["method"] == method and rows[-1]["image"] < count - 1:  # not yet on all photos
            rows = [row for row in rows if row["method"] != method]
    generator = np.random.default_rng(0)
    for index in range(count):
        for blank, maps in references.items():
            name = f"Shapley values with the blank {blank}"
            mine = maps[index].scores.double().numpy()
            errors = error_of(maps[index])
            noisy = [mine + errors * generator.normal(size=mine.shape) for _ in range(NOISE_DRAWS)]
            other = {one: rank_correlation(mine, maps[index].scores.numpy()) for one, maps in references.items()}
            other[blank] = float(np.mean([rank_correlation(mine, one) for one in noisy]))
            rows.append({"method": name, "image": index} | other)
    return pd.DataFrame(rows) if rows else None


def against(
    scores: Float[np.ndarray, "row col"], references: dict[str, list[cl.AttributionMap]], index: int
) -> dict[str, float]:
    """Rank correlation of a map with the values of each blank."""
    return {blank: rank_correlation(scores, maps[index].scores.numpy()) for blank, maps in references.items()}


def rank_correlation(one: Float[np.ndarray, "row col"], other: Float[np.ndarray, "row col"]) -> float:
    """Spearman's rank correlation; 0 for a constant map."""
    return float(spearmanr(one.ravel(), other.ravel()).statistic) if np.ptp(one) and np.ptp(other) else 0.0


def error_of(reference: cl.AttributionMap) -> Float[np.ndarray, "row col"]:
    """Standard errors of the values."""
    assert reference.standard_errors is not None
    return reference.standard_errors.double().numpy()


def report(study: Study, references: dict[str, list[cl.AttributionMap]], found: pd.DataFrame, until: float) -> str:
    """A model's table, with the standard errors of the values."""
    lines = [f"**{study.label}**, {found.image.nunique()} photos, its own predictions.", ""]
    for blank, maps in references.items():
        by_range = [error_of(m) / np.ptp(m.scores.numpy()) for m in maps]
        size = [float((error**2).mean() ** 0.5) for error in by_range]
        lines.append(
            f"Blank {blank}: standard errors (root mean square) {100 * np.mean(size):.1f} % of the range on average, "
            f"{100 * max(size):.1f} % at most, that of a single patch {100 * max(e.max() for e in by_range):.1f} % at "
            f"most; {sum(one <= until for one in size)} of {len(size)} photos reached {100 * until:g} %."
        )
    lines += ["", f"| method | n | {' | '.join(f'Shapley values, {blank}' for blank in BLANKS)} |"]
    lines += ["|---" * (len(BLANKS) + 2) + "|"]
    lines.insert(
        -2,
        "In brackets: less CAAP on the same photos; * where a paired sign-flip test with Holm's correction over the "
        "methods and both blanks has p < 0.05. Where values stand against themselves, the number is the ceiling.\n",
    )
    against_caap = differences(found)
    for method, rows in in_order(found):
        cells = [spread(rows[blank].to_numpy(float)) + against_caap.get((method, blank), "") for blank in BLANKS]
        name = method if method.startswith("Shapley") else f"`{method}`"
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(found: pd.DataFrame) -> dict[tuple[str, str], str]:
    """In brackets, by method and blank: mean paired difference to CAAP, its standard error, * if significant."""
    wide = found.pivot(index="image", columns="method", values=list(BLANKS))
    pairs = {
        (method, blank): (wide[blank][method] - wide[blank]["caap"]).dropna().to_numpy()
        for blank, method in wide
        if method != "caap" and not method.startswith("Shapley") and "caap" in wide[blank]
    }
    p = holm(np.array([sign_flip_p(one) for one in pairs.values()]))
    return {
        key: f" ({one.mean():+.2f} ± {standard_error(one):.2f}{'*' * bool(of_pair < 0.05)})"
        for (key, one), of_pair in zip(pairs.items(), p, strict=True)
    }


def in_order(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Methods with their rows, from the highest mean correlation to the lowest."""
    return sorted(
        ((str(name), rows) for name, rows in found.groupby("method")),
        key=lambda pair: -float(pair[1][list(BLANKS)].mean().mean()),
    )


def spread(numbers: Float[np.ndarray, " image"]) -> str:
    """Mean and standard error."""
    return f"{numbers.mean():.2f} ± {numbers.std() / len(numbers) ** 0.5:.2f}"


if __name__ == "__main__":
    main()
