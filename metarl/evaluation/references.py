"""What runs are held against that was never trained: policies as floors and ceilings, and benchmarks' own evaluations.

Both are found by entry points, in this package as in any other that is installed:

    [project.entry-points."metarl.reference_policies"]        [project.entry-points."metarl.official_evaluations"]
    random = "metarl.agents.fixed:random_reference"           metaworld = "metarl.envs.metaworld.official_evaluation:…"
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from metarl.evaluation.evaluate import Candidate, PlayableTasks, candidate_of
from metarl.evaluation.guests import Function, Model, Policy, guest, load_model
from metarl.evaluation.judge import EvaluationSettings
from metarl.learning.protocols import Agent
from metarl.registry import Registry
from metarl.tasks import Json, Task

ReferencePolicy = Callable[[PlayableTasks, Sequence[Task]], tuple[PlayableTasks, Agent]]
"""A policy for these tasks of a distribution, in their order, and the distribution that it acts in: another one where
it has to be told more, as a scripted policy is told the goal. ValueError where there is none."""
OfficialEvaluation = Callable[[PlayableTasks, Candidate[Agent], EvaluationSettings], tuple[str, dict[str, Json]]]
"""What a benchmark's own protocol makes of an agent: one line for people, and the figures. ValueError where the
benchmark does not know the distribution."""


def _check_policy(entry: object) -> ReferencePolicy | Function | Model:
    if not callable(entry) and not isinstance(entry, Model):
        raise ValueError(
            "it must be a function of one observation, a model of Stable-Baselines3, or a function of a distribution "
            "and its tasks"
        )
    return entry


def _check_official(entry: object) -> OfficialEvaluation:
    if not callable(entry):
        raise ValueError("it must be a function of a distribution, an agent and settings")
    return cast(OfficialEvaluation, entry)


POLICIES: Registry[ReferencePolicy | Function | Model] = Registry(
    "reference policy", "metarl.reference_policies", _check_policy
)
"""Policies that learn nothing, by name."""
OFFICIAL: Registry[OfficialEvaluation] = Registry(
    "benchmark with an official evaluation", "metarl.official_evaluations", _check_official
)
"""Benchmarks' own evaluations, by the first word of their distributions' ids."""


def reference(
    name: str, dist: PlayableTasks, tasks: Sequence[Task], *, trusted: bool = False
) -> tuple[PlayableTasks, Candidate[Agent]]:
    """A policy that learns nothing, and where it is to act.

    Args:
        name: of a reference policy; `my_file.py:name` for one of your own, a function of an observation, or a model of
            Stable-Baselines3; or the .zip file of such a model.
        dist: where it is to act, unless it has to be told more.
        tasks: that it is to act on, in this order.
        trusted: whether a .zip file may run code here, see `metarl.evaluation.guests.load_model`.

    Raises:
        ValueError: there is no such policy, or none for this distribution.
        UsageError: a .zip file that is not trusted, or cannot be read.
    """
    policy = load_model(Path(name), trusted) if name.endswith(".zip") else POLICIES[name]
    if isinstance(policy, Model) or _of_one_observation(policy):
        return dist, candidate_of(guest(cast(Policy, policy), dist.spaces, name), name)
    dist, agent = cast(ReferencePolicy, policy)(dist, tasks)
    return dist, candidate_of(agent, name)


def _of_one_observation(function: Callable[..., object]) -> bool:
    """Whether a function takes one argument, rather than a reference policy's two."""
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return True
    return False


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
