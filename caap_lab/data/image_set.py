"""The common form of all data sets: named samples, read on demand, with labels and masks if there are any."""

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
from jaxtyping import Bool
from PIL import Image

from caap_lab.data.digest import content_digest
from caap_lab.errors import InputError
from caap_lab.files import atomic_path
from caap_lab.labels import counted
from caap_lab.models.classes import ClassNames
from caap_lab.models.images import load_image
from caap_lab.models.names import nearest

_COMPARED = 200
"""Number of names before and after an unknown one, in sorted order, with which it is compared."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Pixels of a photo that belong to its objects, at the photo's own size."""

    masks: Mapping[int | None, Bool[np.ndarray, "height width"]]
    """Pixels of all objects by class index; the key None is for objects without a class. Classes that the annotation
    does not distinguish have the same array."""
    ignored: Bool[np.ndarray, "height width"] | None = None
    """Pixels that the annotation leaves undecided; metrics ignore them."""

    @property
    def marks_nothing(self) -> bool:
        """True if no pixel belongs to an object."""
        return not any(mask.any() for mask in self.masks.values())


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a data set."""

    name: str
    """Unique in its data set, and the same on every machine, such as a file's path inside the data set."""
    read_image: Callable[[], Image.Image] = field(repr=False)
    label: int | None = None
    """Class index in the data set's own classes."""
    read_regions: Callable[[], Regions] | None = field(default=None, repr=False)
    other_labels: tuple[int, ...] = ()
    """Further correct classes, as in ImageNet-Hard."""

    @property
    def image(self) -> Image.Image:
        """The photo, read again each time."""
        return self.read_image()

    @property
    def regions(self) -> Regions:
        """The objects' pixels, read again each time.

        Raises:
            InputError: there is no mask for this image.
        """
        if self.read_regions is None:
            raise InputError(f"{self.name} has no mask.")
        return self.read_regions()

    def digest(self, class_name: Callable[[int], str] | None = None) -> str:
        """Hash of the loaded pixels, the labels and the masks, read again each time; the image's name does not count.

        Args:
            class_name: Name of a class by its index; without it, labels count only by number. `ImageSet.digest_of`
                passes it if classes have names.

        Raises:
            InputError: the image or a mask cannot be read.
        """
        image = load_image(self.image)
        regions = None if self.read_regions is None else self.regions
        return content_digest(
            image,
            (self.label, *self.other_labels),
            {} if regions is None else regions.masks,
            None if regions is None else regions.ignored,
            class_name,
        )


