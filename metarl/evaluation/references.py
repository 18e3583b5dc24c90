"""What runs are held against that was never trained: policies as floors and ceilings, and benchmarks' own evaluations.

Both are found by entry points, in this package as in any other that is installed:

    [project.entry-points."metarl.reference_policies"]        [project.entry-points."metarl.official_evaluations"]
    random = "metarl.agents.fixed:random_reference"           metaworld = "metarl.envs.metaworld.official_evaluation:…"
"""

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

from metarl.evaluation.evaluate import Candidate
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.results import CheckpointRef
from metarl.evaluation.trials import ScoredTasks
from metarl.learning.collect import EnvSource
from metarl.learning.protocols import Agent
from metarl.registry import Registry
from metarl.tasks import Json, Split


@runtime_checkable
class PlayableTasks(ScoredTasks, EnvSource, Protocol):
    """Tasks and the environments that pose them: an `EnvDistribution`."""


ReferencePolicy = Callable[[PlayableTasks, Split, int | None], tuple[PlayableTasks, Agent]]
"""A policy for the first so many tasks of a split's list (all if None), and the distribution that it acts in: another
one where it has to be told more, as a scripted policy is told the goal. ValueError where there is none."""
OfficialEvaluation = Callable[[PlayableTasks, Candidate[Agent], EvaluationSettings], tuple[str, dict[str, Json]]]
"""What a benchmark's own protocol makes of an agent: one line for people, and the figures. ValueError where the
benchmark does not know the distribution."""


def _check_policy(entry: object) -> ReferencePolicy:
    if not callable(entry):
        raise ValueError("it must be a function of a distribution, a split and a number of tasks")
    return cast(ReferencePolicy, entry)  # what it returns is seen when it is called


def _check_official(entry: object) -> OfficialEvaluation:
    if not callable(entry):
        raise ValueError("it must be a function of a distribution, an agent and settings")
    return cast(OfficialEvaluation, entry)


POLICIES: Registry[ReferencePolicy] = Registry("reference policy", "metarl.reference_policies", _check_policy)
"""Policies that learn nothing, by name."""
OFFICIAL: Registry[OfficialEvaluation] = Registry(
    "benchmark with an official evaluation", "metarl.official_evaluations", _check_official
)
"""Benchmarks' own evaluations, by the first word of their distributions' ids."""


def reference(name: str, dist: PlayableTasks, settings: EvaluationSettings) -> tuple[PlayableTasks, Candidate[Agent]]:
    """A policy that learns nothing, by name or `my_file.py:name`, and where it is to act.

    Raises:
        ValueError: there is no such policy, or none for this distribution.
    """
    dist, agent = POLICIES[name](dist, settings.split, settings.num_tasks)
    return dist, Candidate(agent, agent.init(0), CheckpointRef(name, name, None, "none", 0))


def check_official(dist: PlayableTasks, settings: EvaluationSettings) -> None:
    """Raises ValueError where `official` would, before any work is done."""
    if settings.split != "test":
        raise ValueError(f"an official evaluation is about the test split, not {settings.split}")
    if settings.ablation != "none":
        raise ValueError(f"an official evaluation is of the whole agent, without the ablation {settings.ablation}")
    _ = OFFICIAL[dist.id.partition("-")[0]]


def official(
    dist: PlayableTasks, candidate: Candidate[Agent], settings: EvaluationSettings
) -> tuple[str, dict[str, Json]]:
    """What the benchmark's own protocol makes of an agent.

    Raises:
        ValueError: it has none.
    """
    check_official(dist, settings)
    return OFFICIAL[dist.id.partition("-")[0]](dist, candidate, settings)
