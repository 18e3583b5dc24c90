"""The zoo: trained agents that come with the package, by names such as `zoo:cheetah-terrain/maml`.

An entry is the folder of a run with its last checkpoint, its evaluation on the test tasks, and a card for people:

    zoo/<distribution>/<agent>/config.json  checkpoints/<step>/  evaluation.json  card.md

`metarl.runs.publishing` makes them.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path

import metarl
from metarl.errors import UsageError
from metarl.evaluation.records import INFORMED
from metarl.evaluation.results import Evaluation
from metarl.maths.statistics import Estimate

PREFIX = "zoo:"
FOLDER = Path(metarl.__file__).parent / "zoo"
EVALUATION = "evaluation.json"


def names() -> tuple[str, ...]:
    """What is there: `cheetah-terrain/blind`, …"""
    return tuple(sorted(f"{folder.parent.name}/{folder.name}" for folder in _entries()))


def of_distribution(id: str) -> tuple[Path, ...]:
    """The folders of all agents trained on a distribution or a variant of it."""
    return tuple(sorted(folder for folder in _entries() if folder.parent.name == id))


def evaluation(name: str) -> Evaluation:
    """What an entry reached on the test tasks when it was published."""
    return Evaluation.from_json(json.loads((FOLDER / name / EVALUATION).read_bytes()))


def need(id: str) -> Estimate | None:
    """How much a distribution asks for adaptation, as measured with its informed entry; None where there is none.

    (informed − blind) / (informed − random) on the test tasks: the share of what can be learned there that only those
    reach who know the task. 0: a policy that never adapts does as well as one that is told.
    """
    entry = f"{id}/{INFORMED}"
    return evaluation(entry).need() if entry in names() else None


def contains(folder: Path) -> bool:
    """Whether a folder is an entry of the zoo, which is only read."""
    return folder.resolve().is_relative_to(FOLDER.resolve())


def resolve(name: Path | str) -> Path:
    """The folder that a name of the zoo means; any other path as it is.

    Raises:
        UsageError: there is no such entry; the message says what is near.
    """
    text = str(name)
    if not text.startswith(PREFIX):
        return Path(name)
    entry = text.removeprefix(PREFIX).rstrip("/")
    if entry in names():
        return FOLDER / entry
    near = difflib.get_close_matches(entry, names(), n=3, cutoff=0.3)
    hint = f"did you mean {' or '.join(PREFIX + each for each in near)}?" if near else f"there are {', '.join(names())}"
    raise UsageError(f"the zoo has no {entry!r}; {hint if names() else 'it is empty'}")


def _entries() -> Iterator[Path]:
    for config in FOLDER.glob("*/*/config.json"):
        yield config.parent
