"""What an image of a data set is, and what a data set is: digests and sources."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from caap_lab import ImageSet, open_images
from caap_lab.data.image_set import Regions, Sample
from caap_lab.hooked.classes import ClassNames


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_a_digest_covers_pixels_labels_and_masks_and_nothing_else() -> None:
    inside = np.zeros((6, 8), bool)
    inside[2:4, 3:5] = True

    def sample(**changes: object) -> Sample:
        return replace(
            Sample("a", lambda: Image.fromarray(pixels()), 3, lambda: Regions({3: inside}, ~inside), (4,)), **changes
        )

    moved = np.roll(inside, 1, axis=1)
    others = [
        sample(read_image=lambda: Image.fromarray(pixels(1))),
        sample(read_image=lambda: Image.fromarray(pixels().reshape(8, 6, 3))),
        sample(label=2),
        sample(label=None),
        sample(other_labels=(5,)),
        sample(other_labels=()),
        sample(label=4, other_labels=(3,)),
        sample(read_regions=None),
        sample(read_regions=lambda: Regions({3: moved}, ~inside)),
        sample(read_regions=lambda: Regions({None: inside}, ~inside)),
        sample(read_regions=lambda: Regions({3: inside, 5: inside}, ~inside)),
        sample(read_regions=lambda: Regions({3: inside})),
        sample(read_regions=lambda: Regions({3: inside}, ~moved)),
        sample(read_regions=lambda: Regions({3: inside[:, :4], 4: inside[:, 4:]}, ~inside)),
    ]
    assert len({one.digest() for one in [sample(), *others]}) == 1 + len(others)
    # Where it lies, what it is called and the order in which masks were found decide no number.
    assert sample(name="b").digest() == sample().digest()
    twice = [Regions({3: inside, 5: moved}), Regions({5: moved, 3: inside})]
    assert len({sample(read_regions=lambda found=found: found).digest() for found in twice}) == 1
    assert sample().digest() == "6f71bd37d5252650c383faca66355bb1"  # in every process and on every machine


def test_a_digest_follows_the_file_and_the_names_of_the_classes(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels())
    images = open_images(f"folder:{tmp_path}")
    before = images.digest_of("a.png")
    assert before == images[0].digest() == images.digest_of("a.png")
    save(tmp_path / "a.png", pixels(1))
    assert images.digest_of("a.png") != before

    sample = Sample("a", lambda: Image.fromarray(pixels()), 0)
    named = [ImageSet("own", "own:", (sample,), ClassNames(names)).digest_of("a") for names in (("cat",), ("dog",))]
    assert len({*named, sample.digest()}) == 3
