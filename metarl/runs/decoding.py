"""JSON decoded strictly into records, and records written as JSON that comes back the same.

A record is a frozen dataclass of anybody's. Its fields may be booleans, numbers, text, Literals, enums, paths, tuples,
lists, mappings from text, other records, and unions of these. Every field must stand in the JSON, nothing else may, and
no value is turned into another type (but whole numbers where a float is asked for). Of a union with several records,
and of a field whose records come from a registry (`OpenKind`), the JSON says in `type` which one it is. What is refused
is named in one line: the file, the place in it, what is wrong.
"""

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, final

import msgspec

from metarl.checks import ADDED
from metarl.errors import RunError
from metarl.runs import files

MAX_BYTES = 64 << 20
"""The largest JSON file that is read: 64 MiB."""
MAX_DEPTH = 32
"""How deep JSON may be nested."""
MAX_INTEGER = (1 << 63) - 1
"""The greatest whole number, as in most other languages."""
TYPE = "type"
"""The field that says which of several records one is."""

Record = TypeVar("Record")


@final
@dataclasses.dataclass(frozen=True)
class OpenKind:
    """How records of a registry are named, for fields whose type is a Protocol: encoders' options, say."""

    id_of: Callable[..., str]
    """The id of a record; ValueError where its type has none."""
    type_of: Callable[[str], type]
    """The record type of an id; ValueError where there is none."""


OpenKinds = Mapping[object, OpenKind]
"""By the type that such fields are annotated with."""
_CLOSED: OpenKinds = types.MappingProxyType({})
_ANYTHING: tuple[object, ...] = (object, Any)


def decode(kind: type[Record], path: Path, *, format: int | None = None) -> Record:
    """The record in a JSON file.

    Args:
        kind: the record's type.
        path: a regular file of at most `MAX_BYTES`.
        format: what its field `format` must be.

    Raises:
        RunError: the file is missing, cannot be read, or holds something else.
    """
    try:
        value = read_object(path)
        if format is not None:
            check_format(value, format)
        return cast(Record, _read(kind, value, "$", _CLOSED))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} {unreadable(error)}") from error


def read_object(path: Path) -> dict[str, object]:
    """The JSON object in a file.

    Raises:
        OSError: the file cannot be read, is no regular file or too large.
        ValueError: it is not UTF-8, not strict JSON (no NaN), nested too deeply, or not an object at its top.
    """
    content = files.read_bytes(path, MAX_BYTES)
    try:
        value = msgspec.json.decode(content)
    except RecursionError:
        raise ValueError(f"JSON nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    check_json(value)
    return cast(dict[str, object], value)


def check_format(value: Mapping[str, object], format: int) -> None:
    """Raises ValueError where the field `format` has another number: a file of another version."""
    version = value.get("format")
    if type(version) is not int:
        raise ValueError("it has no format number")
    if version != format:
        raise ValueError(f"another version of metarl wrote it: format {version}, this one reads format {format}")


def unreadable(error: OSError | ValueError) -> str:
    """What is wrong with a file, to be read after its name."""
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, OSError):
        return f"cannot be read: {files.reason(error)}"
    return f"cannot be read: {' '.join(str(error).split())[:300]}"


def options_from_json(
    kind: type[Record], value: object, where: str | Path, *, at: str = "$", open_kinds: OpenKinds = _CLOSED
) -> Record:
    """A record of options as `options_to_json` writes it.

    Args:
        kind: the record's type.
        value: the JSON.
        where: the file that it stands in, for messages.
        at: its place in that file: `$.experiment.options.learner`.
        open_kinds: how the records of registries are named.

    Raises:
        RunError: it is not a record of this kind.
    """
    try:
        check_json(value, at)
        return cast(Record, _read(kind, value, at, open_kinds))
    except ValueError as error:
        raise RunError(f"{where} {unreadable(error)}") from error


def options_to_json(options: object, *, open_kinds: OpenKinds = _CLOSED) -> dict[str, object]:
    """A record of options as JSON, defaults written out.

    Raises:
        ValueError: a field is not finite, or of a type that JSON would not give back.
    """
    kind = type(options)
    value = _write(kind, options, "$", open_kinds)
    check_json(value)
    try:
        same = _read(kind, value, "$", open_kinds) == options
    except ValueError as error:
        raise ValueError(f"{kind.__name__} cannot be written as JSON: {error}") from error
    if not same or not isinstance(value, dict):
        raise ValueError(f"{kind.__name__} would not come back from JSON as it is: {options}")
    return cast(dict[str, object], value)


