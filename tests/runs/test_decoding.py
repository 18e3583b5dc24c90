"""JSON into records and back, for records of anybody's."""

import copy
import dataclasses
import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import pytest

from metarl import checks
from metarl.errors import RunError
from metarl.runs import decoding
from metarl.runs.decoding import MAX_DEPTH, OpenKind, OpenKinds, decode, options_from_json, options_to_json


class EncoderConfig(Protocol):
    def build(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Conv:
    filters: int = 64

    def build(self) -> int:
        return self.filters


@dataclasses.dataclass(frozen=True)
class Mlp:
    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        if not self.hidden:
            raise ValueError("hidden needs at least one layer")

    def build(self) -> int:
        return self.hidden[-1]


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Options:
    """Everything that a learner's options may hold."""

    rate: float = 1
    steps: int = 3
    flag: bool = False
    mode: Literal["auto", "loop"] | None = "auto"
    colour: Colour = Colour.RED
    size: Annotated[tuple[float, float], "a tyro marker"] = (1.0, 0.5)
    names: Sequence[str] = ("a",)
    folder: Path | None = Path("data")
    one: Conv = Conv()
    maybe: Conv | None = None
    either: Conv | Mlp = Mlp()
    several: tuple[Conv | Mlp, ...] = (Conv(32), Mlp())
    by_name: Mapping[str, Mlp] = dataclasses.field(default_factory=lambda: {"left": Mlp((8,))})
    encoder: EncoderConfig | None = Conv(8)
    number: int | float | str | None = 0.5
    anything: Mapping[str, object] = dataclasses.field(default_factory=lambda: {"a": [1, {"b": None}]})
    derived: int = dataclasses.field(init=False, default=7)


def encoder_type(id: str) -> type:
    known = {"conv": Conv, "mlp": Mlp}
    if id not in known:
        raise ValueError(f"unknown encoder {id!r}")
    return known[id]


ENCODERS: OpenKinds = {EncoderConfig: OpenKind(lambda config: type(config).__name__.lower(), encoder_type)}
WRITTEN = options_to_json(Options(), open_kinds=ENCODERS)


def read(value: object) -> Options:
    return options_from_json(Options, value, "config.json", at="$.learner", open_kinds=ENCODERS)


def test_options_of_every_kind_come_back_as_they_were() -> None:
    assert read(json.loads(json.dumps(WRITTEN))) == Options()
    assert isinstance(read(WRITTEN).names, tuple) and isinstance(read(WRITTEN).rate, float)


def test_records_that_are_one_of_several_say_which() -> None:
    assert WRITTEN["either"] == {"type": "Mlp", "hidden": [64, 64]}
    assert WRITTEN["encoder"] == {"type": "conv", "filters": 8}
    assert WRITTEN["one"] == {"filters": 64} and WRITTEN["derived" if "derived" in WRITTEN else "maybe"] is None
    other = Options(either=Conv(3), encoder=Mlp((4,)), maybe=Conv(2), folder=None, mode=None, number="text")
    assert read(options_to_json(other, open_kinds=ENCODERS)) == other
    assert read(options_to_json(Options(encoder=None), open_kinds=ENCODERS)).encoder is None


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda v: v.update(more=1), "$.learner: unknown field 'more'; there are rate, steps"),
        (lambda v: v.update(derived=1), "unknown field 'derived'"),
        (lambda v: v.pop("maybe"), "$.learner: field 'maybe' is missing"),
        (lambda v: v.update(rate="1"), "$.learner.rate: expected float, got str"),
        (lambda v: v.update(rate=True), "$.learner.rate: expected float, got bool"),
        (lambda v: v.update(steps=1.0), "$.learner.steps: expected int, got float"),
        (lambda v: v.update(steps=2**63), "$.learner.steps: whole numbers must be between"),
        (lambda v: v.update(flag=1), "$.learner.flag: expected bool, got int"),
        (lambda v: v.update(mode="both"), "$.learner.mode: invalid enum value 'both'"),
        (lambda v: v.update(colour="blue"), "$.learner.colour: invalid enum value 'blue'"),
        (lambda v: v.update(size=[1.0]), "$.learner.size: expected array of length 2, got 1"),
        (lambda v: v.update(names="a"), "$.learner.names: expected array, got str"),
        (lambda v: v.update(folder=3), "$.learner.folder: expected str, got int"),
        (lambda v: v.update(one=None), "$.learner.one: expected object, got null"),
        (lambda v: v["one"].update(filters=None), "$.learner.one.filters: expected int, got null"),
        (lambda v: v.update(maybe=[]), "$.learner.maybe: expected an object, got an array"),
        (lambda v: v["either"].pop("type"), "$.learner.either: the field 'type' must say which it is"),
        (lambda v: v["either"].update(type="Rnn"), "$.learner.either.type: expected one of Conv, Mlp, got 'Rnn'"),
        (lambda v: v["either"].update(type="Conv"), "$.learner.either: unknown field 'hidden'; there are filters"),
        (lambda v: v["several"][1].update(hidden=[1, "a"]), "$.learner.several[1].hidden[1]: expected int, got str"),
        (lambda v: v["by_name"].update(left={}), "$.learner.by_name.left: field 'hidden' is missing"),
        (lambda v: v["by_name"]["left"].update(hidden=[]), "$.learner.by_name.left: hidden needs at least one layer"),
        (lambda v: v["encoder"].update(type="rnn"), "$.learner.encoder.type: unknown encoder 'rnn'"),
        (lambda v: v.update(number=[]), "$.learner.number: expected int | float | str, got array"),
        (lambda v: v.update(anything={"a": float("inf")}), "$.learner.anything.a: must be finite, got inf"),
        (lambda v: v.update(anything={"a": "\ud800"}), r"$.learner.anything.a: text must be UTF-8, got '\\ud800'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_one_line(edit: Edit, told: str) -> None:
    value = copy.deepcopy(WRITTEN)
    edit(value)
    with pytest.raises(RunError) as caught:
        read(value)
    assert str(caught.value).startswith("config.json cannot be read: ") and told in str(caught.value)
    assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Unwritable:
    value: object = None
    call: Callable[[int], int] | None = None
    items: tuple[int, ...] = ()
    numbers: Mapping[int, str] = dataclasses.field(default_factory=dict)
    either: Conv | Mlp | None = None


@dataclasses.dataclass(frozen=True)
class Tagged:
    type: str = "x"


@dataclasses.dataclass(frozen=True)
class Clash:
    either: Conv | Tagged = Tagged()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (Options(rate=float("nan")), "$.rate: must be finite, got nan"),
        (Options(steps=2**64), "$.steps: whole numbers must be"),
        (Options(folder=Path("\udcff")), "$.folder: text must be UTF-8"),
        (Unwritable(value={1, 2}), "$.value: set cannot be written as JSON"),
        (Unwritable(call=abs), "$.call: builtin_function_or_method cannot be written"),
        (Unwritable(numbers={1: "a"}), "would not come back from JSON as it is"),
        (Clash(), "a record that is one of several cannot have a field 'type'"),
    ],
)
def test_options_that_would_not_come_back_are_refused_when_they_are_written(options: object, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        options_to_json(options, open_kinds=ENCODERS)


# Files


@dataclasses.dataclass(frozen=True)
class Record:
    format: int
    values: tuple[float, ...]


def test_a_file_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"format": 2, "values": [1, 2.5]}')
    assert decode(Record, tmp_path / "a.json", format=2) == Record(2, (1.0, 2.5))


