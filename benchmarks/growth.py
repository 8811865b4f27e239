"""How a map's cost grows with patches, depth and width: ``python -m benchmarks.growth``.

ViTs with random weights: from 49 patches to 4096 (1024 pixels), from 4 blocks to 24, from width 192 to 768. A map under
the default bound on memory, in forward passes of the same model (counted operations of matrix products, and the clock),
and the most bytes that it holds besides the model and the blank's run. Writes docs/tables/growth.csv and growth.md, and
draws docs/images/growth.png and growth.pdf; ``--draw`` only draws.
"""

import argparse
import statistics
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch

from benchmarks.counting import operations, peak_bytes, timed
from benchmarks.machine import describe
from caap_lab import HookedViT, caap
from caap_lab.plots.facets import plot_facets
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.style import level_styles, save_figure

TABLE, FIGURE = Path("docs/tables/growth"), Path("docs/images/growth")
PATCH = 16
SMALLEST: dict[str, int] = {"patches": 14 * 14, "depth": 4, "width": 192}
"""Of all models, except for what grows."""
GROWTH: dict[str, dict[str, tuple[int, ...]]] = {
    "patches": {"patches": (7 * 7, 14 * 14, 20 * 20, 32 * 32, 45 * 45, 64 * 64)},
    "patches, width 768": {"patches": (14 * 14, 32 * 32, 45 * 45, 64 * 64), "width": (768,)},
    "blocks": {"depth": (4, 8, 12, 24)},
    "width": {"width": (192, 384, 768)},
}
"""What grows, as the table and the figure say; its values, and others that differ from the smallest."""
COLUMNS = ("grows", "value", "forwards, counted", "forwards, timed", "MiB")


def build(patches: int, depth: int, width: int) -> HookedViT:
    """A ViT with a square grid of patches, and random weights."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"depth": depth, "embed_dim": width, "num_heads": width // 64}
    pixels = PATCH * round(patches**0.5)
    return HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=pixels, **sizes).eval())


def measure(model: HookedViT, repeats: int) -> tuple[float, float, float]:
    """Cost of a map in forward passes, counted and timed, and the MiB that it holds at its peak."""
    image = torch.randn(1, 3, *model.image_size)

    def forward() -> None:
        with torch.no_grad():
            model(image)

    def one_map() -> None:
        caap(model, image, progress=False)

    one_map()  # and the blank's run, which is kept
    ratios = []
    for _ in range(repeats):
        before, taken, after = timed(forward), timed(one_map), timed(forward)
        ratios.append(2 * taken / (before + after))
    counted = operations(model, one_map) / operations(model, forward)
    return counted, statistics.median(ratios), peak_bytes(one_map) / 2**20


def table(frame: pd.DataFrame) -> str:
    """Markdown: one row per model."""
    lines = ["| grows | | in forwards, counted | in forwards, timed | held at the peak |", "|---|---|---|---|---|"]
    for grows, value, counted, clock, held in frame[list(COLUMNS)].itertuples(index=False):
        lines.append(f"| {grows} | {value} | {counted:.2f} | {clock:.2f} | {held:.0f} MiB |")
    return "\n".join(lines)


def draw(frame: pd.DataFrame) -> None:
    """Forward passes above, memory below; one column per thing that grows."""
    kinds = {"forwards, counted": "counted", "forwards, timed": "timed", "MiB": "held at the peak"}
    rows = {"forwards, counted": "forward passes", "forwards, timed": "forward passes", "MiB": "MiB"}
    long = frame.melt(id_vars=["grows", "value"], value_vars=list(kinds), var_name="kind", value_name="mean")
    long["unit"] = long["kind"].map(rows)
    long["kind"] = long["kind"].map(kinds)
    styles = level_styles(tuple(kinds.values()))

    def lines(part: pd.DataFrame, **options: Any) -> Any:
        own = {kind: styles[kind] for kind in dict.fromkeys(part["kind"])}
        ax = plot_lines(part, **options, styles=own, xlabel=part["grows"].iloc[0], ylabel=part["unit"].iloc[0])
        ax.set_xscale("log")
        ax.set_xticks(sorted(set(part["value"])), labels=[f"{value}" for value in sorted(set(part["value"]))])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        return ax

    each = partial(lines, x="value", error=None, hue="kind", markers=True)
    figure = plot_facets(long, each, column="grows", row="unit", panel=(3.6, 2.6), sharex=False)
    save_figure(figure, FIGURE)


def main() -> None:
    """Measure, keep the table, draw."""
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed maps per model; default %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    arguments = parser.parse_args()
    if not arguments.draw:
        torch.set_num_threads(arguments.threads)
        rows = []
        for grows, values in GROWTH.items():
            for sizes in product(*values.values()):
                found = measure(build(**{**SMALLEST, **dict(zip(values, sizes, strict=True))}), arguments.repeats)
                rows.append((grows, sizes[0], *found))
                print(*rows[-1], flush=True)
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        frame.round(4).to_csv(TABLE.with_suffix(".csv"), index=False)
        base = f"{SMALLEST['patches']} patches, {SMALLEST['depth']} blocks and width {SMALLEST['width']}"
        TABLE.with_suffix(".md").write_text(
            f"{table(frame)}\n\nEach model has {base}, but for what the first column names. One image; `max_memory` "
            f"as by default; medians of {arguments.repeats}. {describe()}.\n"
        )
    draw(pd.read_csv(TABLE.with_suffix(".csv")))


if __name__ == "__main__":
    main()
