"""Videos: one task, several policies side by side, with captions: before and after adaptation, for example.

All columns have the same resets and the same action noise, so what differs is what differs between the policies. An
agent that keeps memory is no special case: before is the first episode of a trial, after is its last.
"""

import contextlib
import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol, final, runtime_checkable

import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw

from metarl.evaluation import encoding, stills
from metarl.evaluation.encoding import Picture
from metarl.evaluation.trials import ScoredTasks
from metarl.learning.collect import Collector, VectorEnv, point_seeds
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy, Agent, State
from metarl.learning.random_streams import task_seeds
from metarl.learning.spaces import BatchedObservations, Spaces
from metarl.tasks import Scalar, Task

_HOLD = 1.0  # s; how long the last picture stays, to be read
_PARAMETERS = 6  # of a task that a caption names, at most
_TITLE, _CAPTION, _MARGIN = 36, 58, 12  # pixels
_DARK, _LIGHT, _DIM, _ACCENT = (18, 20, 24), (240, 241, 243), (160, 165, 175), (255, 196, 84)


@runtime_checkable
class DrawnVectorEnv(VectorEnv, Protocol):
    """A vector environment that can be drawn: a `TaskVectorEnv`."""

    def picture(self, index: int, width: int, height: int) -> Picture:
        """A picture of one sub-environment; sizes in pixels."""
        ...


@runtime_checkable
class GhostVectorEnv(DrawnVectorEnv, Protocol):
    """One that can also draw the body of another policy on the same task: a `TaskVectorEnv`."""

    def pose(self, index: int) -> ndarray | None:
        """Where a sub-environment's body is; None where nothing could draw it."""
        ...

    def show_ghost(self, pose: ndarray | None) -> None:
        """Draws a translucent body there in the pictures that follow."""
        ...


@runtime_checkable
class VideoSource(ScoredTasks, Protocol):
    """Tasks, and environments that can be drawn: an `EnvDistribution`."""

    @property
    def horizon(self) -> int: ...

    @property
    def spaces(self) -> Spaces: ...

    @property
    def units(self) -> Mapping[str, str]:
        """Each task parameter's unit."""
        ...

    @property
    def control_period(self) -> float:
        """Seconds of the simulated world in one environment step."""
        ...

    def vector_env(self, num_envs: int, threads: int = 1) -> DrawnVectorEnv: ...


@final
@dataclasses.dataclass(frozen=True)
class Column:
    """One policy in a video."""

    heading: str
    """What it is: `before adaptation`."""
    episode: str
    """Which of its episodes is shown: `episode 21`."""
    policy: AdaptedPolicy
    """Of one task."""
    accent: bool = False
    """Whether it is what the video is about, and so in another colour."""
    task: Task | None = None
    """What it is shown on, where that is another task than the video's."""


@final
@dataclasses.dataclass(frozen=True)
class Recording:
    """What a video shows."""

    path: Path
    returns: tuple[float, ...]
    """Undiscounted return of each column's episode."""
    frames: int
    """Pictures in the file."""


class _Frame(NamedTuple):
    """One column of one frame."""

    picture: Picture
    step: int  # environment steps so far
    score: float  # the sum of the rewards so far
    status: tuple[str, ...]  # when it succeeded, where the environment tells, and how it ended
    ended: bool


def before_and_after(
    agent: Agent, state: State, collector: Collector, task: Task, protocol: AdaptationProtocol, seed: int
) -> tuple[Column, ...]:
    """The agent before and after a trial's adaptations on a task; before alone where it does not adapt."""
    policy, spent = agent.start(state, 1), protocol.num_adaptations * protocol.episodes_per_adaptation
    if not protocol.num_adaptations:
        return (Column("without adaptation", "episode 1", policy, accent=True),)
    trial = collector.collect_trials(policy, [task], protocol, task_seeds(seed, 1, num_tasks=1))
    adapted = functools.reduce(lambda adapted, support: adapted.adapt(support), trial.supports, policy)
    heading = f"after adaptation ({_spent(protocol, agent.adaptation_name)})"
    return (
        Column("before adaptation", "episode 1", policy),
        Column(heading, f"episode {spent + 1}", adapted, accent=True),
    )


