"""The object in a mask is what the mask shows, in every form in which masks are stored."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from caap_lab import InputError, Preprocessing, open_images
from caap_lab.models.mask_pixels import object_pixels

INSIDE = np.zeros((60, 80), bool)
INSIDE[10:40, 20:50] = True
GREY = np.where(INSIDE, np.uint8(255), np.uint8(0))
CORNERS = 12  # pixels at four corners that blur leaves less than half covered
EYE = Preprocessing((60, 80), (0.5,) * 3, (0.5,) * 3, crop_mode="squash")  # nothing is cropped or resized


def saved(image: Image.Image, ending: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, ending, **options)
    return Image.open(buffer)


def with_alpha(*colour: int, alpha: np.ndarray = GREY) -> Image.Image:
    return Image.fromarray(np.dstack([*(np.full_like(alpha, value) for value in colour), alpha]))


def with_palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def transparent_gif() -> Image.Image:
    return saved(with_palette(~INSIDE, (200, 30, 30), (0, 255, 0)), "GIF", transparency=1)


def cut_out() -> Image.Image:
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    return Image.fromarray(np.dstack([photo, GREY]))


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
FORMS: dict[str, Callable[[], Image.Image]] = {
    "grey": lambda: Image.fromarray(GREY),
    "zero and one": lambda: Image.fromarray(INSIDE.astype(np.uint8)),
    "one bit": lambda: saved(Image.fromarray(INSIDE), "PNG"),
    "one bit TIFF": lambda: saved(Image.fromarray(INSIDE), "TIFF"),
    "16 bit": lambda: saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
    "16 bit that holds 255": lambda: saved(Image.fromarray(GREY.astype(np.uint16)), "PNG"),
    "32 bit": lambda: Image.fromarray(GREY.astype(np.int32)),
    "floating point": lambda: saved(Image.fromarray(INSIDE.astype(np.float32)), "TIFF"),
    "RGB": lambda: Image.fromarray(GREY).convert("RGB"),
    "red": lambda: Image.fromarray(np.dstack([GREY, GREY * 0, GREY * 0])),
    "CMYK": lambda: Image.fromarray(GREY).convert("RGB").convert("CMYK"),
    "GIF": lambda: saved(Image.fromarray(GREY).convert("RGB").quantize(2), "GIF"),
    "optimised PNG": lambda: saved(Image.fromarray(GREY).convert("RGB").quantize(2), "PNG"),
    "palette, black second": lambda: with_palette(~INSIDE, RED, BLACK),
    "palette, two blacks": lambda: with_palette(np.where(INSIDE, 2, np.eye(60, 80)), BLACK, BLACK, RED),
    "palette, several colours": lambda: with_palette(
        np.where(INSIDE, np.arange(80) // 4 % 2 + 1, 0), BLACK, RED, WHITE
    ),
    "white RGBA": lambda: with_alpha(255, 255, 255),
    "black RGBA": lambda: with_alpha(0, 0, 0),
    "grey and alpha": lambda: with_alpha(255),
    "black and alpha": lambda: with_alpha(0),
    "half transparent": lambda: with_alpha(255, 0, 0, alpha=GREY // 2),
    "soft alpha": lambda: saved(with_alpha(0, 0, 0, alpha=np.asarray(soft())), "PNG"),
    "photo cut out": lambda: saved(cut_out(), "PNG"),
    "photo cut out, WebP": lambda: saved(cut_out(), "WEBP", lossless=True),
    "transparent GIF": transparent_gif,
    "opaque RGBA": lambda: Image.fromarray(GREY).convert("RGBA"),
}


def soft() -> Image.Image:
    """Edges that take five pixels; half covered is where the object ends."""
    return Image.fromarray(GREY).filter(ImageFilter.BoxBlur(2))


@pytest.mark.parametrize("form", FORMS)
def test_what_a_mask_shows_is_its_object(form: str, tmp_path: Path) -> None:
    image = FORMS[form]()
    inside, void = object_pixels(image, "The mask")
    corners = CORNERS if form == "soft alpha" else 0
    assert void is None and (inside != INSIDE).sum() <= corners
    assert np.array_equal(EYE.mask(image).numpy(), inside)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "images" / "a.png")
    image.save(tmp_path / "masks" / "a.tif")
    if image.format not in ("GIF", "WEBP"):  # their transparency has no TIFF
        assert np.array_equal(open_images(f"masks:{tmp_path}")[0].regions.masks[None], inside)


@pytest.mark.parametrize("quality", [5, 30, 75, 95])
@pytest.mark.parametrize("colour", ["L", "RGB"])
def test_compressed_masks_keep_their_object(quality: int, colour: str) -> None:
    image = saved(Image.fromarray(GREY).convert(colour), "JPEG", quality=quality)
    for found in (image, Image.fromarray(np.asarray(image))):  # also when it was saved as PNG later
        assert (object_pixels(found, "The mask").inside != INSIDE).mean() < 0.005
    full = saved(Image.new(colour, (80, 60), "white"), "JPEG", quality=quality)
    assert object_pixels(full, "The mask").inside.all()


@pytest.mark.parametrize("scale", [np.uint8(1), np.uint16(257)])
def test_half_covered_is_the_border(scale: np.generic) -> None:
    image = Image.fromarray(np.asarray(soft()).astype(scale.dtype) * scale)
    values = np.asarray(image) / float(255 * scale)
    for found in (image, np.asarray(image), values, values.astype(np.float32), torch.from_numpy(values)):
        inside = EYE.mask(found).numpy()
        assert (inside != INSIDE).sum() <= CORNERS and inside[10, 30] and not inside[9, 30]
    resized = Image.fromarray(GREY).resize((20, 15), Image.Resampling.BILINEAR).resize((80, 60))
    assert abs(int(EYE.mask(resized).sum()) / INSIDE.sum() - 1) < 0.03


def resized(colour: tuple[int, ...]) -> np.ndarray:
    """An object of a colour in a mask that was made smaller and larger again, which overshoots along its edges."""
    picture = Image.fromarray(np.where(INSIDE[..., None], np.uint8(colour), np.uint8(0)).squeeze())
    return np.asarray(picture.resize((40, 30), Image.Resampling.BILINEAR).resize((80, 60), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("colour", [(255,), (200,), (128,), (60,), (200, 0, 0), (0, 90, 180)])
@pytest.mark.parametrize("ending", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_half_of_the_objects_value_is_the_border(colour: tuple[int, ...], ending: str) -> None:
    sharp = Image.fromarray(np.where(INSIDE[..., None], np.uint8(colour), np.uint8(0)).squeeze())
    options = {"quality": 80} if ending != "PNG" else {}
    for picture, far in (
        (saved(sharp, ending, **options), 0.02),
        (saved(Image.fromarray(resized(colour)), ending, **options), 0.06),
    ):
        inside = object_pixels(picture, "The mask").inside
        assert (inside != INSIDE).sum() <= far * INSIDE.sum()


def test_class_numbers_and_traces_of_compression_differ_by_what_fills_the_mask() -> None:
    numbers = np.where(INSIDE, np.uint8(7), np.uint8(0))
    numbers[9, 20:50] = numbers[40, 20:50] = 255
    inside, void = object_pixels(saved(Image.fromarray(numbers), "WEBP", lossless=True), "The mask")
    assert np.array_equal(inside, INSIDE) and void is not None and void.sum() == 60
    traces = GREY.copy()
    traces[9, 20:50] = 1
    assert np.array_equal(
        object_pixels(saved(Image.fromarray(traces), "WEBP", lossless=True), "The mask").inside, INSIDE
    )
    for quality in (50, 80, 95, 100):
        image = saved(Image.fromarray(GREY), "WEBP", quality=quality)
        assert (object_pixels(image, "The mask").inside != INSIDE).sum() < 10


def test_probabilities_are_the_object_from_half_of_their_largest() -> None:
    row, col = np.mgrid[:60, :80]
    for most in (1.0, 0.75, 0.3):
        p = most / (1 + np.exp((np.hypot(row - 30, col - 40) - 15) / 2))
        p[p < 1e-3] = 0
        inside = object_pixels(p, "The mask").inside
        assert np.array_equal(inside, p >= p.max() / 2)
        assert np.array_equal(object_pixels(p.astype(np.float32), "The mask").inside, inside)


def test_numbers_of_many_objects_stay_numbers() -> None:
    numbers = np.zeros((60, 80), np.uint8)
    for number in range(40):
        numbers[6 * (number // 8) : 6 * (number // 8) + 4, 10 * (number % 8) : 10 * (number % 8) + 7] = 6 * number + 5
    numbers[58, 3:70] = 242  # the largest is a line
    for mask in (
        numbers,
        saved(Image.fromarray(numbers), "PNG"),
        saved(Image.fromarray(numbers), "WEBP", lossless=True),
    ):
        assert np.array_equal(object_pixels(mask, "The mask").inside, numbers > 0)


def test_numbers_stay_numbers() -> None:
    numbers = np.zeros((60, 80), np.uint8)
    numbers[5:20, 5:20], numbers[30:50, 5:20], numbers[30:50, 40:60] = 1, 2, 90
    numbers[0, :30] = 1  # one pixel wide
    for mask in (numbers, Image.fromarray(numbers), Image.fromarray(numbers.astype(np.uint16) * 300)):
        assert np.array_equal(object_pixels(mask, "The mask").inside, numbers > 0)
    voc = np.where(numbers == 90, 255, numbers).astype(np.uint8)
    coloured = with_palette(voc, BLACK, RED, *[(1, 2, 3)] * 253, (224, 224, 192))
    for mask in (voc, Image.fromarray(voc), saved(coloured, "PNG")):
        inside, void = object_pixels(mask, "The mask")
        assert np.array_equal(inside, (numbers > 0) & (numbers < 90))
        assert void is not None and np.array_equal(void, numbers == 90)


STRIPES = (np.arange(80) // 20 % 3)[None, :].repeat(60, axis=0)
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "trimap": (lambda: Image.fromarray(np.uint8([0, 128, 255])[STRIPES]), "grey areas between black and white"),
    "numbers with 255": (lambda: np.uint8([0, 90, 255])[STRIPES], "grey areas between black and white"),
    "no black": (lambda: Image.fromarray(np.uint8([1, 2, 3])[STRIPES]), "none of which is black"),
    "no black colour": (lambda: with_palette(STRIPES, WHITE, RED, (0, 255, 0)), "none of which is black"),
    "black palette": (lambda: with_palette(STRIPES, BLACK, BLACK, BLACK), "several black colours"),
    "transparent": (lambda: with_alpha(255, alpha=GREY * 0), "transparent everywhere"),
    "alpha or colour": (
        lambda: Image.fromarray(np.dstack([np.uint8([0, 255, 0])[STRIPES]] * 3 + [GREY])),
        "object is ambiguous",
    ),
    "negative": (lambda: STRIPES - 1, "negative"),
    "NaN": (lambda: np.where(INSIDE, np.nan, 0.0), "NaN"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(form: str) -> None:
    make, message = REFUSED[form]
    with pytest.raises(InputError, match=message):
        EYE.mask(make())  # type: ignore[arg-type]


def test_a_mask_of_another_kind_is_no_imagenet_s_mask(tmp_path: Path) -> None:
    root = tmp_path / "ImageNetS50"
    for place, name in (
        ("validation", "ILSVRC2012_val_00000001.JPEG"),
        ("validation-segmentation", "ILSVRC2012_val_00000001.png"),
    ):
        (root / place / "n01440764").mkdir(parents=True)
        Image.fromarray(INSIDE.astype(np.uint8)).save(root / place / "n01440764" / name)
    (root / "ImageNetS_categories_im50.txt").write_text("n01440764\n")
    with pytest.raises(InputError, match="not a mask of ImageNet-S"):
        _ = open_images(f"imagenet-s:{root}")[0].regions