@dataclass(frozen=True, eq=False)
class ImageSet(Sequence[Sample]):
    """Images to run on, in a fixed order.

    ```python
    images = cl.open_images("demo:two")
    images[0].image, images[:10], images.sample(5, seed=0)
    ```

    `cl.open_images("imagenet:PATH")` opens one. Slices, `sample` and `only` return smaller ones.
    """

    name: str
    """Kind of data set, such as "imagenet" or "folder"."""
    source: str
    """The text with which `open_images` opens the set again, from any folder and process: the kind and the absolute
    path, and labels or photos from elsewhere, as in "folder:/data/photos?labels=/data/labels.json"."""
    samples: tuple[Sample, ...] = field(repr=False)
    class_names: ClassNames | None = field(default=None, repr=False)
    """Names of the classes to which labels refer; None if there are no labels."""
    chosen: str = "all"
    """How the images were chosen from the complete data set."""

    def __post_init__(self) -> None:
        if not self.samples:
            raise InputError(f"{self.source} holds no images.")
        if len({sample.name for sample in self.samples}) < len(self.samples):
            twice, _ = Counter(sample.name for sample in self.samples).most_common(1)[0]
            raise InputError(f"{self.source} has two images of the same name, {twice!r}.")

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        """Its content, and how it was chosen."""
        has = [name for name, there in (("labels", self.has_labels), ("masks", self.has_masks)) if there]
        what = f" with {' and '.join(has)}" if has else ""
        count = counted(len(self), "image")
        return f"ImageSet: {count} of {self.source}{what}; {self.chosen}"

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageSet": ...
    def __getitem__(self, index: int | slice) -> "Sample | ImageSet":
        if isinstance(index, slice):
            return replace(self, samples=self.samples[index], chosen=self._sliced(index))
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def _sliced(self, index: slice) -> str:
        """How a slice was chosen: "images 0 to 11 of all"."""
        places = range(len(self))[index]
        if len(places) < 2 or places.step == 1:
            which = f"{places.start} to {places[-1]}" if len(places) > 1 else f"{places.start}"
        else:
            which = f"{places[0]} to {places[-1]} in steps of {places.step}"
        return f"image{'s' * (len(places) != 1)} {which} of {self.chosen}"

    @property
    def has_masks(self) -> bool:
        """True if every image has a mask."""
        return all(sample.read_regions is not None for sample in self.samples)

    @property
    def has_labels(self) -> bool:
        """True if every image has a class."""
        return all(sample.label is not None for sample in self.samples)

    @cached_property
    def _by_name(self) -> dict[str, Sample]:
        return {sample.name: sample for sample in self.samples}

    def _nearest(self, name: str) -> str:
        """A sentence with names similar to an unknown one, with a leading space; empty if there are none."""
        plain = PurePosixPath(name.replace("\\", "/"))
        for one in (str(plain.with_suffix("")) if plain.name else "", plain.stem):
            if one in self._by_name:
                return f" Write {one!r}."
        names = sorted(self._by_name)  # of 50,000, only those with a similar start: comparing all takes seconds
        place = bisect(names, name)
        return nearest(name, names[max(0, place - _COMPARED) : place + _COMPARED])

    def named(self, name: str) -> Sample:
        """An image by its name.

        Raises:
            InputError: there is none.
        """
        if name not in self._by_name:
            raise InputError(f"{self.source} has no image {name!r}.{self._nearest(name)}")
        return self._by_name[name]

    def digest_of(self, name: str) -> str:
        """Hash of an image's loaded pixels, its labels with their names, and its masks; read again each time.

        Args:
            name: Name of the image.

        Raises:
            InputError: there is no such image, or the image or a mask cannot be read.
        """
        return self.named(name).digest(None if self.class_names is None else self.class_names.names.__getitem__)

    def sample(self, count: int, seed: int = 0) -> "ImageSet":
        """A random subset, drawn without replacement and in the drawn order, so that a smaller one starts a larger one.

        Args:
            count: Number of images.
            seed: Seed of the draw.

        Raises:
            InputError: the data set has fewer, or the seed is not an integer from 0.
        """
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"seed={seed!r} is not a whole number of at least 0.")
        if not isinstance(count, (int, np.integer)) or isinstance(count, bool):
            raise InputError(f"{count!r} is not a number of images.")
        if not 1 <= count <= len(self):
            raise InputError(f"{count} images were requested, but {self.source} has only {len(self)}.")
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(self))
        drawn = tuple(self.samples[i] for i in order[:count])
        return replace(self, samples=drawn, chosen=f"{count} of {len(self)}, seed {seed}")

    def only(self, names: Iterable[str]) -> "ImageSet":
        """A subset of images by name, in the given order.

        Raises:
            InputError: there is no image with a name, a name is repeated, or there are no names.
        """
        names = list(names)
        if not names:
            raise InputError(f"No images of {self.source} were named.")
        missing = [name for name in names if name not in self._by_name]
        if missing:
            raise InputError(
                f"{self.source} has no image {missing[0]!r} ({len(missing)} of {len(names)} are missing)."
                f"{self._nearest(missing[0])}"
            )
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"The list has {twice[0]!r} more than once (repeated names: {len(twice)}).")
        return replace(self, samples=tuple(self._by_name[name] for name in names), chosen=f"a list of {len(names)}")

    def save_list(self, path: str | Path) -> Path:
        """Save the images' names, one per line, for `only(read_list(path))`, so that all methods use the same ones."""
        with atomic_path(Path(path)) as part:
            part.write_text("".join(f"{sample.name}\n" for sample in self.samples), encoding="utf-8")
        return Path(path)


def read_list(path: str | Path) -> list[str]:
    """Names from a file of `ImageSet.save_list`, or with one name per line.

    Raises:
        InputError: there is no such file, or it lists nothing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"The image list {path} cannot be read ({error}).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"The image list {path} cannot be read ({error}). Save it as text in UTF-8.") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"The image list {path} names no image.")
    return names
