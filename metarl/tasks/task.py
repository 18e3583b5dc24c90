"""A task as a value: a family's name and its parameters by name.

It holds no simulator, goes to JSON and back unchanged, and takes its id from its content.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Literal, final, get_args

import numpy as np

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

Score = Literal["return", "success"]
"""What an episode is judged by: its undiscounted return, or whether it succeeded."""

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

Scalar = bool | int | float | str
"""What a task's parameter can be: a scalar of JSON."""


def content_hash(value: Json) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of the value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One task: a family and its parameters, as an immutable, hashable value.

    >>> ice = Task.of("ice", friction=0.04, firm=True)
    >>> ice["firm"], ice.number("friction"), Task.from_json(ice.to_json()) == ice
    (True, 0.04, True)
    """

    family: str
    """What kind of task: `ice`, `velocity`, `goal`, ..."""
    parameters: tuple[tuple[str, Scalar], ...]
    """(name, value) pairs in the order of their names; the units are the distribution's."""

    def __post_init__(self) -> None:
        names = [name for name, _ in self.parameters]
        if names != sorted(set(names)):
            raise ValueError(f"a task's parameters must be distinct and sorted by name, got {names}; use Task.of")
        for name, value in self.parameters:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"task parameter {name!r} must be finite, got {value}")

    @classmethod
    def of(cls, family: str, /, **parameters: Scalar) -> "Task":
        """A task from its parameters by name; NumPy's scalars become Python's."""
        return cls(family, tuple(sorted((name, _scalar(name, value)) for name, value in parameters.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __getitem__(self, name: str) -> Scalar:
        for key, value in self.parameters:
            if key == name:
                return value
        raise KeyError(f"task {self} has no parameter {name!r}")

    def number(self, name: str) -> float:
        """A parameter that is a number.

        Raises:
            KeyError: there is no such parameter.
            ValueError: it is a truth value or a text.
        """
        value = self[name]
        if isinstance(value, bool | str):
            raise ValueError(f"parameter {name!r} of task {self} must be a number")
        return float(value)

    @property
    def id(self) -> str:
        """The family's name and eight digits of the content's hash: `ice-1f0c93ab`."""
        return f"{self.family}-{content_hash(self.to_json())[:8]}"

    def to_json(self) -> dict[str, Json]:
        return {"family": self.family, "parameters": dict(self.parameters)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Task":
        family, parameters = value.get("family"), value.get("parameters")
        if set(value) != {"family", "parameters"} or not isinstance(family, str) or not isinstance(parameters, dict):
            raise ValueError(f'a task in JSON is {{"family": name, "parameters": {{name: scalar}}}}, got {value}')
        return cls.of(family, **{name: _scalar(name, parameter) for name, parameter in parameters.items()})

    def __str__(self) -> str:
        parameters = (
            f"{name}={value:g}" if type(value) is float else f"{name}={value}" for name, value in self.parameters
        )
        return f"{self.family}({', '.join(parameters)})"

    @property
    def _content(self) -> tuple[object, ...]:
        """What equality compares: 1, 1.0 and True are equal in Python, but not in JSON, nor in the id."""
        return (self.family, *((name, type(value), value) for name, value in self.parameters))


def _scalar(name: str, value: object) -> Scalar:
    """The value as Python's own type."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"task parameter {name!r} must be a number, a text or a truth value, got {value!r}")
