"""How well approximations and other contexts rank patches, compared with the exact clamped map, at every cutoff.

    python -m experiments.approximations --model deit_tiny_patch16_224 --checkpoint deit.safetensors --photos DIR

Writes `approximations_MODEL.csv` (one row per image, cutoff and variant) and a Markdown table of means. Real weights
are needed: on random ones every map is noise.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr
from tqdm import tqdm

from benchmarks.machine import describe
from caap_lab import HookedViT, caap, load_model
from experiments.photos import every_nth, one

VARIANTS: dict[str, dict[str, Any]] = {
    "cached": {"attention": "cached"},
    "cached_all": {"attention": "cached_all"},
    "shared": {"tail": "shared"},
    "cached, shared": {"attention": "cached", "tail": "shared"},
    "interpolated": {"tail": "interpolated"},
    "free": {"context": "free"},
    "dropped": {"context": "dropped"},
    "frozen": {"context": "frozen"},
}


def measure(model: HookedViT, photos: list[Path], free_photos: int, variants: list[str]) -> pd.DataFrame:
    """Spearman correlation of some variants' maps with the exact clamped map of the model's own prediction."""
    rows = []
    for number, photo in enumerate(tqdm(photos, unit="photo")):
        image = model.preprocess(photo)
        for cutoff in range(1, model.spec.n_layers + 1):
            exact = one(caap(model, image, cutoff=cutoff))
            for variant in variants:
                if variant == "free" and (number >= free_photos or cutoff % 2):
                    continue  # one forward per patch: a subset
                other = one(caap(model, image, exact.target, cutoff=cutoff, **VARIANTS[variant]))
                rank = spearmanr(exact.scores.flatten(), other.scores.flatten()).statistic
                rows.append({"image": photo.name, "cutoff": cutoff, "variant": variant, "spearman": rank})
    return pd.DataFrame(rows)


def table(frame: pd.DataFrame) -> str:
    """Markdown: mean correlation (lowest) by cutoff and variant."""
    groups = frame.groupby(["cutoff", "variant"])["spearman"].agg(["mean", "min", "count"])
    cutoffs = sorted(frame["cutoff"].unique())
    variants = [v for v in VARIANTS if (frame["variant"] == v).any()]
    counts = {v: int(frame[frame["variant"] == v].groupby("cutoff").size().max()) for v in variants}
    lines = [
        "| cutoff | " + " | ".join(f"{v} (n = {counts[v]})" for v in variants) + " |",
        "|---" * (len(variants) + 1) + "|",
    ]
    for cutoff in cutoffs:
        cells = []
        for variant in variants:
            if (cutoff, variant) not in groups.index:
                cells.append("")
                continue
            mean, lowest, _ = groups.loc[(cutoff, variant)]
            cells.append(f"{mean:.3f} ({lowest:.2f})")
        lines.append(f"| {cutoff} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(frame: pd.DataFrame, model: str, folder: str) -> str:
    """The table with its protocol."""
    count = frame["image"].nunique()
    photos = f"{count} photos of {folder} (every n-th by name)"
    return (
        f"{table(frame)}\n\n{model}, {photos}, target the model's prediction, white blank, 3 x 3 neighbourhood: "
        f"mean Spearman correlation with the exact clamped map (lowest photo in brackets). {describe()}.\n"
    )


def main() -> None:
    """Measure one model and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True, help="timm name")
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--mean", type=float, nargs=3)
    parser.add_argument("--std", type=float, nargs=3)
    parser.add_argument("--photos", required=True, type=Path, help="folder of photos; every n-th by name is used")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--free-count", type=int, default=6, help="photos for the free context")
    parser.add_argument(
        "--variants",
        nargs="+",
        default=list(VARIANTS),
        choices=list(VARIANTS),
        help="measure only these and keep the other rows",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/tables"))
    arguments = parser.parse_args()
    model = load_model(arguments.model, checkpoint=arguments.checkpoint, mean=arguments.mean, std=arguments.std)
    assert isinstance(model, HookedViT)
    photos = every_nth(arguments.photos, arguments.count)
    frame = measure(model, photos, arguments.free_count, arguments.variants)
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = arguments.out / f"approximations_{arguments.model}"
    if len(arguments.variants) < len(VARIANTS) and stem.with_suffix(".csv").exists():
        kept = pd.read_csv(stem.with_suffix(".csv"))
        frame = pd.concat([kept[~kept["variant"].isin(arguments.variants)], frame], ignore_index=True)
    frame.round(5).to_csv(stem.with_suffix(".csv"), index=False)
    text = report(frame, arguments.model, arguments.photos.name)
    stem.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
