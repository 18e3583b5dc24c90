"""Files of a run with one value changed: each is refused in one line, or was not changed in what it means.

To add a kind of file, add it to `KINDS`: how it is made, and what programs do with it.
"""

import contextlib
import copy
import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from metarl import errors
from metarl.errors import RunError, UsageError
from metarl.runs import decoding, run_folder
from metarl.runs.checkpoints import CheckpointFolder
from metarl.runs.run_folder import Run
from metarl.tasks import Json, content_hash
from tests.runs.tiny import EXPERIMENT, HERE, make_state

EDITS = 600  # of each kind of file
Place = tuple[str | int, ...]

VALUES: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, 5e-324, float("nan"),
    float("inf"), "", "x", "0", "null", "x" * 10_000, "\ud800", "\x00", "a\nb", "../../etc/passwd", "/etc/passwd",
    "mine.py:Mine", "os:system", "cheetah-terrain", [], [None], [1, 2, 3], [[[]]], {}, {"": None}, {"type": "x"},
)  # fmt: skip
RAW = ("[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000, "9" * 5000, "NaN", "1e999", "-", "'x'", "\\u12")
"""Text in place of a value that `json.dumps` would not write."""
MARK = "\x01the value\x01"


def places(value: object, place: Place = ()) -> Iterator[Place]:
    """Every place in a JSON value but its top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*place, key)
        yield from places(item, (*place, key))


def edited(value: dict[str, object], rng: random.Random) -> tuple[str, bytes, dict[str, object] | None]:
    """What was done, the file, and its JSON where it is any."""
    value = copy.deepcopy(value)
    place = rng.choice(list(places(value)))
    parent: Any = value
    for key in place[:-1]:
        parent = parent[key]
    key, kind = place[-1], rng.choice(["value", "value", "value", "near", "raw", "delete", "add", "rename"])
    old, new = parent[key], copy.deepcopy(rng.choice(VALUES))
    if kind == "near" and isinstance(old, str):
        at = rng.randrange(len(old) + 1)
        new = old[:at] + rng.choice("0aF/:.- é") + old[at + 1 :]
    elif kind == "near" and isinstance(old, int | float):
        new = rng.choice([old + 1, old - 1, -old, old * 2, float(old), str(old), [old], old + 0.5])
    elif kind == "raw":
        new = MARK
    if kind == "delete":
        del parent[key]
    elif kind in ("add", "rename") and isinstance(parent, dict):
        name = rng.choice(["", "more", "type", str(key).upper(), "\ud800"])
        parent[name] = parent.pop(str(key)) if kind == "rename" else new
    elif kind == "add" and isinstance(parent, list):
        parent.insert(int(key), new)
    else:
        parent[key] = new
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if new is MARK:
        text = text.replace(json.dumps(MARK), raw := rng.choice(RAW)).replace(MARK, raw)
    what = f"{kind} at {place}: {str(old)[:60]!r} -> {str(new)[:60]!r}"
    return what, text.encode("utf-8", "surrogatepass"), None if new is MARK else value


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of file in a run's folder."""

    name: str
    path: str
    use: Callable[[Run], object]
    """What programs do with the file; gives back what it means."""
    free: frozenset[str] = frozenset()
    """Top-level fields that may be changed by hand, or hold claims that nobody can check."""
    sign: bool = False
    """Whether the checksum is put right, as a stranger who means harm would do."""


@dataclasses.dataclass(frozen=True)
class LearnerOptions:
    inner_lr: float
    policy: dict[str, tuple[int, ...]]


def use_config(run: Run) -> object:
    """Loads, and goes on training with more steps."""
    read = run_folder.read(run.folder)
    read.options("learner", LearnerOptions)
    steps = max(read.config.steps, 50)
    with run_folder.open_run(run.folder, EXPERIMENT, steps=steps, environment=HERE, warning=told) as opened:
        assert CheckpointFolder(opened).latest(make_state()) is not None
    return read.config.experiment


def use_checkpoint(run: Run) -> object:
    """Loads in both ways."""
    loaded = [find(make_state(), told) for find in (CheckpointFolder(run).latest, CheckpointFolder(run).best)]
    return [None if each is None else (each.step, each.content) for each in loaded[:1]]


@dataclasses.dataclass(frozen=True)
class Task:
    family: str
    parameters: dict[str, float | int | str | bool | None]


@dataclasses.dataclass(frozen=True)
class Scores:
    """A stand-in for an evaluation."""

    format: int
    split: str
    tasks: tuple[Task, ...]
    metrics: dict[str, tuple[tuple[float | None, ...], ...]]


SCORES = {
    "format": 2,
    "split": "test",
    "tasks": [{"family": "ice", "parameters": {"friction": 0.04, "name": "x", "steep": True}}] * 2,
    "metrics": {"return": [[1.0, 2.5], [None, -3.0]], "success": [[0.0, 1.0], [1.0, 0.0]]},
}


def use_scores(run: Run) -> object:
    return decoding.decode(Scores, run.evaluation_path("test"), format=2) and None  # all that fits is as good


KINDS = (
    Kind("config", "config.json", use_config, free=frozenset({"steps", "environments"})),
    Kind("state", "checkpoints/3/state.json", use_checkpoint),
    Kind(
        "signed state",
        "checkpoints/3/state.json",
        use_checkpoint,
        frozenset({"score", "env_steps", "store", "optimizer"}),  # without the last it is a published one
        sign=True,
    ),
    Kind("evaluation", "evaluations/test.json", use_scores),
)


def told(message: str) -> None:
    """As it is printed."""
    line = errors.one_line(message)
    assert line and line.isprintable() and len(line) < 3000


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with run_folder.open_run(tmp_path / "run", EXPERIMENT, steps=20, environment=HERE) as run:
        CheckpointFolder(run).save(3, make_state(chunks=2), score=1.5, env_steps=300)
        run.write_evaluation("test", SCORES)
    return run


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_changed_value_is_refused_in_one_line_or_means_the_same(run: Run, kind: Kind) -> None:
    path, rng = run.folder / kind.path, random.Random(f"{kind.name} 1")
    original = path.read_bytes()
    value, meaning = json.loads(original), kind.use(run)
    refused = taken = 0
    for _ in range(EDITS):
        path.write_bytes(original)  # programs may bring it up to date
        what, content, changed = edited(value, rng)
        if kind.sign and changed is not None:
            changed.pop("checksum", None)
            with contextlib.suppress(ValueError, TypeError):  # it may have no canonical form
                content = json.dumps({**changed, "checksum": content_hash(cast(Json, changed))}).encode()
        path.write_bytes(content)
        try:
            same = kind.use(run) == meaning
        except (UsageError, RunError) as error:
            told(str(error))
            refused += 1
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        else:
            taken += 1
            assert same, f"taken: {what}"
            if changed is not None and kind.name != "evaluation":
                different = {name for name in {*value, *changed} if value.get(name) != changed.get(name)}
                assert different <= {*kind.free, "checksum"}, f"taken: {what}"
    assert refused + taken == EDITS and refused > EDITS // 2
