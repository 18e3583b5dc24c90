"""Trains an agent: `train.py maml --env cheetah-direction --run runs/dir`. The same command again resumes."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from metarl import agents
from metarl.agents import MamlTrpoConfig, PpoConfig, Rl2PpoConfig
from metarl.commands.options import Machine, Place, distribution, experiment, parse, state_of, usage
from metarl.errors import UsageError
from metarl.evaluation.evaluate import Candidate, evaluate
from metarl.evaluation.results import Source
from metarl.learning.collect import Sampler
from metarl.learning.protocols import Figures, State
from metarl.learning.training import LoopConfig, Training, train
from metarl.runs import provenance, run_folder


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
    start_from: Path | None = None
    """Begin with what another run had learned: one of its checkpoints, runs/other/checkpoints/500. Options may differ,
    the sizes of networks may not. Steps count from 0 again."""
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
    name = agents.name_of(options.agent)
    decided = {"agent": dataclasses.asdict(options.agent), "loop": {"validation_tasks": options.validation_tasks}}
    if options.start_from is not None:
        decided["start"] = {"from": str(options.start_from)}
    sampler = Sampler(dist, machine.threads, machine.device)
    source = Source(name, place.run.name, place.seed, "last", 0)
    count = min(options.validation_tasks, len(dist.tasks("validation")))

    def validate(state: State) -> Figures:
        candidate = Candidate(agent, state, source, dist.hash)
        found = evaluate(candidate, dist, "validation", num_tasks=count, sampler=sampler)
        curve = found.curve()
        figures = {"validation": curve[-1].mean.value, "validation_before": curve[0].mean.value}
        if found.returns is not None:
            figures["validation_return"] = found.of_returns().curve()[-1].mean.value
        return figures

    @functools.cache  # asked for before a new run is written, and by the training
    def start(seed: int) -> State:
        fresh = agent.init(seed)
        return fresh if options.start_from is None else taken_over(options.start_from, fresh, machine.device)

    if not run_folder.begun(place.run):
        start(place.seed)  # so that a beginning that does not fit is refused before anything is written
    decides = experiment(name, decided, options.loop, dist, place, machine)
    environment = provenance.environment(machine.threads)
    with run_folder.claim(place.run, decides, steps=options.loop.steps, environment=environment) as run:
        shown = ("env_steps", *agent.shown, "validation")
        finished = train(Training(agent, dist, validate, shown, start), run, options.loop)
        print(f"{run.folder}: {'done' if finished else 'stopped; the same command goes on from here'}")


def taken_over(checkpoint: Path, fresh: State, device: str) -> State:
    """What a checkpoint holds, for a learner that would begin with `fresh`.

    Raises:
        UsageError: it is not a checkpoint's folder, or of a learner of another kind or size.
        BrokenCheckpointError: it is damaged.
    """
    saved = state_of(checkpoint)
    for there, here in ((saved.parameters, fresh.parameters), (saved.optimizer, fresh.optimizer)):
        if different := _different(there, here):
            raise UsageError(f"--start-from {checkpoint} is of another learner: {different}")
    return saved.to(device)


def _different(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> str:
    """The first tensor that only one of them has, or that has another shape; empty if there is none."""
    for name in (*here, *there):
        shapes = [tuple(part[name].shape) if name in part else "missing" for part in (there, here)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]} there and {shapes[1]} here"
    return ""
