"""Yardsticks for an evaluation: which runs are blind, informed or specialists of a distribution, and what they reach.

A run is known by what it was trained on: task-blind PPO on the distribution itself, by its content hash, is blind; on
its variant `+informed` informed, on `+only-FAMILY` a specialist (see `metarl.envs.variants`).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from metarl.agents.fine_tuned import FineTuned
from metarl.agents.fixed import random_policy
from metarl.agents.ppo import Ppo
from metarl.envs import EnvDistribution
from metarl.envs.variants import INFORMED as INFORMED_VARIANT
from metarl.envs.variants import ONLY, variant
from metarl.errors import UsageError
from metarl.evaluation.evaluate import Candidate, evaluate_with
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.records import (
    BLIND,
    FINE_TUNED,
    INFORMED,
    RANDOM,
    SPECIALIST,
    YARDSTICKS,
    CheckpointRef,
    Yardstick,
)
from metarl.evaluation.results import Evaluation
from metarl.evaluation.trials import TrialJudge
from metarl.learning.collect import CollectorFactory
from metarl.learning.protocols import AdaptationProtocol, Agent
from metarl.runs import zoo
from metarl.runs.trained import TrainedAgent, load


@final
@dataclasses.dataclass(frozen=True)
class YardstickRuns:
    """The trained policies that agents on a distribution are held against."""

    dist: EnvDistribution
    by_name: Mapping[str, tuple[TrainedAgent, ...]]
    """Those of `blind` and `informed`, one for each seed; those of `specialist`, one for each family."""

    @classmethod
    def of(cls, dist: EnvDistribution, runs: Sequence[TrainedAgent]) -> "YardstickRuns":
        """The runs, each under the name that it goes by.

        Raises:
            UsageError: one is no yardstick of the distribution; the message says what it was trained on.
        """
        names, by_name = _names_by_hash(dist), dict[str, tuple[TrainedAgent, ...]]()
        for run in runs:
            experiment = run.run.config.experiment
            name = names.get(experiment.distribution_hash) if isinstance(run.agent, Ppo) else None
            if name is None:
                raise UsageError(
                    f"{run.run.folder} is no yardstick of {dist.id} ({dist.hash}): it is {experiment.learner} on "
                    f"{experiment.distribution} ({experiment.distribution_hash}); yardsticks are ppo on {dist.id}, "
                    f"{dist.id}{INFORMED_VARIANT}, {dist.id}{ONLY}FAMILY or {dist.id}{INFORMED_VARIANT}{ONLY}FAMILY"
                )
            by_name[name] = (*by_name.get(name, ()), run)
        return cls(dist, by_name)

    def missing(self) -> tuple[str, ...]:
        """For each of blind and informed that is not there, a line that says how to make it."""
        wanted = {BLIND: ""}
        if _variant(self.dist, INFORMED_VARIANT) is not None:
            wanted[INFORMED] = INFORMED_VARIANT
        return tuple(
            f"no {name} policy of {self.dist.id} to hold this against; make one: "
            f"train ppo --env {self.dist.id}{suffix} --run runs/{self.dist.id}-{name}, then name that after --beside"
            for name, suffix in wanted.items()
            if name not in self.by_name
        )

    def measure(
        self, evaluation: Evaluation, collectors: CollectorFactory, on_progress: Callable[[float], object]
    ) -> dict[str, Yardstick]:
        """What they reach on an evaluation's tasks, with as many episodes, from the same seed."""
        settings = _settings(evaluation, num_adaptations=0)
        measured: dict[str, Yardstick] = {}
        steps = 1 + sum(len(runs) for runs in self.by_name.values())

        def next_step() -> None:
            on_progress(min(1.0, (1 + len(measured)) / (steps + 1)))

        random = random_policy(self.dist.spaces)
        nothing = CheckpointRef(RANDOM, RANDOM, None, "none", 0)
        measured[RANDOM] = _scores(self.dist, Candidate(random, random.init(0), nothing), settings, collectors)
        for name in (BLIND, INFORMED):
            next_step()
            if runs := self.by_name.get(name):
                parts = [_scores(run.dist, run.candidate, settings, collectors) for run in runs]
                measured[name] = _together(parts)
        if (adapts := evaluation.config.adaptations[-1]) and (runs := self.by_name.get(BLIND)):
            tuning = _settings(evaluation, num_adaptations=adapts)
            parts = [_scores(run.dist, _fine_tuned(run, tuning), tuning, collectors) for run in runs]
            measured[FINE_TUNED] = _together(parts)
        next_step()
        if runs := self.by_name.get(SPECIALIST):
            measured[SPECIALIST] = _by_family(evaluation, runs, settings, collectors)
        return {name: measured[name] for name in YARDSTICKS if name in measured}