def check_json(value: object, at: str = "$") -> None:
    """Checks that a value is JSON that everybody can read: finite, not too large, not too deep, text that is UTF-8.

    Raises:
        ValueError: it is not; the message names the place.
    """
    containers: list[tuple[object, str, int]] = [([value], "", 0)]
    while containers:
        container, path, depth = containers.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"JSON nested deeper than {MAX_DEPTH} levels")
        for key, item in _items(container):
            place = at if depth == 0 else _step(path, key)
            if isinstance(item, dict | list):
                containers.append((item, place, depth + 1))
            elif fault := _scalar_fault(item):
                raise ValueError(f"{place}: {fault}")
            if isinstance(key, str) and (fault := _scalar_fault(key)):
                raise ValueError(f"{path}: {fault}")


def _items(container: object) -> Iterator[tuple[str | int, object]]:
    return iter(container.items()) if isinstance(container, dict) else enumerate(cast(list[object], container))


def _step(path: str, key: str | int) -> str:
    return f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"


def _scalar_fault(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be finite, got {value}"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "whole numbers must be between -(2**63 - 1) and 2**63 - 1"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"text must be UTF-8, got {value.encode(errors='backslashreplace').decode()[:80]!r}"
    if value is not None and not isinstance(value, bool | int | float | str):
        return f"{type(value).__name__} is not JSON"
    return ""


def _read(kind: object, value: object, at: str, open_kinds: OpenKinds) -> object:
    """A JSON value as a value of a type. ValueError names the place and what is wrong."""
    if kind in _ANYTHING:
        return value
    if kind in open_kinds:
        name, rest = _typed(value, at)
        try:
            chosen = open_kinds[kind].type_of(name)
        except ValueError as error:
            raise ValueError(f"{at}.{TYPE}: {error}") from error
        return _read_record(chosen, rest, at, open_kinds)
    if dataclasses.is_dataclass(kind):
        return _read_record(cast(type, kind), value, at, open_kinds)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, at, open_kinds)
    if kind is Path:
        return Path(cast(str, _leaf(str, value, at)))
    if origin is tuple and arguments and not _is_leaf(kind, open_kinds):
        items = _leaf(list, value, at)
        assert isinstance(items, list)
        each = arguments[:1] * len(items) if arguments[1:] == (...,) else arguments
        if len(each) != len(items):
            raise ValueError(f"{at}: expected {len(each)} entries, got {len(items)}")
        pairs = enumerate(zip(each, items, strict=True))
        return tuple(_read(one, item, f"{at}[{n}]", open_kinds) for n, (one, item) in pairs)
    if origin is Sequence or (origin is list and not _is_leaf(kind, open_kinds)):
        items = _read(tuple[arguments[0], ...], value, at, open_kinds)
        assert isinstance(items, tuple)
        return list(items) if origin is list else items
    if origin in (dict, Mapping):
        items = _leaf(dict, value, at)
        assert isinstance(items, dict)
        return {name: _read(arguments[1], item, f"{at}.{name}", open_kinds) for name, item in items.items()}
    return _leaf(kind, value, at)


def _read_record(kind: type, value: object, at: str, open_kinds: OpenKinds) -> object:
    items, hints = _leaf(dict, value, at), _field_types(kind)
    assert isinstance(items, dict)
    items = {**_added(kind), **items}
    if unknown := [name for name in items if name not in hints]:
        raise ValueError(f"{at}: unknown field {str(unknown[0])!r}; there are {', '.join(hints)}")
    if missing := [name for name in hints if name not in items]:
        raise ValueError(f"{at}: field {missing[0]!r} is missing")
    values = {name: _read(hint, items[name], f"{at}.{name}", open_kinds) for name, hint in hints.items()}
    try:
        return kind(**values)
    except Exception as error:  # whatever the record's own checks make of values from a file
        raise ValueError(f"{at}: {error}") from error


def _read_union(kinds: Sequence[object], value: object, at: str, open_kinds: OpenKinds) -> object:
    if value is None and types.NoneType in kinds:
        return None
    records = _records(kinds)
    others = [kind for kind in kinds if not dataclasses.is_dataclass(kind) and kind is not types.NoneType]
    if isinstance(value, dict) and len(records) == 1 and not any(kind in open_kinds for kind in others):
        return _read_record(records[0], value, at, open_kinds)
    if isinstance(value, dict) and records:
        name, rest = _typed(value, at)
        by_name = {kind.__name__: kind for kind in records}
        if name not in by_name:
            raise ValueError(f"{at}.{TYPE}: expected one of {', '.join(by_name)}, got {name!r}")
        return _read_record(by_name[name], rest, at, open_kinds)
    if not others:
        raise ValueError(f"{at}: expected an object, got {_name_of(value)}")
    if len(others) == 1:
        return _read(others[0], value, at, open_kinds)
    return _leaf(typing.Union[tuple(others)], value, at)  # noqa: UP007  # of as many as there are


