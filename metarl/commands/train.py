"""Trains an agent: `train.py maml --env cheetah-direction --run runs/dir`. The same command again resumes.

An agent or a distribution of your own: `train.py my_file.py:MyConfig --env my_file.py:pendulum --run runs/mine`.

How long it takes: 110 outer steps of rl2 on cheetah-terrain about nine minutes on two cores. The progress line says
how long is left.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

from metarl import agents
from metarl.agents import AgentConfig
from metarl.commands.options import (
    ComputeOptions,
    RunOptions,
    distribution,
    learner_id,
    parse,
    subcommands,
    usage,
)
from metarl.commands.workers import WorkerOptions
from metarl.errors import DivergedError, warn
from metarl.evaluation.evaluate import Candidate, evaluate_with
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.records import CheckpointRef
from metarl.evaluation.trials import TrialJudge
from metarl.learning.protocols import Metrics, State
from metarl.learning.sharding import PartWorkers, ShardableLearner
from metarl.learning.sources import TrialSource
from metarl.registry import canonical
from metarl.runs.decoding import options_to_json
from metarl.runs.files import as_text
from metarl.runs.interrupt import interruption_point
from metarl.runs.session import SCORE, RunRequest, TrainingOptions, train
from metarl.runs.warm_start import warm_agent

Config = TypeVar("Config", bound=AgentConfig)


@dataclasses.dataclass(frozen=True)
class TrainOptions(Generic[Config]):
    """What to train, on what, and for how long."""

    agent: Config
    env: str
    """The task distribution's id; my_file.py:name or my_module:name for one of your own."""
    run: RunOptions
    loop: TrainingOptions = TrainingOptions(steps=500)
    validation_tasks: int = 20
    """Validation tasks that the score is the mean over; all where there are fewer."""
    start_from: Path | None = None
    """Begin with what another run had learned: its last checkpoint (runs/other, zoo:cheetah-terrain/blind) or
    any (runs/other/checkpoints/500). Options may differ, networks may not. maml and promp also begin with the policy
    of ppo; before adaptation they are then the task-blind policy. Steps count from 0 again."""
    overlap: bool = False
    """Collect the next outer step's trials while this one's are learned from, with the parameters from before it: more
    steps a second where cores are idle, and other results. For ppo, rl2, varibad and agents of your own that can."""
    compute: ComputeOptions = ComputeOptions()
    workers: WorkerOptions = WorkerOptions()

    def __post_init__(self) -> None:
        if self.validation_tasks < 1:
            raise ValueError(f"--validation-tasks must be at least 1, got {self.validation_tasks}")


def program(arguments: Sequence[str], name: str) -> None:
    """Trains in the run's folder, new or begun."""
    train_agent(*parse_training(arguments, name))


def parse_training(arguments: Sequence[str], name: str) -> tuple[str, TrainOptions[AgentConfig]]:
    """The agent's id and all options, from a program's arguments."""
    chosen = cast(type[AgentConfig], subcommands(agents.REGISTRY, arguments))
    options = parse(TrainOptions[chosen], arguments, name, __doc__)
    return learner_id(agents.REGISTRY, options.agent, arguments), options


def train_agent(learner: str, options: TrainOptions[AgentConfig]) -> None:
    """Trains in the run's folder, new or begun."""
    compute, seed = options.compute, options.run.seed
    compute.use()
    dist = distribution(options.env)
    with usage():
        agent = options.agent.build(dist.spaces, compute.device)
    count = min(options.validation_tasks, len(dist.tasks("validation")))
    settings = EvaluationSettings(split="validation", num_tasks=count, swap_control=False)
    ref = CheckpointRef(learner, as_text(options.run.run.name), seed, "last", 0)
    with usage():
        groups: dict[str, dict[str, object]] = {
            "learner": dict(options_to_json(options.agent)),
            "validation": {"tasks": options.validation_tasks},
        }
    if options.start_from is not None:
        groups["start"] = {"from": str(options.start_from)}
    request = RunRequest(
        folder=options.run.run,
        kind="agent",
        learner=learner,
        options=groups,
        distribution=canonical(options.env),
        distribution_hash=dist.hash,
        training=options.loop,
        seed=seed,
        device=compute.device,
        threads=compute.threads,
        overlap=options.overlap,
    )

    def first_state(seed: int) -> State:
        fresh = agent.init(seed)
        if options.start_from is None:
            return fresh
        return warm_agent(options.start_from, learner, agent, dist.spaces, fresh)

    with (
        options.workers.open(compute, interruption_point) as collectors,
        contextlib.closing(collectors.open(dist, compute.device)) as collector,
    ):
        if isinstance(agent, ShardableLearner) and isinstance(collectors, PartWorkers):
            agent = agent.with_executor(collectors.executor)
        judge = TrialJudge(dist, collector)

        def validate(state: State) -> Metrics:
            try:
                found = evaluate_with(judge, Candidate(agent, state, ref, dist.hash), settings)
            except DivergedError as error:  # of a bad policy: no reason to stop
                warn(f"no validation score: {error}")
                return {}
            curve = found.curve()
            beside = {f"validation_{name}": float(values[:, :, -1].mean()) for name, values in found.metrics.items()}
            return {SCORE: curve[-1].mean.value, "validation_before": curve[0].mean.value, **beside}

        run = train(request, agent, TrialSource(dist, collector), validate, first_state=first_state)
    print(f"{run.folder}: done; next: metarl evaluate {run.folder}")