def in_zoo(dist: EnvDistribution, device: str = "cpu") -> tuple[TrainedAgent, ...]:
    """The yardsticks of a distribution that come with the package; those of another version of it are left out."""
    runs: list[TrainedAgent] = []
    for folder in zoo.of_distribution(dist.id):
        run = load(folder, device=device)
        assert isinstance(run, TrainedAgent), "the zoo's tests see to it"
        if isinstance(run.agent, Ppo) and run.run.config.experiment.distribution_hash == run.dist.hash:
            runs.append(run)
    return tuple(runs)


def _names_by_hash(dist: EnvDistribution) -> dict[str, str]:
    """What PPO trained on a distribution, or on a variant of it, is called, by the hash of what it was trained on."""
    names = {dist.hash: BLIND}
    bases = [dist]
    if (told := _variant(dist, INFORMED_VARIANT)) is not None:
        names[told.hash] = INFORMED
        bases.append(told)
    specialists = (_variant(base, ONLY + family) for base in bases for family in dist.families)
    return {each.hash: SPECIALIST for each in specialists if each is not None} | names


def _variant(dist: EnvDistribution, suffix: str) -> EnvDistribution | None:
    """A variant of a distribution; None where it has no such variant."""
    try:
        return variant(dist, suffix)
    except ValueError:
        return None


def _settings(evaluation: Evaluation, num_adaptations: int) -> EvaluationSettings:
    config = evaluation.config
    assert config.actions is not None, "yardsticks are for agents"
    return EvaluationSettings(
        split=config.split,
        num_tasks=len(evaluation.tasks),
        num_adaptations=num_adaptations,
        episodes_per_adaptation=config.episodes_per_adaptation,
        trials=config.trials,
        seed=config.seed,
        actions=config.actions,
        swap_control=False,
    )


def _scores(
    dist: EnvDistribution, candidate: Candidate[Agent], settings: EvaluationSettings, collectors: CollectorFactory
) -> Yardstick:
    """What one policy reaches at the end of its trials."""
    with contextlib.closing(collectors.open(dist, candidate.state.device)) as collector:
        evaluation = evaluate_with(TrialJudge(dist, collector), candidate, settings)
    return Yardstick(evaluation.sources, evaluation.scores[:, :, -1].mean(1))


def _fine_tuned(run: TrainedAgent, settings: EvaluationSettings) -> Candidate[Agent]:
    assert isinstance(run.agent, Ppo)
    assert settings.num_adaptations is not None
    assert settings.episodes_per_adaptation is not None
    protocol = AdaptationProtocol(settings.num_adaptations, settings.episodes_per_adaptation)
    return dataclasses.replace(run.candidate, learner=FineTuned(run.agent, protocol))


def _together(parts: Sequence[Yardstick]) -> Yardstick:
    """Several seeds as one yardstick."""
    return Yardstick(
        tuple(source for part in parts for source in part.sources), np.concatenate([part.scores for part in parts])
    )


def _by_family(
    evaluation: Evaluation, runs: Sequence[TrainedAgent], settings: EvaluationSettings, collectors: CollectorFactory
) -> Yardstick:
    """On each task the specialist of its family."""
    scores: Float[np.ndarray, "seed task"] = np.full((1, len(evaluation.tasks)), np.nan)
    sources: list[CheckpointRef] = []
    for run in runs:
        part, family = _scores(run.dist, run.candidate, settings, collectors), run.dist.space.train[0].name
        own = np.array([task.family == family for task in evaluation.tasks])
        scores[:, own] = part.scores[:, own]
        sources += part.sources
    return Yardstick(tuple(sources), scores)
