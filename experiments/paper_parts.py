"""Tables for the page on reproducing the paper: the weights of its models, and the number of images of its tables.

    python -m experiments.paper_parts --out docs/tables

Writes `paper_models.md` and `paper_images.md`, from `caap_lab.bench.paper.parts` and the paper's standard errors.
"""

import argparse
from pathlib import Path
from statistics import median

from caap_lab.bench.paper.implied_images import implied_images
from caap_lab.bench.paper.parts import HEADS, IMAGES, MODELS, group_of
from caap_lab.bench.paper.published import names, tables


def models_table() -> str:
    """The paper's models as timm's weights."""
    lines = ["| Paper | Weights of timm, with options | Head |", "|---|---|---|"]
    for name, text in MODELS.items():
        lines.append(f"| {name} | `{text}` | {f'`{HEADS[name]}`' if name in HEADS else 'its own'} |")
    return "\n".join(lines) + "\n"


def images_table() -> str:
    """Images per data set of each table, and the number that the paper's standard errors imply."""
    lines = [
        "| Table | Data sets | Images of each | Implied, median of the cells | Cells that tell |",
        "|---|---|---|---|---|",
    ]
    for table in tables():
        datasets, implied = names(table, "dataset"), implied_images(table)
        count = IMAGES.get(f"table {table}", IMAGES[group_of(table, datasets[0])])
        told = f"{median(implied):.0f}" if implied else ""
        lines.append(f"| {table} | {', '.join(datasets)} | {count} | {told} | {len(implied) or ''} |")
    return "\n".join(lines) + "\n"


TABLES = {"paper_models.md": models_table, "paper_images.md": images_table}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.paper_parts", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/tables"), help="folder; default %(default)s")
    folder = parser.parse_args().out
    for name, table in TABLES.items():
        (folder / name).write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
