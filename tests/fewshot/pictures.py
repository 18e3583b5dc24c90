"""Small image files for the tests of data sets."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RNG = np.random.default_rng(0)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """An image as the content of a file."""
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def picture(size: tuple[int, int] = (8, 8), mode: str = "RGB", format: str = "PNG") -> bytes:
    """Noise, grey or in colour."""
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    return encoded(Image.fromarray(RNG.integers(256, size=shape, dtype=np.uint8)), format)


def png(header: tuple[int, int, int, int], rows: list[bytes], **chunks: bytes) -> bytes:
    """A PNG file written by hand: (width, height, bits, colour type), packed rows, and further chunks by name."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))]
    parts += [chunk(name.encode(), content) for name, content in chunks.items()]
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Files by their path below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """A zip of files."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def one_line(error: "pytest.ExceptionInfo[Exception]") -> bool:
    """Whether a message is one."""
    return "\n" not in str(error.value)


FIVE = {f"class{number}/{each}.png": picture() for number in range(5) for each in range(3)}
"""Five classes of three images."""
