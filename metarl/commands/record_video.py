"""Records an agent before and after adaptation, side by side: `record_video.py runs/ice --split test --task ice`.

How long it takes: two sides of 200 steps on ice 13 s of a processor's time, where nothing else draws, and 4 s with
`--every 4`.
"""

import contextlib
import dataclasses
import difflib
import math
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, final

import tyro

from metarl.commands.options import ComputeOptions, TrustOptions, check_output, distribution, parse, usage
from metarl.envs import EnvDistribution, rendering
from metarl.errors import UsageError
from metarl.evaluation import encoding, video
from metarl.evaluation.evaluate import Candidate
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.reading import read_evaluation
from metarl.evaluation.records import BLIND, LESS_IS_BETTER
from metarl.evaluation.references import reference
from metarl.evaluation.trials import trial_protocol
from metarl.learning.collect import Collector
from metarl.learning.protocols import Agent
from metarl.runs import files, zoo
from metarl.runs.decoding import unreadable
from metarl.runs.files import writing
from metarl.runs.progress import progress
from metarl.runs.run_folder import Which, evaluation_name
from metarl.runs.trained import TrainedAgent, load_agent
from metarl.runs.yardsticks import YardstickRuns, in_zoo
from metarl.tasks import Split, Task

MOST_PIXELS, MOST_EVERY, MOST_TASKS = 4096, 1000, 100
"""A side of a picture, pixels; environment steps between pictures."""


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """What to record."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """The run's folder."""
    split: Split = "test"
    """Which of the distribution's frozen lists the task is taken from."""
    task: str | None = None
    """A task's id, a family (`ice`) whose first task is taken, or `worst`, `median` or `best` of the run's evaluation
    on the split; the first of the list if not given."""
    where: tuple[str, ...] = ()
    """Only tasks whose parameters fulfil this: `friction<0.05`, `slope>=3`."""
    grid: int = 1
    """Show this many tasks in a grid, after adaptation; the first that fit, or the worst (median, best) ones."""
    every_point: bool = False
    """A side for every point of the trial, not only before and after: the episodes of an agent with memory in turn."""
    blind: bool = False
    """A side to the left for the distribution's blind policy, which never adapts, of those that the zoo has; a robot
    also runs along as a ghost on the other sides."""
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
    policy: str | None = None
    """Instead of a run: `random`, my_file.py:name for a function of one observation, or a model of Stable-Baselines3,
    my_model.zip; as `evaluate` takes them."""
    trust_pickle: bool = False
    """Read the --policy's .zip file although what is pickled in it can run any code here: for files of your own, or of
    somebody you trust."""
    env: str | None = None
    """The distribution that the policy is recorded on."""
    output: Path | None = None
    """The .mp4 or .gif file; `videos/<split>-<task>.mp4` in the run's folder if not given."""
    trust: TrustOptions = TrustOptions()
    compute: ComputeOptions = ComputeOptions()

    def __post_init__(self) -> None:
        bounds = (("every", MOST_EVERY), ("width", MOST_PIXELS), ("height", MOST_PIXELS), ("grid", MOST_TASKS))
        for name, most in bounds:
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"--{name} must be between 1 and {most}, got {getattr(self, name)}")
        for name in ("width", "height"):
            if getattr(self, name) % 2:
                raise ValueError(f"--{name} must be even, which the video's format asks for, got {getattr(self, name)}")
        if (self.run is None) == (self.policy is None) or (self.policy is None) != (self.env is None):
            raise ValueError("name a run's folder, or a --policy and the --env that it acts in")
        if self.policy is not None and self.output is None:
            raise ValueError("--policy has no folder for its video: name a file by --output")
        if self.policy is not None and (self.adaptations or self.checkpoint != "last" or self.task in _RANKS):
            raise ValueError("--policy learns nothing: --adaptations, --checkpoint and ranks of tasks are for runs")
        if self.trust_pickle and (self.policy is None or not self.policy.endswith(".zip")):
            raise ValueError("--trust-pickle is about a --policy's .zip file")
        if self.output is not None:
            encoding.check_name(self.output)
            check_output(self.output)
        if self.grid > 1 and self.every_point:
            raise ValueError("--grid shows tasks after adaptation, --every-point one task in turn: choose one")
        _ = [Condition.parse(text) for text in self.where]
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
    subject = subject_of(options)
    dist, tasks = subject.dist, subject.tasks
    task, learner, state = tasks[0], subject.candidates[0].learner, subject.candidates[0].state
    path = options.output or _prepared(subject, options, task)
    protocol = trial_protocol(learner, options.settings)
    collector = Collector(dist, options.compute.threads, options.compute.device)
    with usage(), contextlib.closing(collector), progress(f"recording {task}", 100) as shown:
        seed = options.evaluation_seed
        if len(tasks) > 1:
            agents = [candidate.learner for candidate in subject.candidates]
            columns = video.adapted_on_each(agents, state, collector, tasks, protocol, seed, dist.units)
        else:
            film = video.every_point if options.every_point else video.before_and_after
            columns = film(learner, state, collector, task, protocol, seed)
        if options.blind:
            columns = (_blind(dist, options.compute.device), *columns)
        recording = video.record(
            columns,
            dist,
            task,
            path,
            seed=seed,
            every=options.every,
            width=options.width,
            height=options.height,
            ghost=options.blind,
            on_progress=lambda done, total: shown.update(100 * done // total, {}),
        )
    returns = zip(columns, recording.returns, strict=True)
    print(f"{recording.path}: return {', '.join(f'{score:.1f} {column.heading}' for column, score in returns)}")


@final
@dataclasses.dataclass(frozen=True)
class Subject:
    """Who is recorded, and where."""

    dist: EnvDistribution
    tasks: tuple[Task, ...]
    candidates: tuple[Candidate[Agent], ...]
    """For each task: a run's agent for all of them, a policy that was told its task."""
    run: TrainedAgent | None
    """Where it comes from, if that is a run."""


def subject_of(options: VideoOptions) -> Subject:
    """Who the options name, and the tasks that they choose.

    Raises:
        UsageError: there is no such run, policy or task.
    """
    return _of_run(options.run, options) if options.run is not None else _from_elsewhere(options)


def _of_run(folder: Path, options: VideoOptions) -> Subject:
    trust, device = options.trust.trust_code, options.compute.device
    run = load_agent(folder, options.checkpoint, device, trust_code=trust)
    tasks = find_tasks(run.dist, run, options)
    return Subject(run.dist, tasks, (run.candidate,) * len(tasks), run)


def _blind(dist: EnvDistribution, device: str) -> video.Column:
    """The blind policy of a distribution.

    Raises:
        ValueError: the zoo has none.
    """
    runs = YardstickRuns.of(dist, in_zoo(dist, device)).by_name.get(BLIND)
    if not runs:
        raise ValueError(f"--blind: the zoo has no blind policy of {dist.id} ({dist.hash})")
    return video.Column("blind: never adapts", "episode 1", runs[0].agent.start(runs[0].state, 1))


def _from_elsewhere(options: VideoOptions) -> Subject:
    """A policy by name or file."""
    assert options.policy is not None and options.env is not None, "checked with the options"
    dist = distribution(options.env)
    tasks, shown, candidates = find_tasks(dist, None, options), dist, list[Candidate[Agent]]()
    for task in tasks:
        with usage():
            shown, candidate = reference(options.policy, dist, [task], trusted=options.trust_pickle)
        candidates.append(candidate)
    assert isinstance(shown, EnvDistribution), "as it was made, or a variant of it"
    return Subject(shown, tasks, tuple(candidates), None)


def _prepared(subject: Subject, options: VideoOptions, task: Task) -> Path:
    """The file in the run's own folder of videos, which is made."""
    run = subject.run
    assert run is not None, "--policy comes with --output"
    if zoo.contains(run.run.folder):
        raise UsageError("name the file by --output: the zoo is only read")
    path = run.run.videos / f"{options.split}-{_name(options, task)}.mp4"
    with writing(path):
        files.make_folder(run.run.videos)
    return path


@final
@dataclasses.dataclass(frozen=True)
class Condition:
    """A bound on a task's parameter."""

    parameter: str
    holds: Callable[[float, float], bool]
    bound: float

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """`friction<0.05`.

        Raises:
            ValueError: it is something else.
        """
        match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>|=)\s*(-?[\d.]+(?:e-?\d+)?)\s*", text)
        if match is None:
            raise ValueError(
                f"--where takes a parameter, one of < <= > >= =, and a number: friction<0.05; got {text!r}"
            )
        return cls(match[1], _RELATIONS[match[2]], float(match[3]))

    def fits(self, task: Task) -> bool:
        """Whether the task has such a parameter and fulfils the bound."""
        values = dict(task.parameters)
        value = values.get(self.parameter)
        return isinstance(value, int | float) and self.holds(float(value), self.bound)


