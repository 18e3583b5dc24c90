"""Where data sets lie, whether their files are the right ones, and where decoded images are kept for the next start."""

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import os
import re
import secrets
import stat
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, final

import numpy as np

from metarl.errors import RunError, UsageError, warn
from metarl.fewshot.datasets.npz import Arrays, read_arrays
from metarl.fewshot.datasets.sources import UnreadableError
from metarl.runs.files import TEMPORARY, remove, sync_folder, writing
from metarl.tasks import Json, content_hash

ROOT_VARIABLE = "METARL_DATA"
"""The environment variable that names the folder of all data sets."""

MOST_DOWNLOADED = 1 << 30
"""Bytes of a download; the largest file that is fetched has a sixth of it."""
LONGEST_DOWNLOAD = 3600.0
"""s."""
_LEFTOVER = re.compile(re.escape(TEMPORARY) + "[0-9a-f]{32}-.")
_CHUNK = 2**20  # bytes


@final
@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file of a published data set."""

    path: str
    """Below the data root."""
    checksums: tuple[str, ...]
    """What its content may be, each as `md5:...` or `sha256:...`."""
    url: str = ""
    """Where it is published; nowhere to be had without asking, if empty."""

    def find(self, root: Path, *, download: bool) -> Path:
        """The file, once its checksum is verified; fetched first where it is missing and that was asked for.

        Raises:
            UsageError: it is missing (the message says where to put it), or it is another file.
            RunError: it could not be fetched.
        """
        path = root / self.path
        if not path.is_file():
            if not (download and self.url):
                raise UsageError(self._missing(path))
            fetch(self.url, path, self.checksums)
        verify(path, self.checksums)
        return path

    def _missing(self, path: Path) -> str:
        source = f" (from {self.url}), or add --download" if self.url else ""
        return f"{path} is missing: put {path.name} there{source}; --data-root or {ROOT_VARIABLE} names the data root"


def data_root(given: Path | None = None) -> Path:
    """The folder of all data sets: the one given, or METARL_DATA, or `data` where the program runs."""
    return given or Path(os.environ.get(ROOT_VARIABLE) or "data")


def existing_data_root(given: Path | None = None, *, download: bool = False) -> Path:
    """The folder of all data sets; a download makes it.

    Raises:
        UsageError: it was named, by the argument or METARL_DATA, and is no folder.
    """
    root = data_root(given)
    named = "--data-root" if given else ROOT_VARIABLE if os.environ.get(ROOT_VARIABLE) else ""
    try:
        is_folder = stat.S_ISDIR(os.stat(root).st_mode)
    except FileNotFoundError:
        if named and not download:
            raise UsageError(f"there is no folder {root}, which {named} names as the data root") from None
        return root
    except OSError as error:
        raise UsageError(f"the data root {root} cannot be read ({error.strerror})") from error
    if not is_folder:
        raise UsageError(f"the data root {root} is not a folder")
    return root


def verify(path: Path, accepted: tuple[str, ...]) -> None:
    """Raises UsageError unless the file's checksum is one of those accepted."""
    found = {_checksum(path, algorithm) for algorithm in {each.partition(":")[0] for each in accepted}}
    if not found & set(accepted):
        raise UsageError(
            f"{path} has checksum {', '.join(sorted(found))}, which should be {' or '.join(accepted)}: "
            "it is damaged or another file; replace it"
        )


def _checksum(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as file:
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error


def fetch(
    url: str,
    path: Path,
    accepted: tuple[str, ...],
    *,
    max_bytes: int = MOST_DOWNLOADED,
    max_seconds: float = LONGEST_DOWNLOAD,
) -> None:
    """Downloads a file, verifies it, and only then gives it its name.

    Raises:
        RunError: there is no way to it, it is larger or takes longer than allowed, or it could not be written.
        UsageError: what came is another file.
    """
    received, until = 0, time.monotonic() + max_seconds
    by_hand = f"put the file at {path} by hand"
    try:
        # The address is one of ours, not the user's.
        with urllib.request.urlopen(url, timeout=30) as response, replacing(path) as file:
            while chunk := response.read1(_CHUNK):  # as soon as something came: a server that drips is noticed, too
                received += len(chunk)
                if received > max_bytes:
                    raise RunError(f"{url} sends more than {max_bytes} bytes, the most of a download; {by_hand}")
                if time.monotonic() > until:
                    raise RunError(f"{url} sent {received} bytes in {max_seconds:g} s, which is too slow; {by_hand}")
                with writing(path):
                    file.write(chunk)
            if missing := response.length:
                raise RunError(f"{url} ended {missing} bytes too early; the same command tries again")
            with writing(path):
                file.flush()
            verify(Path(file.name), accepted)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise RunError(
            f"could not download {url} ({reason}); is there a network? Otherwise put the file at {path}"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` at the end, synced, or leaves nothing behind where an exception ends it.

    Its name until then is drawn by chance, so that two writers of one file never share it. It is locked while it is
    written: so one that a killed writer left can be told from one that is still written, and the next writer in the
    same folder deletes it.

    Raises:
        RunError: it could not be made, synced or renamed.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        file = _locked(path)
    try:
        yield file
        with writing(path):
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
            file.close()
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # what is still in its buffer may not fit, either
            file.close()
        remove(Path(file.name))
        raise


def _locked(path: Path) -> BinaryIO:
    while True:
        file = path.with_name(f"{TEMPORARY}{secrets.token_hex(16)}-{path.name}").open("xb")
        with contextlib.suppress(OSError):  # a file system without locks: leftovers there are not told apart, so stay
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another writer took it for a leftover, between its making and its locking


def _remove_leftovers(folder: Path) -> None:
    """Deletes what killed writers left: temporary files that nobody has locked."""
    for name in os.listdir(folder):
        if not _LEFTOVER.match(name):
            continue
        with contextlib.suppress(OSError), (folder / name).open("r+b") as file:  # locked or gone: it is another's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(folder / name)


def cache_folder() -> Path:
    """Where decoded images are kept: `$XDG_CACHE_HOME/metarl`, or `~/.cache/metarl`. It may be deleted at any time.

    Raises:
        RuntimeError: neither variable is set, and the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarl"


def cached(name: str, key: Json, make: Callable[[], Arrays], *, what: str = "decoded images") -> Arrays:
    """The arrays of an earlier call with this key, or those that `make` makes now.

    Args:
        what: what they are called in warnings.

    The file is an .npz without pickle: its own checksums show damage, and a damaged one is made anew. One that cannot
    be written costs a warning, and the next start makes them again.
    """
    try:
        path = cache_folder() / f"{name}-{content_hash(key)}.npz"
    except RuntimeError:
        warn(f"{what} are not kept for the next start: there is no home folder; set HOME or XDG_CACHE_HOME")
        return make()
    try:
        return read_arrays(path, os.stat(path).st_size)  # it is not compressed, so that its arrays are no larger
    except OSError:
        pass  # there is none, or no way to it, which writing it says, too
    except UnreadableError as error:
        warn(f"{error}; making the {what} again")
    arrays = make()
    try:
        with replacing(path) as file, writing(path):
            np.savez(file, allow_pickle=False, **arrays)
    except RunError as error:
        warn(f"{what} are not kept for the next start: {error}")
    return arrays
