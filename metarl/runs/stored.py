"""A learner's store on the disk: each chunk is written once, so a checkpoint costs what is new.

A chunk is `store/<number>.safetensors`; `checkpoints/<step>/state.json` says which are its own.
"""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import final

from metarl import checks
from metarl.errors import RunError
from metarl.learning.store import Chunk, Store
from metarl.runs import files, tensors
from metarl.runs.files import write_atomically, writing
from metarl.runs.tensors import BrokenCheckpointError

_SUFFIX = ".safetensors"


@final
@dataclasses.dataclass(frozen=True)
class StoreRecord:
    """Which chunks a checkpoint's store has."""

    first: int
    """The number of its first chunk."""
    sha256: tuple[str, ...]
    """The checksum of each chunk's file, in order."""

    def __post_init__(self) -> None:
        checks.at_least(0, first=self.first)

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.first + len(self.sha256)


@final
class StoreFolder:
    """The chunks in a folder, and which of them are known to stand there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[int, tuple[Chunk, str]] = {}  # by number: the chunk and its file's checksum

    def write(self, store: Store) -> StoreRecord:
        """Writes the chunks that are new.

        Raises:
            DiskFullError, RunError: a file could not be written.
            ValueError: a chunk is another than the one that was written under its number.
        """
        if store.chunks:
            with writing(self._folder):
                files.make_folder(self._folder)
        checksums = tuple(self._write(number, chunk) for number, chunk in enumerate(store.chunks, store.dropped))
        self._known = {number: known for number, known in self._known.items() if number >= store.dropped}
        return StoreRecord(store.dropped, checksums)

    def read(self, record: StoreRecord) -> Store:
        """The store that a checkpoint says it has.

        Raises:
            BrokenCheckpointError: a chunk is missing or damaged.
        """
        read = {number: self._read(number, sha256) for number, sha256 in enumerate(record.sha256, record.first)}
        self._known = {number: (chunk, record.sha256[number - record.first]) for number, chunk in read.items()}
        return Store(tuple(read.values()), record.first)

    def keep(self, records: Iterable[StoreRecord]) -> None:
        """Deletes all chunks that none of these checkpoints has: dropped ones, and those of a killed process."""
        kept = tuple(records)
        for number in self._numbers():
            if not any(number in record for record in kept):
                files.remove(self._path(number))

    def _write(self, number: int, chunk: Chunk) -> str:
        known = self._known.get(number)
        if known is not None and known[0] is chunk:
            return known[1]
        content = tensors.encode(chunk, {"order": json.dumps(list(chunk))})
        sha256 = tensors.digest(content)
        if known is None:
            write_atomically(self._path(number), content)
        elif known[1] != sha256:
            raise ValueError(f"a store only grows at its end, but its chunk {number} is not the one that was saved")
        self._known[number] = chunk, sha256
        return sha256

    def _read(self, number: int, sha256: str) -> Chunk:
        path = self._path(number)
        try:
            files.need_folder(self._folder)
        except OSError as error:
            raise BrokenCheckpointError(f"{path} cannot be read: {files.reason(error)}") from error
        content, chunk = tensors.read(path, sha256)
        try:
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            order = json.loads(header["__metadata__"]["order"])
            return tensors.in_order(chunk, tuple(map(str, order)), path)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BrokenCheckpointError(f"{path} cannot be read: it does not say the order of its tensors") from error

    def _numbers(self) -> tuple[int, ...]:
        """Those that have a file."""
        try:
            files.need_folder(self._folder)
            stems = [name.removesuffix(_SUFFIX) for name in os.listdir(self._folder) if name.endswith(_SUFFIX)]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise RunError(f"{self._folder} cannot be opened: {files.reason(error)}") from error
        return files.numbers(stems)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}{_SUFFIX}"
