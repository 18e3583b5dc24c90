"""Arrays of an .npz file, read without pickle and without more memory than was allowed."""

import math
import tokenize
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from numpy.lib import format as npy

from metarl.fewshot.datasets.sources import (
    ZIP_FAULTS,
    UnreadableError,
    in_units,
    more_than,
    one_line,
    open_regular,
    shown,
)

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]

_SUFFIX = ".npy"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LONGEST_HEADER = 1 << 16  # bytes, as format (1, 0) has it; NumPy would read the 4 GiB that (2, 0) may claim
_FAULTS = (*ZIP_FAULTS, SyntaxError, tokenize.TokenError)  # the latter two from headers that cannot be parsed


def read_arrays(path: Path, max_bytes: int, names: Collection[str] | None = None) -> Arrays:
    """The arrays of an .npz file, or those of these names that it has.

    Raises:
        OSError: it cannot be opened.
        UnreadableError: it cannot be read, or not without pickle, or its arrays take more than so many bytes.
    """
    with open_regular(path) as file:
        try:
            if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise UnreadableError("it is an .npy file, a single array, under the name of an .npz file")
            with zipfile.ZipFile(file) as archive:
                return _read(archive, max_bytes, names)
        except _FAULTS as error:
            raise UnreadableError(f"{path} is not an .npz file that can be read: {one_line(error)}") from error


def _read(archive: zipfile.ZipFile, max_bytes: int, names: Collection[str] | None) -> Arrays:
    members = {
        member.filename.removesuffix(_SUFFIX): member
        for member in archive.infolist()
        if member.filename.endswith(_SUFFIX)
    }
    wanted = {name: member for name, member in members.items() if names is None or name in names}
    total = 0
    for name, member in wanted.items():
        total += (size := _size(name, archive, member))
        if total > max_bytes:
            raise UnreadableError(f"the array {shown(name)} takes {in_units(size)}; {more_than(max_bytes)}")
    arrays: dict[str, Shaped[np.ndarray, "..."]] = {}
    for name, member in wanted.items():
        with archive.open(member) as file:
            arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays


def _size(name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """The bytes that an array takes, by its header; an element counts as one at least."""
    with archive.open(member) as file:
        assert isinstance(file, zipfile.ZipExtFile), "it is opened to be read"
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"the array {shown(name)} has format {version}; plain numbers have (1, 0) or (2, 0)")
        if version == (2, 0) and (length := int.from_bytes(file.peek(4)[:4], "little")) > _LONGEST_HEADER:
            raise ValueError(f"the array {shown(name)} has a header of {in_units(length)}")
        shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError(f"the array {shown(name)} holds Python objects; only pickle reads them, and that is not safe")
    if min(shape, default=0) < 0:
        raise ValueError(f"the array {shown(name)} has shape {list(shape)}")
    return math.prod(shape) * max(dtype.itemsize, 1)
