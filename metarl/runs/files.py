"""Writing files so that a kill, a power cut or a full disk at any moment leaves either the old content or the new."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from metarl.errors import DiskFullError, RunError
from metarl.tasks import Json

TEMPORARY = ".tmp-"
"""Names that begin so are half-written: whoever finds one while holding the run's lock may delete it."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's errors into one line that names the file.

    Raises:
        DiskFullError: no room, or the quota or file size limit is reached.
        RunError: any other fault.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFullError(
                f"no room to write {path} ({error.strerror}); what was saved before is safe: "
                "free some space and run the same command again"
            ) from error
        raise RunError(f"could not write {path}: {error.strerror or error}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by a file with this content, synced; afterwards, or after a crash, it is the old or the new one.

    Raises:
        DiskFullError: no room; `path` is as it was and nothing else is left behind.
        RunError: any other fault of the operating system.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with writing(path):
        try:
            write_synced(temporary, content)
            os.replace(temporary, path)
        except OSError:
            remove(temporary)
            raise
        sync_folder(path.parent)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk.

    Raises:
        OSError: from the operating system; part of the file may exist.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """`os.write` until everything is written: one call may take only a part of it."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable; a file system that cannot sync folders is left to its own ways."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Deletes a file or a folder with all it holds, if it is there; best effort, for cleaning up after a fault."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def encode_json(value: Mapping[str, Json]) -> bytes:
    """JSON for people to read: indented, one line end at the end.

    Raises:
        ValueError: a NaN or an infinity, which JSON does not have.
    """
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> dict[str, Json]:
    """The JSON object in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8 or not strict JSON (no NaN), or not an object at its top.
    """
    try:
        value = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")
