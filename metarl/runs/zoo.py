"""The zoo: trained agents that come with the package, by names such as `zoo:cheetah-terrain/maml`.

An entry is the folder of a run with its last checkpoint, and a card: `zoo/<distribution>/<agent>/card.md`.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path

import metarl
from metarl.errors import UsageError

PREFIX = "zoo:"
FOLDER = Path(metarl.__file__).parent / "zoo"


def names() -> tuple[str, ...]:
    """What is there: `cheetah-terrain/blind`, …"""
    return tuple(sorted(f"{folder.parent.name}/{folder.name}" for folder in _entries()))


def of_distribution(id: str) -> tuple[Path, ...]:
    """The folders of all agents trained on a distribution or a variant of it."""
    return tuple(sorted(folder for folder in _entries() if folder.parent.name == id))


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
