"""Which tasks there are: families of parameters, in splits that are kept apart."""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping
from typing import Protocol, final, runtime_checkable

import numpy as np

from metarl.tasks.ranges import Constraint, Range
from metarl.tasks.task import SPLITS, Json, Split, Task, content_hash

_DRAWS = 1000  # in search of a task, before it is said that there is none


@final
@dataclasses.dataclass(frozen=True)
class Family:
    """Tasks of one kind: a name, where each parameter is drawn from, and what they must fulfil together."""

    name: str
    parameters: Mapping[str, Range]
    constraints: tuple[Constraint, ...] = ()
    """Tasks that break one are drawn again."""

    def draw(self, rng: np.random.Generator) -> Task:
        for _ in range(_DRAWS):
            task = Task.of(self.name, **{name: source.draw(rng) for name, source in sorted(self.parameters.items())})
            if all(constraint.holds(task) for constraint in self.constraints):
                return task
        raise ValueError(f"no task of family {self.name!r} fulfils {self.constraints} in {_DRAWS} draws")

    def spec(self) -> dict[str, Json]:
        spec: dict[str, Json] = {
            "name": self.name,
            "parameters": {name: _described(source) for name, source in self.parameters.items()},
        }
        if self.constraints:
            spec["constraints"] = [_described(constraint) for constraint in self.constraints]
        return spec


def _described(record: Range | Constraint) -> dict[str, Json]:
    return {"kind": type(record).__name__} | json.loads(json.dumps(dataclasses.asdict(record)))


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
@dataclasses.dataclass(frozen=True, repr=False)
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
    split_sizes: tuple[int, int, int] = (40, 20, 40)
    """Tasks in the frozen train, validation and test lists."""
    fixed_training_list: bool = False
    """`sample("train", ...)` draws from the frozen training list instead of afresh: the protocol of benchmarks that
    publish their training tasks."""
    list_seed_id: str | None = None
    """Seeds the frozen lists in place of the id: variants of a distribution (another reward, another observation)
    that share it and their families have the same tasks."""

    def __repr__(self) -> str:
        """One line: the families of each split."""
        splits = (f"{split} {', '.join(family.name for family in self.families(split))}" for split in SPLITS)
        return f"<TaskSpace {self.id}: {'; '.join(splits)}>"

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
            "split_sizes": list(self.split_sizes),
            "families": {split: [family.spec() for family in self.families(split)] for split in SPLITS},
        }
        # What a distribution does not use is not in its spec: the hashes of runs made before it existed still hold.
        if self.fixed_training_list:
            spec["fixed_training_list"] = True
        if self.list_seed_id is not None:
            spec["list_seed_id"] = self.list_seed_id
        return spec

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        """Draws `count` tasks: afresh for `train`, without repetition from the frozen list for the other splits.

        Where training is on a list too (`fixed_training_list`), each of its tasks comes about equally often.

        Families take turns in random order, so that a small batch has each about equally often; so do the tasks
        themselves where there are only a few and nothing is held out. Chance in that would only add noise.
        """
        if count < 0:
            raise ValueError(f"cannot sample {count} tasks: the count must not be negative")
        _need_generator(rng)
        listed = self.tasks(split)
        if not self.held_out:
            return tuple(listed[index] for index in _turns(len(listed), count, rng))
        if split != "train":
            if count > len(listed):
                raise ValueError(f"{self.id} has {len(listed)} {split} tasks; {count} were asked for")
            return tuple(listed[int(index)] for index in rng.permutation(len(listed))[:count])
        families = self.families(split)
        turns = _turns(len(families), count, rng)
        if self.fixed_training_list:
            groups = [[task for task in listed if task.family == family.name] for family in families]
            queues = [iter(_turns(len(group), turns.count(index), rng)) for index, group in enumerate(groups)]
            return tuple(groups[index][next(queues[index])] for index in turns)
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
            rng = np.random.default_rng(_list_seed(self.list_seed_id or self.id, "train"))
            draws = {family.draw(rng) for family in self.train for _ in range(64 * self.split_sizes[0])}
            every = tuple(sorted(draws, key=_order))
            return dict.fromkeys(SPLITS, every)
        lists: dict[Split, tuple[Task, ...]] = {}
        taken: set[Task] = set()
        for split, count in reversed(tuple(zip(SPLITS, self.split_sizes, strict=True))):
            rng = np.random.default_rng(_list_seed(self.list_seed_id or self.id, split))
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


def _order(task: Task) -> tuple[object, ...]:
    """Sorts tasks by family and parameters; a text does not compare with a number."""
    return task.family, tuple((name, isinstance(value, str), value) for name, value in task.parameters)


def _need_generator(rng: object) -> None:
    """Raises TypeError for a seed, which many expect to be enough."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"sample needs a numpy.random.Generator, such as np.random.default_rng({rng!r}); got {rng!r}")


def _turns(choices: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` choices in random order, each as often as any other, or once more."""
    rounds = -(-count // choices)
    return [int(index) for _ in range(rounds) for index in rng.permutation(choices)][:count]


def _list_seed(identifier: str, split: Split) -> int:
    return int(content_hash({"id": identifier, "split": split}), 16)


def _draw_outside(family: Family, reserved: Collection[Task], rng: np.random.Generator) -> Task:
    """A task of the family that is not reserved."""
    for _ in range(_DRAWS):
        task = family.draw(rng)
        if task not in reserved:
            return task
    raise ValueError(f"no task of family {family.name!r} outside the {len(reserved)} reserved ones in {_DRAWS} draws")
