"""Tasks, and the ranges and splits they are drawn from.

A `Task` is a value: a family's name and its parameters by name. It holds no simulator, goes to JSON and back
unchanged, and takes its id from its content. A `TaskSpace` says which tasks exist and keeps the three splits apart.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from typing import Literal, Protocol, final, get_args, runtime_checkable

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


@final
@dataclasses.dataclass(frozen=True)
class Uniform:
    """U[low, high], rounded to a grid of `resolution`.

    The grid makes tasks readable and makes "the splits are disjoint" a claim that can be checked: two draws can
    meet, so held-out values have to be kept out of training rather than missed by luck.
    """

    low: float
    high: float
    resolution: float
    unit: str

    def __post_init__(self) -> None:
        if not self.low < self.high or not 0 < self.resolution <= self.high - self.low:
            raise ValueError(f"need low < high and 0 < resolution <= high - low, got {self}")

    def draw(self, rng: np.random.Generator) -> float:
        steps = rng.uniform(self.low, self.high) / self.resolution
        decimals = max(0, int(np.ceil(-np.log10(self.resolution))) + 1)
        return float(np.clip(round(round(steps) * self.resolution, decimals), self.low, self.high))


@final
@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few values, each as likely."""

    values: tuple[float, ...]
    unit: str

    def draw(self, rng: np.random.Generator) -> float:
        return self.values[int(rng.integers(len(self.values)))]


@final
@dataclasses.dataclass(frozen=True)
class Apart:
    """Two points of a task that are at least some distance apart; tasks where they are not are drawn again."""

    one: tuple[str, ...]
    """The parameters that are the one point's coordinates."""
    other: tuple[str | float, ...]
    """The other point's: parameters, or numbers."""
    distance: float
    unit: str

    def holds(self, task: Task) -> bool:
        one = [task[name] for name in self.one]
        other = [task[x] if isinstance(x, str) else x for x in self.other]
        return math.dist(one, other) >= self.distance


@final
@dataclasses.dataclass(frozen=True)
class Family:
    """Tasks of one kind: a name, and where each parameter is drawn from."""

    name: str
    parameters: Mapping[str, Uniform | Choice]
    apart: Apart | None = None

    def draw(self, rng: np.random.Generator) -> Task:
        for _ in range(1000):
            task = Task.of(self.name, **{name: source.draw(rng) for name, source in sorted(self.parameters.items())})
            if self.apart is None or self.apart.holds(task):
                return task
        raise ValueError(f"no task of family {self.name!r} with {self.apart} in 1000 draws")

    def spec(self) -> dict[str, Json]:
        spec: dict[str, Json] = {
            "name": self.name,
            "parameters": {
                name: {"kind": type(source).__name__} | json.loads(json.dumps(dataclasses.asdict(source)))
                for name, source in self.parameters.items()
            },
        }
        return spec if self.apart is None else spec | {"apart": json.loads(json.dumps(dataclasses.asdict(self.apart)))}


