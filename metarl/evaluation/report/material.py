"""What there is to report: runs and evaluation files as they are found, with a line for everything that is missing.

Nothing here gives up because a part is damaged or not there yet: a report is also for runs that are under way.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast, final

from metarl.errors import RunError, UsageError
from metarl.evaluation.evaluate import aggregate
from metarl.evaluation.reading import evaluation_of, read_evaluation
from metarl.evaluation.results import Evaluation
from metarl.runs import files, metrics, run_folder
from metarl.runs.decoding import read_object, unreadable
from metarl.runs.metrics import Row
from metarl.runs.run_folder import Experiment, Run

Value = TypeVar("Value")


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What one path held: a run's folder, or an evaluation's file."""

    path: Path
    run: Run | None
    """None for a file that stands alone."""
    rows: tuple[Row, ...]
    """The metrics of training."""
    evaluations: dict[str, Evaluation]
    """By the name of the file: `test`, `test-best`, `test-20w5s`."""
    videos: tuple[Path, ...]
    pictures: tuple[Path, ...]
    """Of tasks with a learner's answers."""
    problems: tuple[str, ...]
    """What is missing or damaged, a sentence each."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ by their seeds alone, or one file."""

    label: str
    members: tuple[Found, ...]
    evaluations: dict[str, Evaluation]
    """Of all seeds together, by name."""
    problems: tuple[str, ...]

    @property
    def experiment(self) -> Experiment | None:
        """What the runs have in common, with the first one's seed."""
        run = self.members[0].run
        return None if run is None else run.config.experiment


def look(path: Path) -> Found:
    """Reads what a path holds.

    Raises:
        UsageError: there is nothing of ours: neither a run's folder nor a JSON file.
    """
    if path.suffix == ".json":
        evaluations, problems = _file(path)
        return Found(path, None, (), evaluations, (), (), tuple(problems))
    problems: list[str] = []
    if not run_folder.begun(path):
        run_folder.read(path)  # raises what says which run may have been meant
    run = _attempt(lambda: run_folder.read(path), problems)
    rows = _attempt(lambda: metrics.read(path), problems) or ()
    evaluations = {}
    for file in sorted((path / "evaluations").glob("*.json"), key=lambda file: file.stem):
        evaluation = _attempt(lambda file=file: _read(read_evaluation, file), problems, file)
        if evaluation is not None:
            evaluations[files.as_text(file.stem)] = evaluation
    if not rows:
        problems.append(f"{path} has no metrics yet: not one outer step is done")
    elif run is not None and (done := int(rows[-1]["step"] or 0)) < run.config.steps:
        problems.append(f"{path} is at step {done} of {run.config.steps}: the command that began it goes on with it")
    if not evaluations:
        problems.append(f"{path} has no evaluation: metarl evaluate {path}")
    videos = _media(path / "videos", "*.mp4", "video", problems)
    pictures = _media(path / "pictures", "*.png", "picture", problems)
    return Found(path, run, rows, evaluations, videos, pictures, tuple(problems))


def _media(folder: Path, pattern: str, kind: str, problems: list[str]) -> tuple[Path, ...]:
    """The files of a folder. A link is none: a page is given away, and would hold what a stranger let it point to."""
    found: list[Path] = []
    for path in sorted(folder.glob(pattern)):
        try:
            files.need_folder(folder)
            files.need_regular(path)
        except OSError as error:
            problems.append(f"the {kind} {path} cannot be read: {files.reason(error)}")
        else:
            found.append(path)
    return tuple(found)


def groups(found: Sequence[Found]) -> tuple[Group, ...]:
    """Brings the seeds of one experiment together; labels say what differs from group to group."""
    together: dict[str, list[Found]] = {}
    for each in found:
        key = str(each.path) if each.run is None else _without_seed(each.run.config.experiment).hash
        together.setdefault(key, []).append(each)
    members = list(together.values())
    return tuple(_group(label, each) for label, each in zip(_labels(members), members, strict=True))


def _group(label: str, members: Sequence[Found]) -> Group:
    evaluations: dict[str, Evaluation] = {}
    problems: list[str] = []
    for name in dict.fromkeys(name for each in members for name in each.evaluations):
        there = [each for each in members if name in each.evaluations]
        problems += [
            f"{each.path} lacks the evaluation {name}, which other seeds of {label} have"
            for each in members
            if each.evaluations and name not in each.evaluations
        ]
        try:
            evaluations[name] = aggregate([each.evaluations[name] for each in there])
        except ValueError as error:
            problems.append(f"{label}, {name}: {error}; the first run alone is shown")
            evaluations[name] = there[0].evaluations[name]
    return Group(label, tuple(members), evaluations, tuple(problems))


def _labels(members: Sequence[Sequence[Found]]) -> list[str]:
    """The learner of each group; where several on one distribution have the same, the run's name with it."""
    names = [(_learner(each[0]), _distributions(each[0])) for each in members]
    return [
        name[0] if names.count(name) == 1 else f"{name[0]} ({files.as_text(each[0].path.stem)})"
        for name, each in zip(names, members, strict=True)
    ]


def _distributions(found: Found) -> tuple[str, ...]:
    if found.run is not None:
        return (found.run.config.experiment.distribution,)
    return tuple(each.config.distribution for each in found.evaluations.values())


def _learner(found: Found) -> str:
    if found.run is not None:
        return found.run.config.experiment.learner.rpartition("/")[2]
    return (
        next(iter(found.evaluations.values())).sources[0].learner
        if found.evaluations
        else files.as_text(found.path.stem)
    )


def _without_seed(experiment: Experiment) -> Experiment:
    return dataclasses.replace(experiment, seed=0)


def _file(path: Path) -> tuple[dict[str, Evaluation], list[str]]:
    """The evaluations of a file that `metarl evaluate --output` wrote: of runs, or of a policy on distributions.

    Raises:
        UsageError: there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"there is no evaluation {path}")
    problems: list[str] = []
    content = _attempt(lambda: _read(read_object, path), problems, path) or {}
    parts = content.get("evaluations")
    named = cast(dict[str, object], parts) if isinstance(parts, dict) else {"test": content}
    evaluations = {}
    for part in named.values():
        read = _attempt(lambda part=part: evaluation_of(_object(part)), problems, path)
        if read is not None:
            name = read.config.split if len(named) == 1 else f"{read.config.split} on {read.config.distribution}"
            evaluations[name] = read
    return evaluations, problems


def _read(read: Callable[[Path], Value], path: Path) -> Value:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise ValueError(unreadable(error)) from error


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("is not an evaluation")
    return cast(dict[str, object], value)


def _attempt(read: Callable[[], Value], problems: list[str], path: Path | None = None) -> Value | None:
    """What `read` gives; None, with one more problem, where it cannot be had."""
    try:
        return read()
    except (RunError, UsageError, ValueError, OSError) as error:
        problems.append(f"{path} {error}" if path is not None else str(error))
        return None
