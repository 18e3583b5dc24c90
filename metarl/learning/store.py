"""Large data that a learner keeps between outer steps, and that only grows at its end: a replay buffer.

A store is a value like everything else in a state: appending gives another store and leaves the first as it is. The
two share their chunks, so a step costs as much as what it adds, and a checkpoint writes the chunks that are new.
"""

import dataclasses
from collections.abc import Mapping
from typing import final

from torch import Tensor

Chunk = Mapping[str, Tensor]
"""What one outer step added, by name. A chunk is never written to after it was appended."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """Chunks in the order in which they were appended; the oldest may have been dropped."""

    chunks: tuple[Chunk, ...] = ()
    dropped: int = 0
    """How many chunks there were before the first of these."""

    @property
    def total(self) -> int:
        """Chunks that were ever appended; they are numbered from 0."""
        return self.dropped + len(self.chunks)

    def append(self, chunk: Chunk, capacity: int | None = None) -> "Store":
        """The store with one chunk more, and without the oldest where there would be more than `capacity`.

        Raises:
            ValueError: `capacity` is less than 1.
        """
        if capacity is not None and capacity < 1:
            raise ValueError(f"a store's capacity must be at least 1 chunk, got {capacity}")
        chunks = (*self.chunks, dict(chunk))
        surplus = 0 if capacity is None else max(0, len(chunks) - capacity)
        return Store(chunks[surplus:], self.dropped + surplus)


EMPTY_STORE = Store()
