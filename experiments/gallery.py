"""Pictures and pages of the gallery: every method on three images, every plot; and the pictures of the README.

    CAAP_LAB_TEST_DATA=PATH python -m experiments.gallery
    CAAP_LAB_TEST_DATA=PATH python -m experiments.gallery --only readme methods
    python -m experiments.gallery --only plots pages

The photo is one that comes with scikit-learn, under ViT-tiny from `weights/` of the folder that CAAP_LAB_TEST_DATA
names. Without it a scene under the bundled model replaces the photo, and the README's pictures are not changed. Maps
are cached in `--maps`, so a new method only costs its own three maps. `pages` runs no model.
"""

import argparse
from pathlib import Path

from experiments.gallery_images import photo, photo_model, three_images
from experiments.gallery_methods import write_method_pictures
from experiments.gallery_page import pages
from experiments.gallery_plots import write_plot_pictures
from experiments.gallery_readme import write_readme_pictures

DOCS = Path(__file__).parents[1] / "docs"
PARTS = ("readme", "methods", "plots", "pages")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.gallery", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="parts to make; all by default")
    parser.add_argument("--maps", type=Path, default=Path("runs/gallery"), help="folder where maps are cached")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the pages")
    args = parser.parse_args()
    out = args.docs / "images" / "gallery"
    if "readme" in args.only and (model := photo_model()) is not None:
        write_readme_pictures(photo("china", model), args.maps, out)
    if "methods" in args.only:
        write_method_pictures(three_images(), args.maps, out / "methods")
    if "plots" in args.only:
        write_plot_pictures(out / "plots")
    if "pages" in args.only:
        for name, text in pages().items():
            (args.docs / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
