"""What there is to say of a distribution in a list of all, and on a page of its own."""

import dataclasses
from collections.abc import Mapping
from typing import final

from metarl.envs.distribution import EnvDistribution
from metarl.tasks import SPLITS, Choice, Family, Split


@final
@dataclasses.dataclass(frozen=True)
class SplitDescription:
    """The tasks of one split."""

    num_tasks: int
    """In the frozen list."""
    families: Mapping[str, Mapping[str, str]]
    """By family and parameter, the values that it can have: `0.3 to 1.2`; their unit is the description's."""


@final
@dataclasses.dataclass(frozen=True)
class Description:
    """A distribution in words, all of them taken from itself."""

    id: str
    about: str
    """What there is to do."""
    body: str
    """What moves."""
    varies: Mapping[str, str]
    """What differs from task to task, each with its unit."""
    splits: Mapping[Split, SplitDescription]
    held_out: bool
    """Whether validation and test hold tasks that training never sees."""
    horizon: int
    """Environment steps in an episode."""
    control_period: float
    """s of simulated time in a step."""
    score: str
    """What an episode is judged by."""
    observation: str
    """The space of observations."""
    action: str
    """The space of actions."""

    @property
    def sizes(self) -> str:
        """How many tasks training, validation and test list: `40/20/40`."""
        return "/".join(str(self.splits[split].num_tasks) for split in SPLITS)


def describe(dist: EnvDistribution) -> Description:
    """A distribution in words.

    >>> from metarl import envs
    >>> goals = envs.describe(envs.make("point-navigation"))
    >>> goals.sizes, goals.varies["goal_x"], goals.splits["test"].families["goal"]["goal_x"]
    ('40/20/40', 'm', '-0.5 to 0.5')
    """
    splits: dict[Split, SplitDescription] = {}
    for split in SPLITS:
        families = {family.name: _parameters(family) for family in dist.space.families(split)}
        splits[split] = SplitDescription(len(dist.tasks(split)), families)
    return Description(
        id=dist.id,
        about=dist.about,
        body=dist.body,
        varies=dist.units,
        splits=splits,
        held_out=dist.held_out,
        horizon=dist.horizon,
        control_period=dist.control_period,
        score=dist.score,
        observation=str(dist.observation_space),
        action=str(dist.action_space),
    )


def table_rows(description: Description) -> list[list[str]]:
    """The families of tasks as a table, its header first: a row for each family of each split."""
    rows = [["family", "split", "tasks in the list", "what varies"]]
    for split, part in description.splits.items():
        for name, parameters in part.families.items():
            varies = "; ".join(
                f"{parameter} {values} ({description.varies[parameter]})" for parameter, values in parameters.items()
            )
            rows.append([name, split, str(part.num_tasks), varies])
    return rows


def _parameters(family: Family) -> dict[str, str]:
    words: dict[str, str] = {}
    for name, source in family.parameters.items():
        if isinstance(source, Choice):
            words[name] = " or ".join(
                f"{value:g}" if isinstance(value, float) else str(value) for value in source.values
            )
        else:
            words[name] = f"{source.low:g} to {source.high:g}"
    return words
