"""TensorBoard's event files, as far as scalars and texts go: pure functions from figures to bytes.

A file is a sequence of records, and a record holds one `Event` in the protocol-buffer wire format (fields of
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto and summary.proto).
Written here because TensorBoard's own writer costs its import at every start and queues events in a thread, where a
kill loses them; TensorBoard's reader is the oracle in the tests.
"""

import struct
from collections.abc import Mapping

_TENSORS = 2  # DataClass.DATA_CLASS_TENSOR
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def header(wall_time: float) -> bytes:
    """The record every file begins with. `wall_time`: seconds since 1970, here and below."""
    return _record(_event(wall_time, 0) + _bytes(3, b"brain.Event:2"))


def purge(wall_time: float, step: int) -> bytes:
    """A session starts at `step`: TensorBoard forgets what earlier files say of it and of later steps."""
    start = _field(1, _VARINT) + _varint(1)  # SessionLog.status = START
    return _record(_event(wall_time, step) + _bytes(7, start))


def scalars(wall_time: float, step: int, figures: Mapping[str, float]) -> bytes:
    """The figures of a step; TensorBoard keeps them in single precision."""
    values = b"".join(_bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in figures.items())
    return _record(_event(wall_time, step) + _bytes(5, values))


def texts(wall_time: float, notes: Mapping[str, str]) -> bytes:
    """Notes in Markdown by their tags, for the tab of texts."""
    metadata = _bytes(1, _bytes(1, b"text")) + _field(4, _VARINT) + _varint(_TENSORS)
    values = b"".join(
        _bytes(1, _bytes(1, name.encode()) + _bytes(9, metadata) + _bytes(8, _strings(note)))
        for name, note in notes.items()
    )
    return _record(_event(wall_time, 0) + _bytes(5, values))


def _strings(text: str) -> bytes:
    """A TensorProto of one text, with the shape [1]."""
    kind, shape = _field(1, _VARINT) + _varint(7), _bytes(2, _bytes(2, _field(1, _VARINT) + _varint(1)))
    return kind + shape + _bytes(8, text.encode(errors="backslashreplace"))  # paths may be no UTF-8


def crc32c(content: bytes) -> int:
    """The Castagnoli checksum (RFC 3720, appendix B.4).

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder = _TABLE[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    return remainder ^ 0xFFFFFFFF


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = tuple(_table_entry(byte) for byte in range(256))


def _record(payload: bytes) -> bytes:
    """TFRecord: the length, its checksum, the payload, its checksum."""
    length = struct.pack("<Q", len(payload))
    return length + _masked(length) + payload + _masked(payload)


def _masked(content: bytes) -> bytes:
    """A checksum, rotated and shifted: checksums of data that hold checksums would be weak."""
    checksum = crc32c(content)
    return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _event(wall_time: float, step: int) -> bytes:
    return _field(1, _FIXED64) + struct.pack("<d", wall_time) + _field(2, _VARINT) + _varint(step)


def _field(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _bytes(number: int, content: bytes) -> bytes:
    return _field(number, _BYTES) + _varint(len(content)) + content


def _float(number: int, value: float) -> bytes:
    try:
        single = struct.pack("<f", value)
    except OverflowError:  # beyond single precision
        single = struct.pack("<f", float("inf") if value > 0 else float("-inf"))
    return _field(number, _FIXED32) + single


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow. Not negative."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
