"""Tensors in safetensors files: no pickle, checksums, and what a learner expects of them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from metarl.errors import RunError
from metarl.learning.protocols import Parameters, State
from metarl.runs import files
from metarl.runs.decoding import unreadable

GREATEST = 1e18
"""Parameters beyond it, squared, are beyond single precision: no network computes with them."""


class BrokenCheckpointError(RunError):
    """A checkpoint is damaged, or another learner's or run's; the message names the file and what is wrong with it."""


@final
@dataclasses.dataclass(frozen=True)
class TensorFile:
    """What is known of a file of tensors besides its content."""

    sha256: str
    order: tuple[str, ...]
    """The tensors' names: the format sorts them, but sums depend on the order."""


def encode(tensors: Parameters, metadata: Mapping[str, str] | None = None) -> bytes:
    """Named tensors in the safetensors format."""
    # A copy each: the format refuses tensors that share memory, as views of one flat vector do.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(copies, metadata=None if metadata is None else dict(metadata))


def digest(content: bytes) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read(path: Path, sha256: str, limit: int = files.MAX_BYTES) -> tuple[bytes, dict[str, Tensor]]:
    """The content of a file and the tensors in it, each in memory of its own, aligned as tensors never saved are.

    Raises:
        BrokenCheckpointError: the file is missing, larger than `limit` bytes, or not what `sha256` says.
    """
    try:
        content = files.read_bytes(path, limit)
        if digest(content) != sha256:
            raise ValueError("it is damaged (its checksum differs)")
        return content, {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
    except (OSError, ValueError) as error:
        raise BrokenCheckpointError(f"{path} {unreadable(error)}") from error
    except (SafetensorError, KeyError, RuntimeError, OverflowError) as error:
        raise BrokenCheckpointError(f"{path} cannot be read: {' '.join(str(error).split())[:120]}") from error


def in_order(tensors: Parameters, order: tuple[str, ...], path: Path) -> dict[str, Tensor]:
    """The tensors in the order in which they were saved.

    Raises:
        BrokenCheckpointError: these are other tensors.
    """
    if sorted(order) != sorted(tensors):
        raise BrokenCheckpointError(f"{path} cannot be read: it holds other tensors than its record says")
    return {name: tensors[name] for name in order}


def check_structure(state: State, expected: State, where: str | Path) -> None:
    """Checks names, shapes and types of all tensors, but those of the store.

    Raises:
        BrokenCheckpointError: the first that differs, in one line.
    """
    parts = (("parameter", state.parameters, expected.parameters), ("optimizer", state.optimizer, expected.optimizer))
    for what, found, wanted in parts:
        for name in (*wanted, *found):
            if name not in found:
                raise BrokenCheckpointError(f"{where}: {what} {name!r} is missing, the learner has it")
            if name not in wanted:
                raise BrokenCheckpointError(f"{where}: {what} {name!r} is there, the learner has none of that name")
            for aspect, one, other in (
                ("shape", list(found[name].shape), list(wanted[name].shape)),
                ("type", _type_name(found[name]), _type_name(wanted[name])),
            ):
                if one != other:
                    raise BrokenCheckpointError(
                        f"{where}: {what} {name!r} has the {aspect} {one}, in the learner {other}"
                    )


def check_values(state: State, where: str | Path) -> None:
    """Checks that a learner could have come to these parameters and this optimiser's state.

    Raises:
        BrokenCheckpointError: the first tensor that is not finite, or parameter that is beyond `GREATEST`.
    """
    for what, tensors in (("parameter", state.parameters), ("optimizer", state.optimizer)):
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise BrokenCheckpointError(f"{where}: {what} {name!r} holds values that are not finite")
            if what == "parameter" and tensor.is_floating_point() and tensor.numel() > 0:
                greatest = float(tensor.abs().max())
                if greatest > GREATEST:
                    raise BrokenCheckpointError(f"{where}: {what} {name!r} holds {greatest:g}, absurdly much")


def check_state(state: State, expected: State, where: str | Path) -> None:
    """Checks a loaded state against what the learner expects: names, shapes, types, and that values are finite.

    Args:
        state: as it was loaded.
        expected: the learner's `init`, on any device.
        where: the checkpoint, for the message.

    Raises:
        BrokenCheckpointError: what differs first, in one line.
    """
    check_structure(state, expected, where)
    check_values(state, where)


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def num_bytes(tensors: Parameters) -> int:
    """What tensors take in memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
