"""Where the images of a data set lie, a folder or a zip: which files are images, which are not, which cannot be read.

Nothing is passed over in silence. What is no image by its name (hidden files, other suffixes, folders without images)
is *ignored*, which the caller says in one line; what should be an image and cannot be read is a *fault*: an error,
unless the user has asked to go on without it.
"""

import collections
import contextlib
import dataclasses
import hashlib
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, final

from metarl.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
LIMIT_VARIABLE = "METARL_MAX_BYTES"
"""The environment variable that raises or lowers the limit on what is read and decompressed."""
_SYSTEM_NAMES = ("thumbs.db", "desktop.ini", "__macosx")
_KINDS_SHOWN = 6
_EMPTY = "folders without images"
_DEEPEST = 20  # folders in folders

Files = Mapping[str, Callable[[], bytes]]
"""Images by their path, with `/`, and what reads them; that may raise UnreadableError."""

ZIP_FAULTS = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What reading a zip or a member of it raises: damaged, encrypted (RuntimeError), compressed in an unknown way."""


class UnreadableError(ValueError):
    """One file cannot be read; the message is one line that names it."""


class Ignored(NamedTuple):
    """A file or a folder that is no image."""

    kind: str
    """Such as "hidden" or ".txt"."""
    name: str


@final
@dataclasses.dataclass
class Listing:
    """What a folder or a zip holds."""

    files: dict[str, Callable[[], bytes]] = dataclasses.field(default_factory=dict)
    """`Files`."""
    ignored: list[Ignored] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    """One line for each thing that should be an image, or a folder of them, and cannot be."""

    def ignored_line(self) -> str:
        """What was ignored: counts by kind with an example each; empty where there is nothing."""
        if not self.ignored:
            return ""
        kinds = collections.defaultdict[str, list[str]](list)
        for each in self.ignored:
            kinds[each.kind].append(each.name)
        order = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
        parts = [
            f"{len(kinds[kind])} {shown(kind)} ({shown(min(kinds[kind]))}{', ...' if len(kinds[kind]) > 1 else ''})"
            for kind in order[:_KINDS_SHOWN]
        ]
        if rest := order[_KINDS_SHOWN:]:
            parts.append(f"{sum(len(kinds[kind]) for kind in rest)} of {len(rest)} more kinds")
        return f"left out {len(self.ignored)} that are no images ({', '.join(SUFFIXES)}): {', '.join(parts)}"


# A folder


def in_folder(path: Path, max_bytes: int) -> Listing:
    """The images below a folder; links to files and folders are followed."""
    listing = Listing()
    _walk(listing, path, "", (), max_bytes)
    return listing


def _walk(listing: Listing, folder: Path, inside: str, above: tuple[tuple[int, int], ...], max_bytes: int) -> bool:
    """Adds what is below a folder; whether there are images or faults. `above` are the folders that it is in."""
    try:
        own = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as error:
        listing.faults.append(f"{shown(inside or str(folder))} cannot be read ({error.strerror})")
        return True
    if len(above) > _DEEPEST:
        listing.faults.append(
            f"{shown(inside)} lies too deep: images are expected in folder/class or folder/split/class"
        )
        return True
    identity = (own.st_dev, own.st_ino)
    if identity in above:
        listing.faults.append(f"{shown(inside)} is a link that leads back to a folder above it")
        return True
    found = False
    for name in names:
        path, place = folder / name, f"{inside}/{name}" if inside else name
        if kind := _ignored_kind(name):
            listing.ignored.append(Ignored(kind, place))
            continue
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            reason = "is a link that leads nowhere" if path.is_symlink() else "cannot be read"
            listing.faults.append(f"{shown(place)} {reason} ({error.strerror})")
            found = True
            continue
        if stat.S_ISDIR(mode):
            before = len(listing.ignored)
            if _walk(listing, path, place, (*above, identity), max_bytes):
                found = True
            else:
                inner = [each for each in listing.ignored[before:] if each.kind != _EMPTY]
                listing.ignored[before:] = [*inner, Ignored(_EMPTY, place)]
        elif kind := _other_kind(name):
            listing.ignored.append(Ignored(kind, place))
        else:
            found = True
            if stat.S_ISREG(mode):
                listing.files[place] = _file_reader(path, place, max_bytes)
            else:
                listing.faults.append(f"{shown(place)} is {file_kind(mode)}, not a file")
    return found


def _file_reader(path: Path, name: str, max_bytes: int) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with open_regular(path) as file:
                if (size := os.fstat(file.fileno()).st_size) > max_bytes:
                    raise UnreadableError(f"{shown(name)} has {in_units(size)}; {more_than(max_bytes)}")
                return file.read()
        except OSError as error:
            raise UnreadableError(f"{shown(name)} cannot be read ({error.strerror or error})") from error

    return read


def open_regular(path: Path) -> BinaryIO:
    """A file to read.

    Raises:
        OSError: it cannot be opened, or is a FIFO, a device, ...; a FIFO that nobody writes to does not block.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(f"it is {file_kind(mode)}, not a file")
    return os.fdopen(descriptor, "rb")


