"""Pixels as data sets hold them, 8-bit grey or RGB: what each kind of image becomes, and which kinds are refused.

    1 bit                   black 0, white 255
    8-bit grey, RGB         as it is; a palette and YCbCr (JFIF) become RGB
    grey of b > 8 bits      round(255 v / (2ᵇ − 1)); of 16 bits: round(v / 257)
    16-bit colour           the upper byte of each channel, which is all that Pillow decodes
    transparency            over white, round(α c + (1 − α) 255): an alpha channel, a palette's, a transparent colour
    CMYK                    R = 255 (1 − C)(1 − K), G and B alike: device colours, without a colour profile
    animation, pages        the first
    Exif orientation        upright
    floats, 32 bits, Lab    refused: the file does not say which number is black and which is white

Colour becomes grey by Rec. 601's luma, 0.299 R + 0.587 G + 0.114 B; grey becomes colour as three equal channels. Images
are scaled by antialiased bilinear interpolation, height and width each for itself.
"""

import struct

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin

_MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA", "PA": "RGBA"}
_MODES |= {"P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N")  # unsigned grey of more than 8 bits, by byte order
_REFUSED = {"F": "floating-point numbers", "I": "32-bit integers", "LAB": "Lab colours", "HSV": "HSV colours"}


def from_pil(image: Image.Image) -> UInt8[np.ndarray, "height width *rgb"]:
    """A grey image [height, width] or an RGB image [height, width, 3].

    Raises:
        ValueError: its mode cannot be read faithfully.
    """
    transparent = _transparent_colour(image)
    image.load()  # before Exif data are looked for: a fault in the pixels is no fault of theirs
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in _WIDE or (image.mode == "I" and image.format == "PNG"):  # the latter before Pillow 11
        return _from_wide(image)
    if image.mode not in _MODES:
        kind = _REFUSED.get(image.mode, f"of Pillow's mode {image.mode}")
        raise ValueError(
            f"its pixels are {kind}, without a fixed black and white; save it as 8- or 16-bit grey, or RGB"
        )
    mode = "RGBA" if image.mode == "P" and image.has_transparency_data else _MODES[image.mode]
    pixels = np.asarray(image.convert(mode))
    if mode == "LA":
        return _over_white(pixels[..., 0], pixels[..., 1])
    if mode == "RGBA":
        return _over_white(pixels[..., :3], pixels[..., 3])
    if transparent is not None:
        hidden = (pixels.reshape(*pixels.shape[:2], -1) == transparent).all(axis=-1)
        return _over_white(pixels, np.where(hidden, np.uint8(0), np.uint8(255)))
    return pixels


def as_bytes(values: Shaped[np.ndarray, "*any"]) -> UInt8[np.ndarray, "*any"]:
    """Pixels of an array: real numbers in [0, 1] become round(255 v), booleans 0 and 255; integers in 0 … 255 stay.

    Raises:
        ValueError: values of another kind or range.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    real, integer = np.issubdtype(values.dtype, np.floating), np.issubdtype(values.dtype, np.integer)
    if not (real or integer):
        raise ValueError(f"images must be uint8, or real numbers in [0, 1]; these are {values.dtype}")
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if real and not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(f"images of real numbers must lie in [0, 1], black to white; these are {low:g} to {high:g}")
    if integer and not (low >= 0 and high <= 255):
        wide = "; of 16 bits: divide by 257" if values.dtype == np.uint16 else ""
        raise ValueError(f"images of integers must lie in 0 … 255; these are {low} to {high} ({values.dtype}){wide}")
    return np.rint(values * 255.0).astype(np.uint8) if real else values.astype(np.uint8)


def resized(
    pixels: UInt8[np.ndarray, "height width *channel"], height: int, width: int
) -> UInt8[np.ndarray, "new_height new_width *channel"]:
    """Scaled to another size, px; it may have any number of channels."""
    if pixels.shape[:2] == (height, width):
        return pixels
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    scaled = [
        np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((width, height), Image.Resampling.BILINEAR))
        for channel in np.moveaxis(channels, -1, 0)
    ]
    return scaled[0] if pixels.ndim == 2 else np.stack(scaled, axis=-1)


def luma(pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width"]:
    """Grey of an RGB image, by Rec. 601."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))


def _orientation(image: Image.Image) -> int:
    """1 where it is upright. Exif data that cannot be read turn nothing: viewers show such an image as it is stored."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1


def _transparent_colour(image: Image.Image) -> tuple[int, ...] | None:
    """The one colour of a grey or an RGB image that is transparent, as its decoded pixels have it.

    PNG has it with as many bits as the file's pixels, and Pillow leaves it so where it widens pixels to 8 bits. The
    file's own format is known until it is decoded.

    Raises:
        ValueError: a 16-bit colour: of the pixels there are only the upper bytes.
    """
    colour = image.info.get("transparency")
    if colour is None or image.mode not in ("1", "L", "RGB"):
        return None
    stored = image.tile[0][3] if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    if image.mode == "RGB":
        if stored == "RGB;16B" or max(colour) > 255:
            raise ValueError("it has a transparent colour of 16 bits; save it with an alpha channel, or with 8 bits")
        return tuple(colour)
    if image.mode == "1":
        return (255 if colour else 0,)
    return (colour * {"L;2": 85, "L;4": 17}.get(str(stored), 1),)


def _from_wide(image: Image.Image) -> UInt8[np.ndarray, "height width"]:
    """Grey of 16 bits, or of as many as a TIFF file says; that its white is zero Pillow leaves to its caller."""
    bits, inverted = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (bits,))[0]
        inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    values = np.asarray(image)
    pixels = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
    hidden = values == image.info.get("transparency", -1)
    return _over_white(255 - pixels if inverted else pixels, np.where(hidden, np.uint8(0), np.uint8(255)))


def _over_white(
    colour: UInt8[np.ndarray, "height width *rgb"], alpha: UInt8[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width *rgb"]:
    """round(α c + (1 − α) 255), α = alpha / 255."""
    opaque = (alpha if colour.ndim == 2 else alpha[..., None]).astype(np.uint32)
    return ((opaque * colour + (255 - opaque) * 255 + 127) // 255).astype(np.uint8)