def _typed(value: object, at: str) -> tuple[str, dict[str, object]]:
    """What an object says that it is, and the rest of it."""
    items = _leaf(dict, value, at)
    assert isinstance(items, dict)
    if not isinstance(name := items.get(TYPE), str):
        raise ValueError(f"{at}: the field {TYPE!r} must say which it is")
    return name, {key: item for key, item in items.items() if key != TYPE}


def _leaf(kind: object, value: object, at: str) -> object:
    """A value of a type that msgspec knows."""
    try:
        return msgspec.convert(value, cast(type[object], kind), strict=True)
    except msgspec.ValidationError as error:
        what, _, inner = str(error).replace("`", "").partition(" - at $")
        raise ValueError(f"{at}{inner}: {what[0].lower()}{what[1:]}") from None
    except (TypeError, RecursionError) as error:
        raise ValueError(f"{at}: no JSON has the type {kind} ({error})") from error


def _write(kind: object, value: object, at: str, open_kinds: OpenKinds) -> object:
    """A value as JSON; its declared type says whether a record is to be named."""
    members = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints, added = _field_types(type(value)), _added(type(value))
        fields = {
            name: _write(hint, getattr(value, name), f"{at}.{name}", open_kinds)
            for name, hint in hints.items()
            if name not in added or getattr(value, name) != added[name]
        }
        registries = [open_kinds[member] for member in members if member in open_kinds]
        if registries and type(value) not in members:
            return _named(registries[0].id_of(value), fields, at)
        return _named(type(value).__name__, fields, at) if len(_records(members)) > 1 else fields
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        kinds = _entry_types(members, len(value))
        pairs = enumerate(zip(kinds, value, strict=True))
        return [_write(one, item, f"{at}[{n}]", open_kinds) for n, (one, item) in pairs]
    if isinstance(value, Mapping):
        (_, each) = next((typing.get_args(member) for member in members if typing.get_args(member)), (str, object))
        return {str(name): _write(each, item, f"{at}.{name}", open_kinds) for name, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{at}: {type(value).__name__} cannot be written as JSON")


def _named(name: str, fields: dict[str, object], at: str) -> dict[str, object]:
    if TYPE in fields:
        raise ValueError(f"{at}: a record that is one of several cannot have a field {TYPE!r}")
    return {TYPE: name, **fields}


def _entry_types(kinds: Sequence[object], count: int) -> Sequence[object]:
    """The declared types of a sequence's entries."""
    for kind in kinds:
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) in (list, Sequence) or (arguments[1:] == (...,)):
            return arguments[:1] * count
        if typing.get_origin(kind) is tuple and len(arguments) == count:
            return arguments
    return (object,) * count


def _field_types(kind: type) -> dict[str, object]:
    """The types of a record's fields that its constructor takes, by name."""
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, AttributeError) as error:
        raise ValueError(f"the types of {kind.__name__}'s fields cannot be resolved: {error}") from error
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _added(kind: type) -> dict[str, object]:
    """The fields that runs of earlier revisions do not have, with their values there: see `metarl.checks.ADDED`."""
    return {field.name: field.default for field in dataclasses.fields(kind) if field.metadata == ADDED}


def _records(kinds: Sequence[object]) -> list[type]:
    return [cast(type, kind) for kind in kinds if dataclasses.is_dataclass(kind)]


def _is_leaf(kind: object, open_kinds: OpenKinds) -> bool:
    """Whether msgspec can decode a type by itself: nothing in it is a record, a path or open."""
    if not isinstance(kind, Hashable):  # as the arguments of a Callable: msgspec says that it knows none
        return True
    if kind in open_kinds or kind in _ANYTHING or kind is Path or dataclasses.is_dataclass(kind):
        return False
    return all(_is_leaf(argument, open_kinds) for argument in typing.get_args(kind) if argument is not ...)


def _name_of(value: object) -> str:
    return {type(None): "null", dict: "an object", list: "an array", str: "text"}.get(type(value), str(value)[:40])
