"""Video files from pictures, by ffmpeg: MP4 (H.264, yuv420p: it plays in browsers) and GIF."""

import contextlib
import errno
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8

from metarl.runs.files import replacing, writing

Picture = UInt8[np.ndarray, "height width 3"]
FORMATS = {
    ".mp4": ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart"],
    # A palette of the video's own colours; a GIF counts time in 1/100 s, and few viewers show more than 25 pictures/s.
    ".gif": [
        "-filter_complex",
        "fps=min(source_fps\\,25),split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse",
    ],
}
"""What ffmpeg is told, by the file's suffix."""


def check_name(path: Path) -> None:
    """Raises ValueError for a name that ends in no format of ours."""
    if path.suffix not in FORMATS:
        raise ValueError(f"a video's name ends in {' or '.join(FORMATS)}, got {path.name}")


@contextlib.contextmanager
def writer(path: Path, size: tuple[int, int], fps: float) -> Iterator[Callable[[Picture], None]]:
    """A function that appends a frame; the file gets its name once it is whole.

    ffmpeg is run here rather than by imageio: that does not look at its exit status, and a full disk is often met only
    when the index is written at the end.

    Args:
        path: ends in `.mp4` or `.gif`; its folder exists.
        size: width and height in pixels, even for MP4.
        fps: pictures a second.

    Raises:
        ValueError: another suffix.
        DiskFullError: there is no room for the file.
        RunError: it cannot be written.
    """
    check_name(path)
    with replacing(path) as temporary, writing(path):
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", f"{fps:g}", "-i", "-"]
        # Of a name with a colon, ffmpeg would take what stands before it for a protocol.
        target = [*FORMATS[path.suffix], "-f", path.suffix[1:], f"file:{temporary}"]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, *target]
        pipe = subprocess.PIPE
        # A session of its own, so that Ctrl-C reaches this program only.
        with subprocess.Popen(command, stdin=pipe, stderr=pipe, start_new_session=True) as ffmpeg:
            assert ffmpeg.stdin is not None
            try:
                # Where ffmpeg is gone, its own words say more than a broken pipe.
                with contextlib.suppress(BrokenPipeError):
                    yield functools.partial(_append, ffmpeg.stdin)
            except BaseException:
                # On Ctrl-C, Popen itself waits no more than a moment; ffmpeg could yet write its file.
                ffmpeg.kill()
                ffmpeg.wait()
                with contextlib.suppress(BrokenPipeError):
                    ffmpeg.stdin.close()
                raise
            complaint = ffmpeg.communicate()[1].decode(errors="replace").strip()
        if ffmpeg.returncode != 0:
            code = errno.ENOSPC if os.strerror(errno.ENOSPC) in complaint else errno.EIO
            raise OSError(code, complaint.rpartition("\n")[2] or f"ffmpeg failed ({ffmpeg.returncode})")


def first_frame(content: bytes) -> bytes:
    """The first frame of an MP4 as a JPEG, at most 480 pixels wide.

    Videos may be a stranger's: ffmpeg is told their format and that nothing but this file may be opened, so that none
    is taken for a list of other files.

    Raises:
        ValueError: it is no MP4, a damaged one, or there is no ffmpeg to look.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        source = ["-protocol_whitelist", "file", "-f", "mov", "-i", f"file:{file.name}"]
        picture = ["-frames:v", "1", "-vf", "scale=min(480\\,iw):-2", "-c:v", "mjpeg", "-q:v", "6"]
        try:
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-threads", "1", *source, *picture]
        except RuntimeError as error:
            raise ValueError("cannot be looked into: there is no ffmpeg") from error
        command += ["-f", "image2pipe", "-"]
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if found.returncode != 0 or not found.stdout:
        raise ValueError("is no MP4, or a damaged one")
    return found.stdout


def _append(stream: IO[bytes], picture: Picture) -> None:
    stream.write(picture.tobytes())
