"""`metarl.load`: the trained learner of a run's folder."""

import dataclasses
from pathlib import Path
from typing import Literal, final

from metarl import agents, envs
from metarl.envs import EnvDistribution
from metarl.errors import UsageError
from metarl.evaluation.evaluate import Candidate
from metarl.evaluation.results import CheckpointRef
from metarl.evaluation.trials import TrialJudge
from metarl.learning.collect import Collector
from metarl.learning.protocols import Agent, State
from metarl.runs import checkpoints, run_folder
from metarl.runs.run_folder import Run
from metarl.runs.session import counted_steps

Which = Literal["last", "best"]


@final
@dataclasses.dataclass(frozen=True)
class TrainedAgent:
    """An agent as a run left it."""

    run: Run
    """The run's folder and its config."""
    dist: EnvDistribution
    """The distribution it was trained on, as this version makes it."""
    agent: Agent
    """The agent: its options and architecture."""
    state: State
    """What it has learned."""
    ref: CheckpointRef
    """Which run and which checkpoint this is."""
    env_steps: int
    """Environment steps it had been trained for."""

    def __repr__(self) -> str:
        return (
            f"<{self.ref.learner} of {self.run.folder}: trained on {self.dist.id}, seed {self.ref.seed}, "
            f"{self.ref.checkpoint} checkpoint, outer step {self.ref.step}, {self.env_steps:,} environment steps>"
        )

    @property
    def candidate(self) -> Candidate[Agent]:
        """What an evaluation asks for."""
        trained_on = self.run.config.experiment.distribution_hash
        return Candidate(self.agent, self.state, self.ref, trained_on)

    def judge(self, dist: EnvDistribution | None, threads: int) -> TrialJudge:
        """Who judges it on a distribution; on the one that it was trained on if None.

        Raises:
            ValueError: the distribution has other spaces than the one that it was trained on.
        """
        dist = dist or self.dist
        if dist.spaces != self.dist.spaces:
            raise ValueError(
                f"{self.run.folder} was trained on {self.dist.id} with {self.dist.spaces}; {dist.id} has {dist.spaces}"
            )
        return TrialJudge(dist, Collector(dist, threads, self.state.device))


def load(folder: Path | str, which: Which = "last", device: str = "cpu") -> TrainedAgent:
    """The trained learner of a run.

    Args:
        folder: the run's folder.
        which: the last checkpoint, or the best on validation.
        device: where the learner computes.

    Raises:
        UsageError: no run there, no checkpoint yet, or what it was trained on is not there any more.
        RunError: every checkpoint is damaged, or does not fit the learner; or the config is not one of this version.
    """
    run = run_folder.read(Path(folder))
    experiment = run.config.experiment
    try:
        dist = envs.make(experiment.distribution)
        kind = agents.REGISTRY[experiment.learner]
    except ValueError as error:
        raise UsageError(f"{folder} was trained on what is not there any more: {error}") from error
    config = run_folder.options_from_json(kind, experiment.options.get("learner"), run.folder)
    agent = config.build(dist.spaces, device)
    saved = checkpoint_of(run, which)
    checkpoints.check_state(saved.state, agent.init(0), f"the checkpoint of step {saved.step} in {folder}")
    label = "last" if which == "last" else "best on validation"
    ref = CheckpointRef(experiment.learner, run.folder.name, experiment.seed, label, saved.step, saved.content)
    return TrainedAgent(run, dist, agent, saved.state.to(device), ref, counted_steps(saved))


def checkpoint_of(run: Run, which: Which) -> checkpoints.Checkpoint:
    """The last checkpoint of a run, or the best on validation.

    Raises:
        UsageError: there is none yet.
        RunError: every one is damaged.
    """
    saved = (checkpoints.latest if which == "last" else checkpoints.best)(run.checkpoints)
    if saved is None:
        raise UsageError(f"{run.folder} has no {'' if which == 'last' else 'validated '}checkpoint yet; train it first")
    return saved