def every_point(
    agent: Agent, state: State, collector: Collector, task: Task, protocol: AdaptationProtocol, seed: int
) -> tuple[Column, ...]:
    """The agent at every point of a trial on a task: of one that keeps memory, its episodes one after the other."""
    policy, count = agent.start(state, 1), protocol.episodes_per_adaptation
    columns = [Column("before adaptation", "episode 1", policy)]
    if protocol.num_adaptations:
        trial = collector.collect_trials(policy, [task], protocol, task_seeds(seed, 1, num_tasks=1))
        for number, support in enumerate(trial.supports, 1):
            policy = policy.adapt(support)
            last = number == protocol.num_adaptations
            done = dataclasses.replace(protocol, num_adaptations=number)
            heading = f"after {_spent(done, agent.adaptation_name)}"
            columns.append(Column(heading, f"episode {number * count + 1}", policy, accent=last))
    return tuple(columns)


def adapted_on_each(
    agents: Sequence[Agent],
    state: State,
    collector: Collector,
    tasks: Sequence[Task],
    protocol: AdaptationProtocol,
    seed: int,
    units: Mapping[str, str],
) -> tuple[Column, ...]:
    """After a trial's adaptations on each of several tasks, one agent for each: the same one, if it learned."""
    columns = (
        before_and_after(agent, state, collector, task, protocol, seed)[-1]
        for agent, task in zip(agents, tasks, strict=True)
    )
    return tuple(
        dataclasses.replace(column, heading=in_words(task, units), task=task)
        for column, task in zip(columns, tasks, strict=True)
    )


