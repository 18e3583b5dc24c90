"""`metarl.load`: the trained learner of a run's folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, final

from metarl import agents, envs
from metarl.agents import AgentConfig
from metarl.envs import EnvDistribution
from metarl.errors import RunError, UsageError
from metarl.evaluation.results import Source
from metarl.learning.protocols import Agent, State
from metarl.runs import checkpoints, run_folder

Which = Literal["last", "best"]


@final
@dataclasses.dataclass(frozen=True)
class Trained:
    """An agent as a run left it."""

    run: run_folder.Run
    """The run's folder and its config."""
    dist: EnvDistribution
    """The distribution it was trained on, as this version makes it."""
    agent: Agent
    """The agent: its options and architecture."""
    state: State
    """What it has learned."""
    source: Source
    """Which run and which checkpoint this is."""
    env_steps: int
    """Environment steps it had been trained for."""

    @property
    def distribution_hash(self) -> str:
        """The content hash of the distribution it was trained on."""
        return self.run.config.experiment.distribution_hash


def load(folder: Path | str, which: Which = "last", threads: int = 1, device: str = "cpu") -> Trained:
    """The trained agent of a run.

    Args:
        folder: the run's folder.
        which: the last checkpoint, or the best on validation.
        threads: threads that step the physics.
        device: where the agent computes.

    Raises:
        UsageError: no run there, no checkpoint yet, or not of an agent (a few-shot learner, say).
        RunError: every checkpoint is damaged, or the config is not one of this version.
    """
    run = run_folder.read(Path(folder))
    experiment = run.config.experiment
    if experiment.learner not in agents.CONFIGS:
        raise UsageError(
            f"{folder} is a run of {experiment.learner} on {experiment.distribution}, not of an agent; "
            "metarl.fewshot.load takes few-shot learners"
        )
    try:
        dist = envs.make(experiment.distribution)
    except ValueError as error:
        raise UsageError(f"{folder} was trained on what is not there any more: {error}") from error
    find = checkpoints.latest if which == "last" else checkpoints.best
    saved = find(run.checkpoints)
    if saved is None:
        raise UsageError(f"{folder} has no {'' if which == 'last' else 'validated '}checkpoint yet; train it first")
    agent = agents.make(config_from_json(experiment.learner, experiment.options, folder), dist, threads, device)
    label = "last" if which == "last" else "best on validation"
    source = Source(experiment.learner, run.folder.name, experiment.seed, label, saved.step)
    env_steps = saved.extra.get("env_steps", 0)
    if not isinstance(env_steps, int):
        raise RunError(f"{folder}: the checkpoint of step {saved.step} counts {env_steps!r} environment steps")
    return Trained(run, dist, agent, saved.state.to(device), source, env_steps)


def config_from_json(learner: str, options: Mapping[str, object], folder: Path | str) -> AgentConfig:
    """An agent's options as they stand in `config.json`.

    Raises:
        RunError: they are not options of this version's agent.
    """
    return run_folder.options_from_json(agents.CONFIGS[learner], options.get("agent"), Path(folder))
