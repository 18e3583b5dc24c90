"""Records an agent before and after adaptation, side by side: `record_video.py runs/ice --split test --task ice`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.commands.options import Machine, parse, trial_schedule
from metarl.envs import rendering
from metarl.errors import UsageError
from metarl.evaluation import video
from metarl.evaluation.evaluate import SEED
from metarl.runs.files import writing
from metarl.runs.progress import progress
from metarl.runs.trained import Trained, Which, load
from metarl.tasks import Split, Task


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """What to record."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    split: Split = "test"
    """Which of the distribution's frozen lists the task is taken from."""
    task: str | None = None
    """A task's id, or a family (`ice`) whose first task is taken; the first of the list if not given."""
    checkpoint: Which = "last"
    """The last checkpoint, or the best on validation."""
    rounds: int | None = None
    """Adaptations before the right-hand side; as trained if not given."""
    episodes: int | None = None
    """Episodes in each adaptation; as trained if not given."""
    every: int = 1
    """Environment steps between pictures."""
    width: int = 480
    """Width of one side, pixels."""
    height: int = 360
    """Height of one side, pixels."""
    evaluation_seed: int = SEED
    """Decides the resets and the actions' noise."""
    output: Path | None = None
    """The file; `videos/<split>-<task>.mp4` in the run's folder if not given."""
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        for name in ("every", "width", "height"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("width", "height"):
            if getattr(self, name) % 2:
                raise ValueError(f"--{name} must be even, which the video's format asks for, got {getattr(self, name)}")


def program(arguments: Sequence[str], name: str) -> None:
    """Records one task."""
    options = parse(VideoOptions, arguments, name, __doc__)
    options.machine.use()
    rendering.use()
    trained = load(options.run, options.checkpoint, options.machine.threads, options.machine.device)
    task = find_task(trained, options.split, options.task)
    path = options.output or trained.run.videos / f"{options.split}-{task.id}.mp4"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    schedule = trial_schedule(trained.agent.schedule, options.rounds, options.episodes)
    with progress(f"recording {task}", 100) as shown:
        recording = video.record(
            trained.agent,
            trained.state,
            trained.dist,
            task,
            path,
            schedule=schedule,
            round_name=trained.agent.round_name,
            seed=options.evaluation_seed,
            every=options.every,
            width=options.width,
            height=options.height,
            on_progress=lambda done, total: shown.update(100 * done // total, {}),
        )
    print(f"{recording.path}: return {recording.before:.1f} before adaptation, {recording.after:.1f} after")


def find_task(trained: Trained, split: Split, name: str | None) -> Task:
    """A task of the split's list by id or family.

    Raises:
        UsageError: there is none; the message names the families there are.
    """
    tasks = trained.dist.tasks(split)
    for task in tasks:
        if name in (None, task.id, task.family):
            return task
    families = ", ".join(dict.fromkeys(task.family for task in tasks))
    raise UsageError(f"no {split} task {name!r} in {trained.dist.id}: name a family ({families}) or a task's id")
