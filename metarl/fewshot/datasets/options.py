"""How a user's own data are read: the splits, the limits, and what becomes of what cannot be read."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import final

from metarl import checks
from metarl.fewshot.datasets.sources import default_max_bytes


@final
@dataclasses.dataclass(frozen=True)
class Splitting:
    """How classes are shared out where the data do not say it."""

    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    """Shares of train, validation and test."""
    seed: int = 0

    def __post_init__(self) -> None:
        checks.seed(self.seed)


@final
@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What becomes of files that cannot be read, and how much is read at most."""

    skip_bad: bool = False
    """Whether to go on without files that cannot be read and classes that are too small; else they are errors."""
    min_per_class: int = 1
    """Examples that a class must have: the shots and queries of a task."""
    max_bytes: int = dataclasses.field(default_factory=default_max_bytes)
    """Most bytes of one file, of what a zip or an .npz file holds decompressed, and of all pixels together."""

    def __post_init__(self) -> None:
        checks.at_least(1, min_per_class=self.min_per_class, max_bytes=self.max_bytes)


def refuse(source: str, faults: Sequence[str], options: ReadOptions) -> None:
    """Raises ValueError with the first fault, if there is one, unless the user asked to go on without such things."""
    if faults and not options.skip_bad:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ValueError(f"{source}: {faults[0]}{more}; put it right, or go on without it by --skip-bad")


@contextlib.contextmanager
def prefixed(source: str) -> Iterator[None]:
    """Puts the name of the source in front of the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