def file_kind(mode: int) -> str:
    """What something is that is neither a file nor a folder, by its `st_mode`."""
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "a folder" if stat.S_ISDIR(mode) else "something else")


# A zip


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to read.

    Raises:
        OSError: there is no such file, or no way to it.
        UsageError: it is no zip, or damaged.
    """
    with open_regular(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except ZIP_FAULTS as error:
            raise UsageError(f"{path} is neither a folder nor a zip that can be read ({one_line(error)})") from error
        with archive:
            yield archive


def in_zip(archive: zipfile.ZipFile, max_bytes: int) -> Listing:
    """The images of a zip, to be read while it is open.

    Raises:
        ValueError: they would take more than so many bytes when decompressed.
    """
    listing, folders, total = Listing(), list[str](), 0
    for member in archive.infolist():
        name = member.filename
        kinds = [kind for part in PurePosixPath(name).parts if (kind := _ignored_kind(part))]
        if kinds:
            listing.ignored.append(Ignored(kinds[0], name))
        elif member.is_dir():
            folders.append(name)
        elif kind := _other_kind(name):
            listing.ignored.append(Ignored(kind, name))
        elif name in listing.files:
            listing.faults.append(f"{shown(name)} is in the zip more than once")
        else:
            total += member.file_size
            listing.files[name] = _member_reader(archive, member)
    if total > max_bytes:
        raise ValueError(f"its images take {in_units(total)} when decompressed; {more_than(max_bytes)}")
    holding = {folder for name in listing.files for folder in PurePosixPath(name).parents}
    empty = {folder for name in folders if (folder := PurePosixPath(name)) not in holding}
    topmost = sorted(str(folder) for folder in empty if empty.isdisjoint(folder.parents))
    listing.ignored += [Ignored(_EMPTY, name) for name in topmost]
    return listing


def _member_reader(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return archive.read(member)
        except ZIP_FAULTS as error:
            raise UnreadableError(
                f"{shown(member.filename)} cannot be read from the zip ({one_line(error)})"
            ) from error

    return read


# Both


def digest(files: Files) -> str:
    """A checksum of names and contents; what cannot be read counts as such."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0".encode(errors="surrogateescape"))
        try:
            total.update(hashlib.sha256(files[name]()).digest())
        except UnreadableError:  # whoever decodes it says so
            total.update(b"unreadable")
    return total.hexdigest()


def _ignored_kind(name: str) -> str:
    """Why a name is ignored, be it a file's or a folder's; empty where it is not."""
    if name.lower() in _SYSTEM_NAMES:
        return name
    return "hidden" if name.startswith(".") else ""


def _other_kind(name: str) -> str:
    """The kind of a file that is no image by its suffix; empty for an image."""
    suffix = PurePosixPath(name).suffix
    return "" if suffix.lower() in SUFFIXES else suffix or "without a suffix"


def shown(name: str) -> str:
    """A file's name for a message: line ends and bytes that are no text are escaped."""
    return name if name.isprintable() else ascii(name)


def one_line(error: Exception) -> str:
    """An error's message without line ends; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def in_units(size: int) -> str:
    """A number of bytes: "3.2 MiB"."""
    value, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}" if size >= 1024 else f"{size} bytes"


def more_than(max_bytes: int) -> str:
    """The end of a message about something that is larger than the limit."""
    return f"the limit is {in_units(max_bytes)}: raise max_bytes, or {LIMIT_VARIABLE}, if so much is meant"


def default_max_bytes() -> int:
    """The limit on what is read and decompressed: of the environment variable, or 4 GiB.

    It belongs to the machine, not to an experiment, and so is no option that a run would remember.

    Raises:
        UsageError: the variable is no positive whole number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return 4 << 30
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
        raise UsageError(f"{LIMIT_VARIABLE} must be a number of bytes, at least 1, got {text!r}")
    return int(text)
