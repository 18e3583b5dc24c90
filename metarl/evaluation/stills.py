"""Still pictures: their font, and PNGs that carry a description for those who cannot see them."""

import functools
import io
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageFont
from PIL.PngImagePlugin import PngInfo

_DESCRIPTION = "Description"
"""The keyword that PNG has for it."""


def png(picture: Image.Image, about: str) -> bytes:
    """The picture with what it shows in words."""
    words, content = PngInfo(), io.BytesIO()
    words.add_itxt(_DESCRIPTION, about)
    picture.save(content, "png", pnginfo=words, optimize=True)
    return content.getvalue()


def description(content: bytes) -> str:
    """What a PNG says of itself in words; nothing where it says nothing.

    Raises:
        ValueError: it is no PNG.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as found:
            return str(found.info.get(_DESCRIPTION, ""))
    except (OSError, SyntaxError) as error:  # Pillow's, for what is none and for what is broken
        raise ValueError("is no PNG, or a damaged one") from error


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, from matplotlib: machines without a screen often have no font at all."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
