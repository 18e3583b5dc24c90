"""Where data sets lie, whether their files are the right ones, and where decoded images are kept for the next start."""

import dataclasses
import hashlib
import io
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Shaped

from metarl.errors import RunError, UsageError, warn
from metarl.runs.files import TEMPORARY, remove, write_atomically, writing
from metarl.tasks import Json, content_hash

ROOT_VARIABLE = "METARL_DATA"
"""The environment variable that names the folder of all data sets."""

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


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


def fetch(url: str, path: Path, accepted: tuple[str, ...]) -> None:
    """Downloads a file, verifies it, and only then gives it its name.

    Raises:
        RunError: there is no way to it, or it could not be written.
        UsageError: what came is another file.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The address is one of ours, not the user's.
        with urllib.request.urlopen(url, timeout=30) as response, writing(path), temporary.open("wb") as file:
            shutil.copyfileobj(response, file)
        verify(temporary, accepted)
        with writing(path):
            os.replace(temporary, path)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise RunError(
            f"could not download {url} ({reason}); is there a network? Otherwise put the file at {path}"
        ) from error
    finally:
        remove(temporary)


def cache_folder() -> Path:
    """Where decoded images are kept: `$XDG_CACHE_HOME/metarl`, or `~/.cache/metarl`. It may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarl"


def cached(name: str, key: Json, make: Callable[[], Arrays]) -> Arrays:
    """The arrays of an earlier call with this key, or those that `make` makes now.

    The file is an .npz without pickle: its own checksums show damage, and a damaged one is made anew.
    """
    path = cache_folder() / f"{name}-{content_hash(key)}.npz"
    try:
        return read_arrays(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        warn(f"{path} is damaged ({error}); decoding the images again")
    arrays = make()
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            own = path.with_name(f"{os.getpid()}-{path.name}")  # another process may be at it, too
            write_atomically(own, content.getvalue())
            os.replace(own, path)
    except RunError as error:  # the next start decodes again
        warn(str(error))
    return arrays


def read_arrays(path: Path) -> Arrays:
    """All arrays of an .npz file.

    Raises:
        OSError, ValueError, EOFError, zipfile.BadZipFile: it cannot be read, or not without pickle.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
