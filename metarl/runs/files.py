"""Files in folders that may come from strangers, written such that a kill, a power cut or a full disk at any moment
leaves either the old content or the new.

Nothing is read or written through a link, and nothing that is no regular file: a link would reach other files of the
user, a pipe or a device would never end. What is being written has an unpredictable name that nobody could have taken
before, and is locked meanwhile, so that whoever cleans up can tell what is left over from what is being written.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from metarl.errors import DiskFullError, RunError

TEMPORARY = ".tmp-"
"""Names that begin so are half-written, see `clean_up`."""
MAX_BYTES = 4 << 30
"""The largest file that is read as a whole, unless the reader says less: 4 GiB."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GUARDED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not through a link; do not wait for a pipe's other end


class UnsafeFileError(OSError):
    """A link, or no regular file, where one of a run's files should be; the message says which."""


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
        raise RunError(f"could not write {path}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """What the operating system says, or what is wrong with the file."""
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, and none is followed here"
    return error.strerror or str(error)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by a file with this content, synced; afterwards, or after a crash, it is the old or the new one.

    Of several that write it at once, one wins.

    Raises:
        DiskFullError: no room; `path` is as it was and nothing else is left behind.
        RunError: any other fault of the operating system, or `path` is a link or no regular file.
    """
    with _replacing(path) as (descriptor, _), writing(path):
        write_all(descriptor, content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path` to be filled in the block, by this process or another; then it takes its place.

    If the block raises, or if the file cannot be put in place, `path` is as it was and nothing else is left behind.

    Raises:
        DiskFullError, RunError: as `write_atomically`.
    """
    with _replacing(path) as (_, temporary):
        yield temporary


def temporary_beside(path: Path) -> Path:
    """An unpredictable name for what will be `path`, with the same suffix."""
    suffix = path.suffix if path.suffix.isascii() and len(path.suffix) < 16 else ""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{suffix}")


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that must not be there yet, and waits until it is on the disk.

    Raises:
        OSError: from the operating system; part of the file may exist.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _GUARDED, 0o666)
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


def open_to_append(path: Path) -> int:
    """A descriptor at the end of a file, made where it is missing.

    A file that has other names too (hard links) is copied first, so that what is appended shows under this name alone.

    Raises:
        OSError: from the operating system; UnsafeFileError for a link or no regular file.
        RunError: the copy could not be written.
    """
    need_regular(path, missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _GUARDED, 0o666)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        write_atomically(path, read_bytes(path))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | _GUARDED)
    return descriptor


def open_lock(path: Path) -> int:
    """A descriptor of a file to be locked, made where it is missing.

    Raises:
        OSError: from the operating system; UnsafeFileError for a link, no regular file, or one with other names too.
    """
    need_regular(path, missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _GUARDED, 0o666)
    if os.fstat(descriptor).st_nlink > 1:  # what is written into it would show there, too
        os.close(descriptor)
        raise UnsafeFileError("it has another name (a hard link); delete it")
    return descriptor


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read; UnsafeFileError for a link, no regular file, or a larger one.
    """
    need_regular(path)  # before it is opened: to open a device may do something already
    descriptor = os.open(path, os.O_RDONLY | _GUARDED)
    try:
        status = os.fstat(descriptor)
        _need_regular(status)
        if status.st_size > limit:
            raise UnsafeFileError(f"it has {status.st_size} bytes, the limit is {limit}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def need_regular(path: Path, *, missing_ok: bool = False) -> None:
    """Checks that this name is a regular file's.

    Raises:
        OSError: it is not there (unless that is fine) or cannot be looked at; UnsafeFileError for anything else.
    """
    try:
        _need_regular(os.lstat(path))
    except FileNotFoundError:
        if not missing_ok:
            raise


def need_folder(path: Path) -> None:
    """Checks that this name is a folder's, and no link to one.

    Raises:
        OSError: it is not there or cannot be looked at; UnsafeFileError for anything else.
    """
    mode = os.lstat(path).st_mode
    if not stat.S_ISDIR(mode):
        raise UnsafeFileError("it is a symbolic link, and none is followed here" if stat.S_ISLNK(mode) else "no folder")


def make_folder(path: Path) -> None:
    """Creates a folder, durably, where it is missing; its parent is there.

    Raises:
        OSError: it cannot be made; UnsafeFileError where something else has its name.
    """
    try:
        os.mkdir(path)
    except FileExistsError:
        need_folder(path)
    else:
        sync_folder(path.parent)


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
    """Deletes a file, a link or a folder with all it holds, if it is there; best effort, for cleaning up."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def clean_up(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder. Files that are being written at this moment stay.

    Half-written folders are removed too: call it while holding the lock of whoever writes folders here.
    """
    try:
        need_folder(folder)
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name.startswith(TEMPORARY):
            _remove_left_over(folder / name)


def as_text(name: str) -> str:
    r"""A file's name for JSON and pages: what of it is no UTF-8 is escaped, and no locale makes a difference.

    >>> as_text("ice"), as_text(os.fsdecode(b"ice\xff"))
    ('ice', 'ice\\xff')
    """
    try:
        return os.fsencode(name).decode(errors="backslashreplace")
    except UnicodeEncodeError:  # no file could be called so
        return name.encode(errors="backslashreplace").decode()


def numbers(names: Iterable[str]) -> tuple[int, ...]:
    """Those of the names that are whole numbers as Python prints them, ascending."""
    return tuple(sorted(int(name) for name in names if name.isascii() and name.isdigit() and str(int(name)) == name))


def encode_json(value: Mapping[str, object]) -> bytes:
    """JSON for people to read: indented, one line end at the end.

    Raises:
        ValueError: a NaN or an infinity or anything else that JSON does not have, or text that is no UTF-8 (as file
            names may be).
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise ValueError(str(error)) from error
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        part = text[max(0, error.start - 40) : error.end + 40].encode(errors="backslashreplace").decode()
        raise ValueError(f"JSON holds UTF-8 only, and this is none: {part!r}") from None


def _need_regular(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise UnsafeFileError("it is a symbolic link, and none is followed here")
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFileError("it is not a regular file")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[tuple[int, Path]]:
    """As `replacing`, with the file's descriptor."""
    with writing(path):
        need_regular(path, missing_ok=True)
        descriptor, temporary = _create_temporary(path)
    try:
        yield descriptor, temporary
        with writing(path):
            os.fsync(descriptor)
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        remove(temporary)
        raise
    finally:
        os.close(descriptor)


def _create_temporary(path: Path) -> tuple[int, Path]:
    """An empty file beside `path`, locked as long as the descriptor is open."""
    while True:
        temporary = temporary_beside(path)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _GUARDED, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor, temporary
        os.close(descriptor)  # somebody who cleaned up was quicker than the lock


def _remove_left_over(path: Path) -> None:
    """Removes what nobody holds the lock of; a file whose lock cannot be asked for stays."""
    try:
        need_regular(path)
        descriptor = os.open(path, os.O_RDONLY | _GUARDED)
    except OSError:  # a link or a folder, say
        remove(path)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)  # with the lock held: a writer that comes for it now starts anew
    except OSError:
        return
    finally:
        os.close(descriptor)
