"""Trains an agent: `train.py maml --env cheetah-direction --run runs/dir`. The same command again resumes."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from metarl import agents, provenance, runs
from metarl.agents import MamlTrpoConfig, PpoConfig, Rl2PpoConfig
from metarl.commands.options import Machine, Place, distribution, parse, usage
from metarl.envs import EnvDistribution
from metarl.evaluation import Candidate, evaluate
from metarl.learner import Figures, State
from metarl.rollout import Sampler
from metarl.scores import Source
from metarl.training import LoopConfig, Training, train


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What to train, on what, and for how long."""

    agent: (
        Annotated[MamlTrpoConfig, tyro.conf.subcommand("maml", description="Adapts by gradient steps: MAML-TRPO.")]
        | Annotated[Rl2PpoConfig, tyro.conf.subcommand("rl2", description="Adapts through its memory: RL², by PPO.")]
        | Annotated[PpoConfig, tyro.conf.subcommand("ppo", description="Does not adapt: one PPO for all tasks.")]
    )
    env: str
    """The task distribution's id."""
    place: Place
    loop: LoopConfig = LoopConfig(steps=500)
    validation_tasks: int = 20
    """Validation tasks that the score is the mean over; all where there are fewer."""
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        if self.validation_tasks < 1:
            raise ValueError(f"--validation-tasks must be at least 1, got {self.validation_tasks}")


def program(arguments: Sequence[str], name: str) -> None:
    """Trains in the run's folder, new or begun."""
    train_agent(parse(TrainOptions, arguments, name, __doc__))


def train_agent(options: TrainOptions) -> None:
    """Trains in the run's folder, new or begun."""
    machine, place = options.machine, options.place
    machine.use()
    dist = distribution(options.env)
    with usage():
        agent = agents.make(options.agent, dist, machine.threads, machine.device)
    experiment = _experiment(options, dist)
    sampler = Sampler(dist, machine.threads, machine.device)
    source = Source(experiment.learner, place.run.name, place.seed, "last", 0)
    count = min(options.validation_tasks, len(dist.tasks("validation")))

    def validate(state: State) -> Figures:
        candidate = Candidate(agent, state, source, dist.hash)
        found = evaluate(candidate, dist, "validation", num_tasks=count, sampler=sampler)
        curve = found.curve()
        figures = {"validation": curve[-1].mean.value, "validation_before": curve[0].mean.value}
        if found.returns is not None:
            figures["validation_return"] = found.of_returns().curve()[-1].mean.value
        return figures

    environment = provenance.environment(machine.threads)
    with runs.claim(place.run, experiment, steps=options.loop.steps, environment=environment) as run:
        shown = ("env_steps", *agent.shown, "validation")
        finished = train(Training(agent, dist, validate, shown), run, options.loop)
        print(f"{run.folder}: {'done' if finished else 'stopped; the same command goes on from here'}")


def _experiment(options: TrainOptions, dist: EnvDistribution) -> runs.Experiment:
    """What decides the results."""
    loop = {name: value for name, value in dataclasses.asdict(options.loop).items() if name != "steps"}
    return runs.Experiment(
        learner=agents.name_of(options.agent),
        options={
            "agent": dataclasses.asdict(options.agent),
            "loop": loop | {"validation_tasks": options.validation_tasks},
        },
        distribution=dist.id,
        distribution_hash=dist.hash,
        seed=options.place.seed,
        device=options.machine.device,
    )
