"""A task as a value: a family's name and its parameters by name.

It holds no simulator, goes to JSON and back unchanged, and takes its id from its content.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Literal, final, get_args

import numpy as np

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

Score = Literal["return", "success"]
"""What an episode is judged by: its undiscounted return, or whether it succeeded."""

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def content_hash(value: Json) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of the value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@final
@dataclasses.dataclass(frozen=True)
class Task:
    """One task: a family and its parameters, as an immutable, hashable value.

    >>> ice = Task.of("ice", friction=0.04)
    >>> ice["friction"], Task.from_json(ice.to_json()) == ice
    (0.04, True)
    """

    family: str
    """What kind of task: `ice`, `velocity`, `goal`, ..."""
    parameters: tuple[tuple[str, float], ...]
    """(name, value) pairs in the order of their names; the units are the distribution's."""

    def __post_init__(self) -> None:
        names = [name for name, _ in self.parameters]
        if names != sorted(set(names)):
            raise ValueError(f"a task's parameters must be distinct and sorted by name, got {names}; use Task.of")
        for name, value in self.parameters:
            if not np.isfinite(value):
                raise ValueError(f"task parameter {name!r} must be finite, got {value}")

    @classmethod
    def of(cls, family: str, /, **parameters: float) -> "Task":
        """A task from its parameters by name."""
        return cls(family, tuple(sorted((name, float(value)) for name, value in parameters.items())))

    def __getitem__(self, name: str) -> float:
        for key, value in self.parameters:
            if key == name:
                return value
        raise KeyError(f"task {self} has no parameter {name!r}")

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
            raise ValueError(f'a task in JSON is {{"family": name, "parameters": {{name: number}}}}, got {value}')
        numbers: dict[str, float] = {}
        for name, number in parameters.items():
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"task parameter {name!r} must be a number, got {number!r}")
            numbers[name] = number
        return cls.of(family, **numbers)

    def __str__(self) -> str:
        return f"{self.family}({', '.join(f'{name}={value:g}' for name, value in self.parameters)})"
