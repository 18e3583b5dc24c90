"""Records an agent before and after adaptation, side by side: `record_video.py runs/ice --split test --task ice`."""

import contextlib
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.commands.options import ComputeOptions, TrustOptions, check_output, parse, usage
from metarl.envs import rendering
from metarl.errors import UsageError
from metarl.evaluation import video
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.trials import trial_protocol
from metarl.learning.collect import Collector
from metarl.runs import files, run_folder, zoo
from metarl.runs.files import writing
from metarl.runs.progress import progress
from metarl.runs.run_folder import Which
from metarl.runs.trained import TrainedAgent, load_agent
from metarl.tasks import Split, Task

MOST_PIXELS, MOST_EVERY = 4096, 1000
"""A side of a picture, pixels; environment steps between pictures."""


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
    adaptations: int | None = None
    """Adaptations before the right-hand side; as trained if not given. With none there is one side."""
    episodes: int | None = None
    """Episodes before each adaptation; as trained if not given."""
    every: int = 1
    """Environment steps between pictures."""
    width: int = 480
    """Width of one side, pixels."""
    height: int = 360
    """Height of one side, pixels."""
    evaluation_seed: int = EvaluationSettings().seed
    """Decides the resets and the actions' noise."""
    output: Path | None = None
    """The .mp4 file; `videos/<split>-<task>.mp4` in the run's folder if not given."""
    trust: TrustOptions = TrustOptions()
    compute: ComputeOptions = ComputeOptions()

    def __post_init__(self) -> None:
        for name, most in (("every", MOST_EVERY), ("width", MOST_PIXELS), ("height", MOST_PIXELS)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"--{name} must be between 1 and {most}, got {getattr(self, name)}")
        for name in ("width", "height"):
            if getattr(self, name) % 2:
                raise ValueError(f"--{name} must be even, which the video's format asks for, got {getattr(self, name)}")
        if self.output is not None and self.output.suffix != ".mp4":
            raise ValueError(f"--output must end in .mp4, got {self.output}")
        if self.output is not None:
            check_output(self.output)
        _ = self.settings

    @property
    def settings(self) -> EvaluationSettings:
        """What the options say of the trial."""
        return EvaluationSettings(
            num_adaptations=self.adaptations, episodes_per_adaptation=self.episodes, seed=self.evaluation_seed
        )


def program(arguments: Sequence[str], name: str) -> None:
    """Records one task."""
    options = parse(VideoOptions, arguments, name, __doc__)
    options.compute.use()
    rendering.use()
    trust, device = options.trust.trust_code, options.compute.device
    run = load_agent(run_folder.read(zoo.resolve(options.run)), options.checkpoint, device, trust_code=trust)
    task = find_task(run, options.split, options.task)
    if options.output is None and zoo.contains(run.run.folder):
        raise UsageError("name the file by --output: the zoo is only read")
    path = options.output or run.run.videos / f"{options.split}-{task.id}.mp4"
    if options.output is None:
        with writing(path):
            files.make_folder(run.run.videos)
    protocol = trial_protocol(run.agent, options.settings)
    collector = Collector(run.dist, options.compute.threads, options.compute.device)
    with usage(), contextlib.closing(collector), progress(f"recording {task}", 100) as shown:
        columns = video.before_and_after(run.agent, run.state, collector, task, protocol, options.evaluation_seed)
        recording = video.record(
            columns,
            run.dist,
            task,
            path,
            seed=options.evaluation_seed,
            every=options.every,
            width=options.width,
            height=options.height,
            on_progress=lambda done, total: shown.update(100 * done // total, {}),
        )
    returns = zip(columns, recording.returns, strict=True)
    print(f"{recording.path}: return {', '.join(f'{score:.1f} {column.heading}' for column, score in returns)}")


def find_task(run: TrainedAgent, split: Split, name: str | None) -> Task:
    """A task of the split's list by id or family.

    Raises:
        UsageError: there is none; the message names the families there are.
    """
    tasks = run.dist.tasks(split)
    for task in tasks:
        if name in (None, task.id, task.family):
            return task
    families = list(dict.fromkeys(task.family for task in tasks))
    near = difflib.get_close_matches(str(name), [*families, *(task.id for task in tasks)], n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(
        f"no {split} task {name!r} in {run.dist.id}: name a family ({', '.join(families)}) or a task's id{hint}"
    )