_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": math.isclose
}  # fmt: skip
_RANKS = ("worst", "median", "best")


def find_tasks(dist: EnvDistribution, run: TrainedAgent | None, options: VideoOptions) -> tuple[Task, ...]:
    """The tasks of the split's list that the options name, as many as the grid has cells.

    Raises:
        UsageError: there is none, or too few; the message names what there is.
    """
    conditions = [Condition.parse(text) for text in options.where]
    listed = [task for task in dist.tasks(options.split) if all(each.fits(task) for each in conditions)]
    if not listed:
        known = ", ".join(sorted(dist.units))
        raise UsageError(f"no {options.split} task fits --where {' '.join(options.where)}; parameters are {known}")
    if options.task in _RANKS:
        assert run is not None, "checked with the options"
        listed = _ranked(run, options, listed)
    elif options.task is not None:
        first = find_task(listed, options)
        listed = [first, *(task for task in listed if options.task == task.family and task != first)]
    if len(listed) < options.grid:
        raise UsageError(f"--grid {options.grid} needs as many {options.split} tasks, and {len(listed)} fit")
    return tuple(listed[: options.grid])


def _ranked(run: TrainedAgent, options: VideoOptions, listed: Sequence[Task]) -> list[Task]:
    """The tasks by what the run's evaluation on the split found, those asked for first."""
    path = run.run.evaluation_path(evaluation_name(options.split, checkpoint=options.checkpoint))
    try:
        found = read_evaluation(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--task {options.task} is by the evaluation {path}, which {unreadable(error)}: "
            f"metarl evaluate {options.run} --split {options.split}"
        ) from error
    scores = dict(zip(found.tasks, found.scores[:, :, -1].mean((0, 1)).tolist(), strict=True))
    sign = -1 if found.config.score in LESS_IS_BETTER else 1
    ranked = sorted((task for task in listed if task in scores), key=lambda task: sign * scores[task])
    if options.task == "best":
        ranked.reverse()
    elif options.task == "median":
        middle = (len(ranked) - 1) // 2
        order = sorted(range(len(ranked)), key=lambda index: abs(index - middle))
        ranked = [ranked[index] for index in order]
    return ranked


def find_task(tasks: Sequence[Task], options: VideoOptions) -> Task:
    """A task by id or family.

    Raises:
        UsageError: there is none; the message names the families there are.
    """
    for task in tasks:
        if options.task in (task.id, task.family):
            return task
    families = list(dict.fromkeys(task.family for task in tasks))
    near = difflib.get_close_matches(str(options.task), [*families, *_RANKS, *(task.id for task in tasks)], n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(
        f"no {options.split} task {options.task!r} here: name a family ({', '.join(families)}), a task's id, "
        f"or {', '.join(_RANKS)}{hint}"
    )


def _name(options: VideoOptions, task: Task) -> str:
    """What the file is called after its split."""
    rank = f"{options.task}-" if options.task in _RANKS else ""
    shown = f"grid-{options.grid}-{options.task or 'first'}" if options.grid > 1 else f"{rank}{task.id}"
    return f"{shown}-every-point" if options.every_point else shown
