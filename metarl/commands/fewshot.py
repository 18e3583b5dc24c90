"""Trains a few-shot learner, then evaluates it: `fewshot.py maml --data sinusoid --run runs/sinusoid`."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from metarl import checkpoints, provenance, runs
from metarl.commands.options import Machine, Place, parse
from metarl.errors import RunError
from metarl.fewshot import evaluation
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.sinusoid import Sinusoids
from metarl.learner import Figures, State
from metarl.training import LoopConfig, Training, train

_SHOTS = (5, 10)
_INNER_STEPS = (0, 1, 5, 10)


@dataclasses.dataclass(frozen=True)
class FewshotOptions:
    """Which learner, on which data, and for how long."""

    learner: Annotated[Literal["maml"], tyro.conf.Positional]
    """Which learner."""
    place: Place
    data: Literal["sinusoid"] = "sinusoid"
    """The tasks."""
    options: MamlConfig = MamlConfig()
    loop: LoopConfig = LoopConfig(steps=20_000, checkpoint_every=1000, validate_every=1000)
    machine: Machine = Machine(threads=1)


def program(arguments: Sequence[str], name: str) -> None:
    """Trains in the run's folder, new or begun, then evaluates on the held-out tasks."""
    options = parse(FewshotOptions, arguments, name, __doc__)
    options.machine.use(linear_algebra_threads=options.machine.threads)
    data = Sinusoids()
    learner = Maml(options.options, data, options.machine.device)

    def validate(state: State) -> Figures:
        steps = options.options.inner_steps
        errors = evaluation.errors_by_step(learner, data, state, "validation", options.options.shots, [steps])
        return {"validation": -float(errors[steps].mean())}

    environment = provenance.environment(options.machine.threads)
    with runs.claim(
        options.place.run, _experiment(options, data), steps=options.loop.steps, environment=environment
    ) as run:
        finished = train(Training(learner, data, validate, (*learner.shown, "validation")), run, options.loop)
        if not finished:
            print(f"{run.folder}: stopped; the same command goes on from here")
            return
        saved = checkpoints.latest(run.checkpoints)
        if saved is None:
            raise RunError(f"{run.folder} has no checkpoint; train it again")
        found = {
            shots: evaluation.errors_by_step(learner, data, saved.state, "test", shots, _INNER_STEPS)
            for shots in _SHOTS
        }
        print(f"written to {run.write_evaluation('test', evaluation.to_json(found, saved.step))}")
        print(evaluation.table(found))


def _experiment(options: FewshotOptions, data: Sinusoids) -> runs.Experiment:
    """What decides the results."""
    loop = {name: value for name, value in dataclasses.asdict(options.loop).items() if name != "steps"}
    return runs.Experiment(
        learner=f"fewshot-{options.learner}",
        options={"agent": dataclasses.asdict(options.options), "loop": loop},
        distribution=data.id,
        distribution_hash=data.hash,
        seed=options.place.seed,
        device=options.machine.device,
    )