DEEP = "[" * MAX_DEPTH + "]" * MAX_DEPTH


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be read: input data was truncated"),
        (b"[1]", "cannot be read: not a JSON object"),
        (b'{"format": 2, "values": [NaN]}', "cannot be read: JSON is malformed"),
        (b'{"format": 2, "values": [Infinity]}', "cannot be read: JSON is malformed"),
        (b'{"format": 2, "values": [1e999]}', "cannot be read: number out of range"),
        (b'{"format": 2, "values": ["\xff"]}', "cannot be read: not UTF-8"),
        (b'{"format": 2, "values": ' + b"[" * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
        (f'{{"format": 2, "values": {DEEP}}}'.encode(), f"nested deeper than {MAX_DEPTH} levels"),
        (b'{"format": 2, "values": [1', "truncated"),
        (b'{"format": 2, "values": [1]} 3', "malformed"),
        (b'{"format": 2}', "$: field 'values' is missing"),
        (b'{"values": []}', "it has no format number"),
        (b'{"format": true, "values": []}', "it has no format number"),
        (b'{"format": 1, "more": 3}', "another version of metarl wrote it: format 1, this one reads format 2"),
    ],
)
def test_a_file_that_holds_something_else_is_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunError) as caught:
        decode(Record, tmp_path / "a.json", format=2)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'} cannot be read: ")
    assert told.lower() in str(caught.value).lower() and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_too_large_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\.json is missing"):
        decode(Record, tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"{}")
    (tmp_path / "link.json").symlink_to("a.json")
    with pytest.raises(RunError, match=r"link\.json cannot be read: it is a symbolic link"):
        decode(Record, tmp_path / "link.json")
    with (tmp_path / "a.json").open("r+b") as file:
        file.truncate(decoding.MAX_BYTES + 1)
    with pytest.raises(RunError, match=f"it has {decoding.MAX_BYTES + 1} bytes, the limit is {decoding.MAX_BYTES}"):
        decode(Record, tmp_path / "a.json")


@dataclasses.dataclass(frozen=True)
class Grown:
    """Options of which one came later."""

    rate: float = 0.1
    parts: int = checks.added(1)


def test_an_option_that_came_later_is_read_and_written_as_before() -> None:
    assert options_to_json(Grown()) == {"rate": 0.1}
    assert options_to_json(Grown(parts=2)) == {"rate": 0.1, "parts": 2}
    assert options_from_json(Grown, {"rate": 0.3}, "config.json") == Grown(0.3, 1)
    assert options_from_json(Grown, {"rate": 0.3, "parts": 4}, "config.json") == Grown(0.3, 4)
    with pytest.raises(RunError, match="field 'rate' is missing"):
        options_from_json(Grown, {"parts": 4}, "config.json")