@runtime_checkable
class TaskDistribution(Protocol):
    """What the training loop and the evaluation ask of a distribution of tasks, RL or supervised."""

    @property
    def id(self) -> str: ...

    @property
    def held_out(self) -> bool:
        """Whether validation and test hold tasks that training never sees."""
        ...

    @property
    def hash(self) -> str:
        """The content hash of everything that decides what a score means."""
        ...

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        """Draws `count` tasks of a split."""
        ...

    def tasks(self, split: Split) -> tuple[Task, ...]:
        """The frozen list of a split: the same for everybody, whatever the seed."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class TaskSpace:
    """Which tasks there are, in three splits that share none (unless `held_out` is false).

    `tasks("validation")` and `tasks("test")` are lists drawn once, from a seed made of the id alone, the families in
    turn; `sample("train", ...)` draws anew and redraws whatever stands in those lists.
    """

    id: str
    train: tuple[Family, ...]
    validation: tuple[Family, ...]
    test: tuple[Family, ...]
    held_out: bool = True
    listed: tuple[int, int, int] = (40, 20, 40)
    """Tasks in the frozen train, validation and test lists."""
    train_listed: bool = False
    """Training too draws from its frozen list, instead of afresh: the published protocol of some benchmarks."""
    lists_of: str | None = None
    """What the frozen lists are drawn for; the id if None. Distributions that share it, and their families, share
    their lists."""

    def families(self, split: Split) -> tuple[Family, ...]:
        table = {"train": self.train, "validation": self.validation, "test": self.test}
        if split not in table:
            raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
        return table[split]

    def spec(self) -> dict[str, Json]:
        """Everything that decides which tasks are drawn, as JSON."""
        spec: dict[str, Json] = {
            "id": self.id,
            "held_out": self.held_out,
            "listed": list(self.listed),
            "families": {split: [family.spec() for family in self.families(split)] for split in SPLITS},
        }
        # What a distribution does not use is not in its spec: the hashes of runs made before it existed still hold.
        if self.train_listed:
            spec["train_listed"] = True
        if self.lists_of is not None:
            spec["lists_of"] = self.lists_of
        return spec

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        """Draws `count` tasks: afresh for `train`, without repetition from the frozen list for the other splits.

        Where training is on a list too (`train_listed`), each of its tasks comes about equally often.

        Families take turns in random order, so that a small batch has each about equally often; so do the tasks
        themselves where there are only a few and nothing is held out. Chance in that would only add noise.
        """
        if count < 0:
            raise ValueError(f"cannot sample {count} tasks: the count must not be negative")
        listed = self.tasks(split)
        if not self.held_out:
            return tuple(listed[index] for index in _turns(len(listed), count, rng))
        if split != "train":
            if count > len(listed):
                raise ValueError(f"{self.id} has {len(listed)} {split} tasks; {count} were asked for")
            return tuple(listed[int(index)] for index in rng.permutation(len(listed))[:count])
        families = self.families(split)
        turns = _turns(len(families), count, rng)
        if self.train_listed:
            goals = [[task for task in listed if task.family == family.name] for family in families]
            queues = [iter(_turns(len(each), turns.count(index), rng)) for index, each in enumerate(goals)]
            return tuple(goals[index][next(queues[index])] for index in turns)
        return tuple(_draw_outside(families[index], self._reserved, rng) for index in turns)

    def tasks(self, split: Split) -> tuple[Task, ...]:
        """The frozen list of a split: the same tasks whatever the seed of a run.

        Where nothing is held out, every split lists every distinct task once.
        """
        self.families(split)  # rejects an unknown split
        return self._lists[split]

    @functools.cached_property
    def _lists(self) -> dict[Split, tuple[Task, ...]]:
        if not self.held_out:
            rng = np.random.default_rng(_list_seed(self.lists_of or self.id, "train"))
            draws = {family.draw(rng) for family in self.train for _ in range(64 * self.listed[0])}
            every = tuple(sorted(draws, key=lambda task: (task.family, task.parameters)))
            return dict.fromkeys(SPLITS, every)
        lists: dict[Split, tuple[Task, ...]] = {}
        taken: set[Task] = set()
        for split, count in reversed(tuple(zip(SPLITS, self.listed, strict=True))):
            rng = np.random.default_rng(_list_seed(self.lists_of or self.id, split))
            families, drawn = self.families(split), list[Task]()
            for index in range(count):
                drawn.append(_draw_outside(families[index % len(families)], taken, rng))
                taken.add(drawn[-1])
            lists[split] = tuple(drawn)
        return lists

    @functools.cached_property
    def _reserved(self) -> frozenset[Task]:
        """Tasks that training must not see."""
        return frozenset(self._lists["validation"] + self._lists["test"]) if self.held_out else frozenset()


def _turns(choices: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` choices in random order, each as often as any other, or once more."""
    rounds = -(-count // choices)
    return [int(index) for _ in range(rounds) for index in rng.permutation(choices)][:count]


def _list_seed(identifier: str, split: Split) -> int:
    return int(content_hash({"id": identifier, "split": split}), 16)


def _draw_outside(family: Family, reserved: Collection[Task], rng: np.random.Generator) -> Task:
    """A task of the family that is not reserved."""
    for _ in range(1000):
        task = family.draw(rng)
        if task not in reserved:
            return task
    raise ValueError(f"no task of family {family.name!r} outside the {len(reserved)} reserved ones in 1000 draws")
