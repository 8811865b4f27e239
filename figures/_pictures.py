"""Small pictures of drawn figures for README.md; of figures 11 to 40, only the first.

    python figures/_pictures.py runs/figures docs/images/figures

`make figures` draws the figures and runs this.
"""

import sys
from pathlib import Path

from PIL import Image

from caap_lab.bench.figures.scripts import GALLERY, SHEETS, figure_names

WIDTH = 1000
"""Width of the pictures in pixels, at most."""


def main(drawn: Path, out: Path) -> None:
    """Write each figure's PNG with a palette, which also keeps colours that few pixels have."""
    out.mkdir(parents=True, exist_ok=True)
    for name in [*(name for name in figure_names() if name != GALLERY), SHEETS[0]]:
        with Image.open(drawn / f"{SHEETS[0] if name == GALLERY else name}.png") as figure:
            picture = figure.convert("RGB")
        if picture.width > WIDTH:
            picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
        small = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
