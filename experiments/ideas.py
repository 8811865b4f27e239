"""Pictures of the ideas: a patched context, CAAP's four contexts, why one pass gives all patches, the package's tree.

    python -m experiments.ideas --out docs/images/ideas

Each is written as PNG on white and, as NAME_dark.png, on dark; and as PDF. No model is run.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from caap_lab.plots.style import figure_png
from experiments.gallery_images import write_png
from experiments.ideas_contexts import contexts_figure, runs_figure
from experiments.ideas_groups import groups_figure
from experiments.ideas_ink import DARK, LIGHT, Ink
from experiments.ideas_tree import tree_figure

IDEAS: dict[str, Callable[[Ink], Figure]] = {
    "patched_context": runs_figure,
    "contexts": contexts_figure,
    "groups": groups_figure,
    "tree": tree_figure,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.ideas", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in IDEAS.items():
        light = draw(LIGHT)
        write_png(figure_png(light, dpi=130), out / f"{name}.png")
        write_png(figure_png(draw(DARK), dpi=130), out / f"{name}_dark.png")
        light.savefig(out / f"{name}.pdf", metadata={"CreationDate": None})


if __name__ == "__main__":
    main()