def record(
    columns: Sequence[Column],
    dist: VideoSource,
    task: Task,
    path: Path,
    *,
    seed: int,
    every: int = 1,
    width: int = 480,
    height: int = 360,
    ghost: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Writes a video (MP4 or GIF) of one task with a policy in each column, or of several tasks in a grid.

    The file appears under its name only when it is whole.

    Args:
        columns: the policies, from left to right; four and more make rows.
        dist: where the task's environments come from.
        task: the task to show.
        path: ends in `.mp4` or `.gif`; its folder exists.
        seed: decides the resets and the noise of the actions, the same for all columns.
        every: environment steps from one picture to the next; the video runs at the same pace for all.
        width: of each column, in pixels.
        height: of each column without captions, in pixels.
        ghost: whether the body of the first column is drawn in the others too, translucent, where it can be.
        on_progress: called with (episodes played, episodes in all).

    Raises:
        ValueError: another suffix, no column, or a count that is not positive.
        DiskFullError: there is no room for the file.
        RunError: it cannot be written.
    """
    encoding.check_name(path)
    if not columns or every < 1:
        raise ValueError(f"need at least one column and every >= 1, got {len(columns)} columns and every={every}")
    layout = _Layout.of(len(columns), width, height)
    fps = 1 / (dist.control_period * every)
    seeds = point_seeds(task_seeds(seed, 1, num_tasks=1), 0)
    with contextlib.ExitStack() as stack:
        films: list[_Film] = []
        venv = stack.enter_context(contextlib.closing(dist.vector_env(1)))  # one for all: opening what draws takes time
        for column in columns:
            runs_along = films[0] if ghost and films and column.task is None else None
            film = _Film(stack.enter_context(tempfile.TemporaryFile()), every, width, height, runs_along)
            with contextlib.closing(Collector(_FilmedSource(dist, venv, film), device="cpu")) as collector:
                collector.collect_episodes(column.policy, [column.task or task], 1, seeds)
            films.append(film)
            if on_progress is not None:
                on_progress(len(films), len(columns))
        write = stack.enter_context(encoding.writer(path, layout.size, fps))
        alike = all(column.task is None for column in columns)
        title = f"{dist.id} · {in_words(task, dist.units)}" if alike else dist.id
        backdrop = _backdrop(title, columns, layout)
        count, summed = max(len(film) for film in films), "return" if dist.score == "success" else "score"
        for number in range(count):
            frames = tuple(film.frame(number) for film in films)
            picture = _compose(backdrop, columns, frames, layout, summed)
            for _ in range(1 + round(_HOLD * fps) * (number == count - 1)):
                write(picture)
        returns = tuple(film.frame(count).score for film in films)
    return Recording(path, returns, count + round(_HOLD * fps))


class _Film:
    """The frames of one episode, in a file without a name: raw pictures would fill the memory."""

    def __init__(self, file: IO[bytes], every: int, width: int, height: int, ghost: "_Film | None" = None) -> None:
        """`ghost` is the film, of the same task, whose body runs along."""
        self._file, self._ghost, self._poses = file, ghost, list[ndarray | None]()
        self._shape = (height, width, 3)
        self._every = every
        self._frames: list[tuple[int, float, tuple[str, ...], bool]] = []

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, venv: DrawnVectorEnv, step: int, score: float, status: tuple[str, ...], ended: bool) -> None:
        """Takes a picture where one is due: every so many steps, and at the end."""
        if step % self._every == 0 or ended:
            height, width, _ = self._shape
            if isinstance(venv, GhostVectorEnv):
                self._poses.append(venv.pose(0))
                venv.show_ghost(None if self._ghost is None else self._ghost.pose(len(self._frames)))
            self._file.write(np.ascontiguousarray(venv.picture(0, width, height)).tobytes())
            self._frames.append((step, score, status, ended))

    def pose(self, number: int) -> ndarray | None:
        """Where the body was in a frame; in the last one for all numbers after it."""
        return self._poses[min(number, len(self._poses) - 1)] if self._poses else None

    def frame(self, number: int) -> _Frame:
        """A frame; the last one for all numbers after it."""
        number = min(number, len(self._frames) - 1)
        size = int(np.prod(self._shape))
        self._file.seek(number * size)
        picture = np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)
        return _Frame(picture, *self._frames[number])


@final
@dataclasses.dataclass(frozen=True)
class _FilmedSource:
    """An environment that is filmed while it is played; who opened it closes it."""

    dist: VideoSource
    venv: DrawnVectorEnv
    film: _Film

    @property
    def horizon(self) -> int:
        return self.dist.horizon

    @property
    def spaces(self) -> Spaces:
        return self.dist.spaces

    def vector_env(self, num_envs: int, threads: int = 1) -> VectorEnv:
        assert num_envs == self.venv.num_envs == 1
        return _FilmedEnv(self.venv, self.film)


@final
class _FilmedEnv:
    """A vector environment whose first sub-environment is filmed."""

    def __init__(self, venv: DrawnVectorEnv, film: _Film) -> None:
        self._venv = venv
        self._film = film
        self._step, self._score, self._status = 0, 0.0, tuple[str, ...]()

    @property
    def num_envs(self) -> int:
        return self._venv.num_envs

    def start_episodes(
        self, tasks: Sequence[Task], seeds: Sequence[int]
    ) -> tuple[BatchedObservations, Mapping[str, ndarray]]:
        started = self._venv.start_episodes(tasks, seeds)
        self._film.add(self._venv, 0, 0.0, (), ended=False)
        return started

    def step(self, actions: ndarray) -> tuple[BatchedObservations, ndarray, ndarray, ndarray, Mapping[str, ndarray]]:
        outcome = self._venv.step(actions)
        _, rewards, terminated, truncated, infos = outcome
        self._step, self._score = self._step + 1, self._score + float(rewards[0])
        if not self._status and "success" in infos and infos["success"][0] > 0:
            self._status = (f"success at step {self._step}",)
        ended = bool(terminated[0] or truncated[0])
        if ended:
            end = "diverged" if infos["diverged"][0] else "ended" if terminated[0] else "time is up"
            self._status = (*self._status, end)
        speed = (f"{infos['x_velocity'][0]:.1f} m/s".replace("-", "−"),) if "x_velocity" in infos else ()
        self._film.add(self._venv, self._step, self._score, (*speed, *self._status), ended)
        return outcome

    def close(self) -> None:
        """Leaves it to who opened it."""


def _spent(protocol: AdaptationProtocol, adaptation_name: str) -> str:
    episodes = protocol.num_adaptations * protocol.episodes_per_adaptation
    counts = [f"{episodes} episode{'s' * (episodes > 1)}"]
    if protocol.episodes_per_adaptation > 1:  # otherwise adaptations are episodes
        counts.append(f"{protocol.num_adaptations} {adaptation_name}{'s' * (protocol.num_adaptations > 1)}")
    return ", ".join(counts)


def in_words(task: Task, units: Mapping[str, str]) -> str:
    """A task by its family and its parameters with their units: `ice: friction 0.065 sliding coefficient`.

    Where a unit says what each value stands for (`1 along +x, -1 along -x`), that is told in the value's place. Of
    more than `_PARAMETERS` only the first are named.
    """
    parts = [_told(name, value, units.get(name, "")) for name, value in task.parameters]
    if len(parts) > _PARAMETERS:
        parts[_PARAMETERS - 1 :] = [f"{len(parts) - _PARAMETERS + 1} more"]
    return f"{task.family}: {', '.join(parts)}" if parts else task.family


def _told(name: str, value: Scalar, unit: str) -> str:
    """A parameter with its unit, or with what its unit says of this value."""
    name, number = name.replace("_", " "), _number(value)
    unit = "" if unit == name else unit
    for part in unit.split(", "):
        known, _, meaning = part.partition(" ")
        if meaning and known == number:
            return f"{name} {meaning}".replace("-", "−")
    return f"{name} {number} {unit.partition(',')[0]}".rstrip()


def _number(value: Scalar) -> str:
    """Whole numbers, such as seeds, with all their digits."""
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if float(value).is_integer() else f"{value:g}"


@final
@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the columns are in a frame; sizes in pixels."""

    across: int
    rows: int
    width: int
    """Of one cell, without its neighbours."""
    height: int
    """Of one cell's picture."""

    @classmethod
    def of(cls, count: int, width: int, height: int) -> "_Layout":
        """Up to three beside each other; more in rows of about as many."""
        across = count if count <= 3 else math.ceil(math.sqrt(count))
        return cls(across, math.ceil(count / across), width, height)

    @property
    def size(self) -> tuple[int, int]:
        """Of the frame; even, as H.264's yuv420p needs it."""
        height = _TITLE + self.rows * (self.height + _CAPTION)
        return self.across * self.width, height + height % 2

    def place(self, number: int) -> tuple[int, int]:
        """The left upper corner of a column's picture."""
        row, column = divmod(number, self.across)
        return column * self.width, _TITLE + row * (self.height + _CAPTION)


def _backdrop(title: str, columns: Sequence[Column], layout: _Layout) -> Image.Image:
    """What all frames have: the title, and each column's heading."""
    canvas = Image.new("RGB", layout.size, _DARK)
    draw = ImageDraw.Draw(canvas)
    _write(draw, (_MARGIN, _TITLE // 2), title, _LIGHT, 16, layout.size[0] - 2 * _MARGIN)
    for number, column in enumerate(columns):
        left, upper = layout.place(number)
        place = left + _MARGIN, upper + layout.height + 17
        _write(draw, place, column.heading, _colour(column), 15, layout.width - 2 * _MARGIN)
    return canvas


def _compose(
    backdrop: Image.Image, columns: Sequence[Column], frames: Sequence[_Frame], layout: _Layout, summed: str
) -> Picture:
    """The pictures side by side, and below each how far its episode is."""
    canvas = backdrop.copy()
    draw = ImageDraw.Draw(canvas)
    width, room = layout.width, layout.width - 2 * _MARGIN
    for number, (column, frame) in enumerate(zip(columns, frames, strict=True)):
        left, upper = layout.place(number)
        top = upper + layout.height
        canvas.paste(Image.fromarray(frame.picture), (left, upper))
        progress = " · ".join((column.episode, f"step {frame.step}", *frame.status))
        score = f"{summed} {frame.score:.1f}".replace("-", "−")
        _write(draw, (left + _MARGIN, top + 41), progress, _DIM, 14, room * 3 // 5)
        _write(draw, (left + width - _MARGIN, top + 41), score, _colour(column), 18, room * 2 // 5, "rm")
        if left:
            draw.line([(left, upper), (left, top + _CAPTION)], _DARK, 2)
    return np.asarray(canvas)


def _colour(column: Column) -> tuple[int, int, int]:
    return _ACCENT if column.accent else _LIGHT


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    colour: tuple[int, int, int],
    size: int,
    room: int,
    anchor: str = "lm",
) -> None:
    """One line of text, made smaller where it would be wider than `room` pixels."""
    wide = stills.font(size).getlength(text)
    font = stills.font(size if wide <= room else max(6, int(size * room / wide)))
    draw.text(place, text, colour, font, anchor=anchor)
