"""Photos of every kind come out as upright RGB; what is no photo is refused with a clear sentence."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from caap_lab.errors import InputError
from caap_lab.models.images import _has_16_bits, check_photo, load_image


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Smooth colours, so that lossy formats change little."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = columns * 255 // width, rows * 255 // height
    return Image.fromarray(np.stack([red, green, 255 - red], axis=-1).astype(np.uint8))


def largest_difference(first: Image.Image, second: Image.Image) -> int:
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and has almost no pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def test_rgb_file_and_object_are_taken_as_they_are(tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    for source in (tmp_path / "photo.png", str(tmp_path / "photo.png"), picture()):
        image = load_image(source)
        assert image.mode == "RGB"
        assert largest_difference(image, picture()) == 0


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBA", "LA", "La", "RGBa", "PA"])
def test_colour_modes(mode: str) -> None:
    via = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode)
    source = picture().convert(via).convert(mode) if via else picture().convert(mode)
    image = load_image(source)
    assert (image.mode, image.size) == ("RGB", (40, 24))
    reference = picture().convert("L").convert("RGB") if mode in ("L", "LA", "La") else picture()
    if mode not in ("1", "P", "PA"):
        assert largest_difference(image, reference) <= 8
    assert source.mode == mode


def test_cmyk_jpeg(tmp_path: Path) -> None:
    picture().convert("CMYK").save(tmp_path / "print.jpg", quality=100, subsampling=0)
    with Image.open(tmp_path / "print.jpg") as stored:
        assert stored.mode == "CMYK"
    assert largest_difference(load_image(tmp_path / "print.jpg"), picture()) <= 12


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, ending: str) -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(grey).save(tmp_path / f"scan.{ending}")
    image = np.asarray(load_image(tmp_path / f"scan.{ending}"))
    assert (image == np.arange(256).reshape(16, 16, 1)).all()


def test_thirty_two_bit_grey_is_refused() -> None:
    for array in (np.full((8, 8), 70000, dtype=np.int32), np.full((8, 8), 0.5, dtype=np.float32)):
        with pytest.raises(InputError, match="white level is not defined"):
            load_image(Image.fromarray(array))


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half.paste((200, 0, 0, 255), (0, 0, 4, 8))
    image = np.asarray(load_image(half))
    assert (image[:, :4] == (200, 0, 0)).all() and (image[:, 4:] == 255).all()

    indexed = Image.new("P", (8, 8), 0)
    indexed.putpalette([0, 0, 0, 9, 9, 9])
    indexed.save(tmp_path / "icon.gif", transparency=0)
    assert (np.asarray(load_image(tmp_path / "icon.gif")) == 255).all()
    indexed.save(tmp_path / "icon.png", transparency=b"\x00\xff")
    assert (np.asarray(load_image(tmp_path / "icon.png")) == 255).all()

    deep = Image.fromarray(np.full((8, 8), 1000, dtype=np.uint16))
    deep.save(tmp_path / "deep.png", transparency=1000)
    assert (np.asarray(load_image(tmp_path / "deep.png")) == 255).all()


@pytest.mark.parametrize("white", [4095, 65535])
@pytest.mark.parametrize("most", [255, 4095, 65535])
def test_colours_of_16_bits_are_scaled_or_refused(tmp_path: Path, white: int, most: int) -> None:
    if most > white:
        return
    values = (np.asarray(picture(), dtype=np.uint32) * most // 255).astype(">u2")
    (tmp_path / "deep.ppm").write_bytes(b"P6\n40 24\n%d\n" % white + values.tobytes())
    if white == 65535 > most:
        with pytest.raises(InputError, match="stored with 16 bits but reaches only"):
            load_image(tmp_path / "deep.ppm")
    else:  # a file that says how many bits it uses may be dark
        scaled = Image.fromarray(np.round(np.asarray(picture()) * (most / white)).astype(np.uint8))
        assert largest_difference(load_image(tmp_path / "deep.ppm"), scaled) <= 1


def test_dark_pictures_of_few_bits_are_no_deep_ones(tmp_path: Path) -> None:
    dark = Image.fromarray(np.asarray(picture()) // 4)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    header = struct.pack("<IiiHHIIiiII", 40, 40, -24, 1, 16, 3, 40 * 24 * 2, 0, 0, 0, 0)
    red, green, blue = (np.asarray(dark)[..., channel].astype("<u2") for channel in range(3))
    pixels = ((red >> 3) << 11 | (green >> 2) << 5 | blue >> 3).astype("<u2").tobytes()
    start = 14 + len(header) + len(masks)
    file = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + masks + pixels
    (tmp_path / "dark.bmp").write_bytes(file)
    assert largest_difference(load_image(tmp_path / "dark.bmp"), dark) <= 8


def test_16_bits_are_seen_in_the_header_of_jpeg_2000(tmp_path: Path) -> None:
    picture().save(tmp_path / "plain.jp2", irreversible=False)
    stored = (tmp_path / "plain.jp2").read_bytes()
    assert largest_difference(load_image(tmp_path / "plain.jp2"), picture()) == 0
    place = stored.index(b"\xff\x4f\xff\x51") + 4 + 38
    for bits in (8, 12, 16):
        (tmp_path / "deep.jp2").write_bytes(stored[:place] + bytes([bits - 1]) + stored[place + 1 :])
        with Image.open(tmp_path / "deep.jp2") as image:
            assert _has_16_bits(image) == (bits == 16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture().save(tmp_path / "phone.png", exif=exif)
    image = load_image(tmp_path / "phone.png")
    assert image.size == ((24, 40) if orientation > 4 else (40, 24))
    assert largest_difference(image, ImageOps.exif_transpose(Image.open(tmp_path / "phone.png"))) == 0
    assert largest_difference(image, load_image(image)) == 0, "loading twice must not rotate twice"


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.jpg", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xffgarbage", quality=100)
    assert load_image(tmp_path / "photo.jpg").size == (40, 24)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert (np.asarray(load_image(tmp_path / "film.gif")) == (255, 0, 0)).all()


def test_a_given_image_is_not_changed() -> None:
    source = picture().convert("RGBA")
    before = source.tobytes()
    load_image(source).putpixel((0, 0), (1, 2, 3))
    assert source.tobytes() == before
    rgb = picture()
    load_image(rgb).putpixel((0, 0), (1, 2, 3))
    assert largest_difference(rgb, picture()) == 0


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"There is no image file .*gone\.png"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match="is a URL"):
        load_image("https://example.org/cat.jpg")
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)
    for name in ("notes.jpg", "empty.png"):
        with pytest.raises(InputError, match="not an image in a format"):
            load_image(tmp_path / name)
    with pytest.raises(InputError, match="not int"):
        load_image(3)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated_files_are_refused(tmp_path: Path, ending: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, format={"jpg": "jpeg", "tif": "tiff"}.get(ending, ending))
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole.getvalue()[: int(share * len(whole.getvalue()))])
    with pytest.raises(InputError, match=r"truncated or damaged|not an image|cannot be read"):
        load_image(path)


def test_bombs_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    (tmp_path / "bomb.png").write_bytes(png_header(20_000, 20_000))
    with pytest.raises(InputError, match=r"400,000,000 pixels.*178,956,970"):
        load_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"40 x 24 = 960 pixels.* 200 "):
        load_image(picture())


@pytest.mark.slow
def test_a_large_photo_needs_no_warning(tmp_path: Path) -> None:
    Image.new("RGB", (12_000, 8_000), "teal").save(tmp_path / "large.jpg", quality=30)
    assert load_image(tmp_path / "large.jpg").size == (12_000, 8_000)


def test_large_photos_pass_between_warning_and_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "photo.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 24 - 1)  # pytest turns Pillow's warning into an error
    assert load_image(tmp_path / "photo.png").size == (40, 24)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load_image(tmp_path / "photo.png").size == (40, 24)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1)])
def test_one_pixel_wide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="which is too small"):
        load_image(Image.new("RGB", size))


def test_extreme_aspect_ratio_is_refused() -> None:
    assert load_image(Image.new("RGB", (500, 10))).size == (500, 10)
    with pytest.raises(InputError, match="thinner than 1 : 50"):
        load_image(Image.new("RGB", (10, 501)))


def test_real_greyscale_photo(shared: Path) -> None:
    seen = set()
    for path in (shared / "images" / "imagenet-samples").glob("*.JPEG"):
        with Image.open(path) as image:
            seen.add(image.mode)
        assert load_image(path).mode == "RGB"
    assert "L" in seen


def test_32_bit_pixels_that_hold_8_bit_values_keep_them() -> None:
    image = Image.fromarray(np.full((20, 20), 200, dtype=np.int32))
    assert image.mode == "I" and np.asarray(load_image(image)).mean() == 200


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("bits", [10, 12, 14, 15])
def test_grey_of_some_bits_in_16_is_refused(tmp_path: Path, bits: int, ending: str) -> None:
    values = np.linspace(0, 2**bits - 1, 400).reshape(20, 20).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"scan.{ending}")
    with pytest.raises(InputError, match="of white, so it would look dark"):
        load_image(tmp_path / f"scan.{ending}")
    Image.fromarray(values << (16 - bits)).save(tmp_path / f"scan.{ending}")
    assert np.asarray(load_image(tmp_path / f"scan.{ending}")).max() >= 254


def test_16_bit_grey_that_holds_8_bit_values_keeps_them(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "depth.png")
    assert (np.asarray(load_image(tmp_path / "depth.png"))[..., 0] == values).all()


def colour_png_of_16_bits(values: np.ndarray) -> bytes:
    """Pillow reads these and cannot write them."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    pieces = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in pieces)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_colours_of_some_bits_in_16_are_refused(tmp_path: Path) -> None:
    for brightest in (255, 4095, 32767):
        (tmp_path / "a.png").write_bytes(colour_png_of_16_bits(np.full((8, 8, 3), brightest)))
        with pytest.raises(InputError, match="stored with 16 bits"):
            load_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(colour_png_of_16_bits(np.full((8, 8, 3), 200 * 257)))
    assert (np.asarray(load_image(tmp_path / "a.png")) == 200).all()


def test_pipes_and_dangling_links_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("gone.png")
    for call in (load_image, check_photo):
        with pytest.raises(InputError, match=r"a.png is a pipe or a device"):
            call(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"b.png is a link to gone.png, which does not exist"):
            call(tmp_path / "b.png")
    with pytest.raises(InputError, match="/dev/zero is a pipe or a device"):
        load_image("/dev/zero")
