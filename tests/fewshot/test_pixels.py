"""Every kind of image file is read faithfully, by an oracle that knows the pixels it was made from, or is refused."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarl.fewshot import datasets, pixels
from metarl.fewshot.datasets.decoding import decode
from metarl.fewshot.datasets.sources import UnreadableError
from tests.fewshot.pictures import encoded, picture, png, write

RNG = np.random.default_rng(1)
GREY = RNG.integers(256, size=(5, 7), dtype=np.uint8)
COLOUR = RNG.integers(256, size=(5, 7, 3), dtype=np.uint8)
ALPHA = RNG.integers(256, size=(5, 7), dtype=np.uint8)
WIDE = RNG.integers(2**16, size=(5, 7), dtype=np.uint16)
SIXTEEN = np.rint(WIDE / 257)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = (alpha if colour.ndim == 2 else alpha[..., None]) / 255
    return np.rint(share * colour + (1 - share) * 255)


# 16 bits


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_to_8_bits(format: str) -> None:
    np.testing.assert_array_equal(decode("x", encoded(Image.fromarray(WIDE), format)), SIXTEEN)
    ends = decode("x", encoded(Image.fromarray(np.array([[0, 128, 129, 65535]], dtype=np.uint16)), format))
    assert ends.tolist() == [[0, 0, 1, 255]]


def test_a_tiff_whose_white_is_zero_is_not_read_as_its_negative() -> None:
    np.testing.assert_array_equal(
        decode("x", encoded(Image.fromarray(65535 - WIDE), "TIFF", tiffinfo={262: 0})), SIXTEEN
    )


def test_a_tiff_of_12_bits_has_its_white_at_4095() -> None:
    values = np.array([0, 2048, 4095, 1000])
    packed = int("".join(f"{value:03x}" for value in values), 16).to_bytes(6, "big")
    tags = ((256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 6))
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(tags)) + directory + bytes(4)
    assert decode("x", content).tolist() == [np.rint(values / 4095 * 255).tolist()]


def test_16_bit_colour_has_its_upper_bytes() -> None:
    wide = RNG.integers(2**16, size=(5, 7, 3), dtype=np.uint16)
    content = png((7, 5, 16, 2), [row.astype(">u2").tobytes() for row in wide])
    np.testing.assert_array_equal(decode("x", content), wide >> 8)


def test_a_folder_of_16_bit_images_is_not_white(tmp_path: Path) -> None:
    wide = {f"class{each}/0.png": encoded(Image.fromarray(WIDE // (each + 1))) for each in range(3)}
    data = datasets.load(write(tmp_path / "wide", wide))
    np.testing.assert_array_equal(data.examples[:, 0], [np.rint((WIDE // (each + 1)) / 257) for each in range(3)])


# Transparency


def test_alpha_is_laid_over_white() -> None:
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    colour = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    for format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode("x", encoded(grey, format)), over_white(GREY, ALPHA))
        np.testing.assert_array_equal(decode("x", encoded(colour, format)), over_white(COLOUR, ALPHA))
    lossless = encoded(colour, "WEBP", lossless=True, exact=True)
    np.testing.assert_array_equal(decode("x", lossless), over_white(COLOUR, ALPHA))


def test_a_transparent_colour_is_white() -> None:
    rows = [row.tobytes() for row in COLOUR]
    content = png((7, 5, 8, 2), rows, tRNS=b"".join(struct.pack(">H", int(value)) for value in COLOUR[1, 2]))
    hidden = (COLOUR[1, 2] == COLOUR).all(-1)
    np.testing.assert_array_equal(decode("x", content), np.where(hidden[..., None], 255, COLOUR))
    wide = png((7, 5, 16, 0), [row.astype(">u2").tobytes() for row in WIDE], tRNS=struct.pack(">H", int(WIDE[3, 3])))
    np.testing.assert_array_equal(decode("x", wide), np.where(WIDE[3, 3] == WIDE, 255, SIXTEEN))


@pytest.mark.parametrize(
    ("bits", "transparent", "expected"),
    [
        (1, 0, [255, 255, 255, 255, 255, 255, 255, 255]),
        (2, 1, [0, 255, 170, 255]),
        (4, 1, [255, 187]),
        (8, 27, [255]),
        (8, 85, [27]),
    ],
)
def test_a_transparent_grey_has_the_bits_of_the_file(bits: int, transparent: int, expected: list[int]) -> None:
    content = png((8 // bits, 1, bits, 0), [bytes([0b00011011])], tRNS=struct.pack(">H", transparent))
    assert decode("x", content).tolist() == [expected]


def test_a_transparent_colour_of_16_bits_is_refused() -> None:
    rows = [bytes(7 * 6)] * 5
    with pytest.raises(UnreadableError, match="a/b.png cannot be read as an image .*transparent colour of 16 bits"):
        decode("a/b.png", png((7, 5, 16, 2), rows, tRNS=bytes(6)))


# Palettes and other colours


def test_palettes_become_colours() -> None:
    colours = RNG.integers(256, size=(16, 3), dtype=np.uint8)
    index = RNG.integers(16, size=(5, 7), dtype=np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putdata(index.reshape(-1).tolist())
    image.putpalette(colours.tobytes())
    for format in ("PNG", "BMP", "TIFF", "GIF"):
        np.testing.assert_array_equal(decode("x", encoded(image, format)), colours[index])
    alphas = RNG.integers(256, size=16, dtype=np.uint8)
    content = encoded(image, transparency=alphas.tobytes())
    np.testing.assert_array_equal(decode("x", content), over_white(colours[index], alphas[index]))
    content = encoded(image, "GIF", transparency=3)
    np.testing.assert_array_equal(decode("x", content), np.where(index[..., None] == 3, 255, colours[index]))


def test_one_bit_is_black_and_white() -> None:
    bits = GREY < 128
    for format in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(decode("x", encoded(Image.fromarray(bits), format)), np.where(bits, 255, 0))


def test_cmyk_is_read_as_inks_on_white() -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255], [51, 0, 0, 51]]])
    image = Image.frombytes("CMYK", (6, 1), inks.astype(np.uint8).tobytes())
    expected = np.rint(255 * (1 - inks[..., :3] / 255) * (1 - inks[..., 3:] / 255))
    assert np.abs(decode("x", encoded(image, "TIFF")) - expected).max() <= 1
    assert np.abs(decode("x", encoded(image.resize((48, 8), 0), "JPEG", quality=100))[4, 4::8] - expected[0]).max() <= 9


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_every_format_is_read(format: str) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
    grey = decode("x", encoded(Image.fromarray(smooth), format))
    assert np.abs((grey if grey.ndim == 2 else grey[..., 0]).astype(float) - smooth).max() <= 6
    assert grey.ndim == 2 or format in ("WEBP", "GIF")  # the one has no grey, the other may have it as a palette


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)) for value in (10, 200)]
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert np.unique(decode("x", content)).tolist() == [10]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_images_stand_upright(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {1: COLOUR, 2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 4: COLOUR[::-1], 5: COLOUR.swapaxes(0, 1)}
    turned |= {6: np.rot90(COLOUR, -1), 7: np.rot90(COLOUR, 2).swapaxes(0, 1), 8: np.rot90(COLOUR)}
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(Image.fromarray(COLOUR), format, exif=exif, **options)
    np.testing.assert_array_equal(decode("x", content), turned[orientation])


def test_broken_exif_data_are_no_reason_to_refuse_an_image() -> None:
    content = encoded(Image.fromarray(COLOUR), exif=b"Exif\0\0MM\0*\0\0\xff\xff garbage")
    np.testing.assert_array_equal(decode("x", content), COLOUR)


# What is refused


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 7), dtype=np.float32), "its pixels are floating-point numbers, .* save it as 8- or 16-bit grey"),
        (np.zeros((5, 7), dtype=np.int32), "its pixels are 32-bit integers"),
    ],
)
def test_pixels_without_a_black_and_a_white_are_refused_by_name(array: np.ndarray, message: str) -> None:
    with pytest.raises(UnreadableError, match=f"a/b.tif cannot be read as an image .{message}"):
        decode("a/b.tif", encoded(Image.fromarray(array), "TIFF"))


def test_lab_colours_are_refused_by_name() -> None:
    with pytest.raises(UnreadableError, match="a/b.tif cannot be read .*Lab colours"):
        decode("a/b.tif", encoded(Image.frombytes("LAB", (1, 1), b"123"), "TIFF"))


def broken_deflate() -> bytes:
    content = picture((30, 30))
    place = content.index(b"IDAT") + 4
    data = bytes(2) + content[place + 2 : -16]
    fresh = zlib.crc32(b"IDAT" + data).to_bytes(4, "big")
    return content[:place] + data + fresh + content[-12:]


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "b.png is empty"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "b.png is no image of the kinds PNG, .*begins with b'%!PS",
        ),
        (picture((30, 30))[:-400], "b.png cannot be read as an image"),
        (picture((30, 30), format="JPEG")[:-200], "b.png cannot be read as an image .*truncated"),
        (broken_deflate(), "b.png cannot be read as an image"),
        (flipped(picture((30, 30)), 1500), "b.png cannot be read as an image .*bad header checksum"),
        (png((30_000, 30_000, 1, 0), []), "b.png cannot be read as an image .*900000000 pixels.*decompression bomb"),
    ],
)
def test_damaged_images_are_refused_by_name_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(UnreadableError, match=message) as error:
        decode("b.png", content)
    assert "\n" not in str(error.value) and "object at 0x" not in str(error.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_whatever_happens_to_a_file_it_is_read_or_refused(format: str) -> None:
    rng, content = np.random.default_rng(0), picture((20, 20), format=format)
    for _ in range(60):
        damaged = np.frombuffer(content, dtype=np.uint8).copy()
        damaged[rng.integers(len(damaged), size=rng.integers(1, 8))] = rng.integers(256)
        try:
            decode("x", damaged[: rng.integers(1, 2 * len(damaged))].tobytes())
        except UnreadableError as error:
            assert re.fullmatch("x (cannot be read as|is no) .*", str(error))


# Arrays


def test_numbers_become_bytes() -> None:
    np.testing.assert_array_equal(pixels.as_bytes(GREY), GREY)
    for kind in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(pixels.as_bytes((GREY / 255).astype(kind)), GREY)
    for kind in (np.int64, np.uint16, np.int32):
        np.testing.assert_array_equal(pixels.as_bytes(GREY.astype(kind)), GREY)
    assert pixels.as_bytes(np.array([True, False])).tolist() == [255, 0]
    assert pixels.as_bytes(np.array([0.499 / 255, 0.501 / 255, 1.0])).tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (GREY * 1.0, "must lie in .0, 1., black to white; these are"),
        (np.array([-0.1, 1.0]), "these are -0.1 to 1"),
        (np.array([np.nan, 1.0]), "these are nan to nan"),
        (WIDE, r"must lie in 0 … 255; .*uint16.*divide by 257"),
        (np.array([-1, 255]), "these are -1 to 255"),
        (np.array([1j]), "these are complex128"),
        (np.array(["a"]), "these are <U1"),
    ],
)
def test_numbers_that_are_no_pixels_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixels.as_bytes(array)


def test_scaling_is_the_same_for_any_number_of_channels() -> None:
    by_pillow = np.asarray(Image.fromarray(COLOUR).resize((4, 3), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels.resized(COLOUR, 3, 4), by_pillow)
    np.testing.assert_array_equal(pixels.resized(COLOUR[..., 1], 3, 4), by_pillow[..., 1])
    assert pixels.resized(COLOUR, 5, 7) is COLOUR
    np.testing.assert_array_equal(
        pixels.luma(COLOUR), np.asarray(Image.open(io.BytesIO(encoded(Image.fromarray(COLOUR)))).convert("L"))
    )
