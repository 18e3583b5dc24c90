"""Tasks whose supports and queries a benchmark publishes: nothing of them is drawn."""

import dataclasses
from typing import final

from metarl.tasks import Json


@final
@dataclasses.dataclass(frozen=True)
class GivenTask:
    """The examples of one task, by their numbers in a data set.

    Raises:
        ValueError: an example is support and query, or there is none of one of them.
    """

    name: str
    classes: tuple[int, ...]
    """The numbers of its classes; their places are their labels."""
    support: tuple[int, ...]
    query: tuple[int, ...]
    """Queries need not be as many of each class."""

    def __post_init__(self) -> None:
        if not self.support or not self.query or min(*self.support, *self.query) < 0:
            raise ValueError(f"task {self.name!r} needs a support and a query, by numbers from 0")
        if both := set(self.support) & set(self.query):
            raise ValueError(f"task {self.name!r} has example {min(both)} in its support and in its query")

    def to_json(self) -> dict[str, Json]:
        """Plain data, of which a hash can be taken."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "support": list(self.support),
            "query": list(self.query),
        }
