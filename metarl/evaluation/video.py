"""Videos: one task before and after adaptation, side by side, with captions.

Both sides have the same resets and the same action noise, so what differs is what adaptation changed. An agent that
keeps memory is no special case: before is the first episode of a trial, after is its last.
"""

import contextlib
import dataclasses
import errno
import functools
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol, final, runtime_checkable

import gymnasium as gym
import imageio_ffmpeg
import matplotlib
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from metarl.evaluation.evaluate import SEED, EvaluationSource, collection_seed, device_of
from metarl.learning.collect import Collector, Sampler, box, to_action_space
from metarl.learning.protocols import Actor, Adapted, Agent, Schedule, State
from metarl.runs.files import TEMPORARY, remove, writing
from metarl.tasks import Task

Picture = UInt8[np.ndarray, "height width 3"]
Env = gym.Env[np.ndarray, np.ndarray]

_HOLD = 1.0  # s; how long the last picture stays, to be read
_TITLE, _CAPTION, _MARGIN = 36, 58, 12  # pixels
_DARK, _LIGHT, _DIM, _ACCENT = (18, 20, 24), (240, 241, 243), (160, 165, 175), (255, 196, 84)


@runtime_checkable
class VideoSource(EvaluationSource, Protocol):
    """Tasks, and environments that draw them: an `EnvDistribution`."""

    def env(self, task: Task | None = None, render_mode: str | None = None, width: int = 480, height: int = 360) -> Env:
        """One task as a plain environment; pictures in pixels."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Recording:
    """What a video shows."""

    path: Path
    before: float
    """Undiscounted return of the episode on the left."""
    after: float
    """Undiscounted return of the episode on the right."""
    frames: int
    """Pictures in the file."""


class _Moment(NamedTuple):
    """One side of one frame."""

    picture: Picture
    step: int  # environment steps so far
    score: float  # the sum of the rewards so far
    status: tuple[str, ...]  # when it succeeded, where the environment tells, and how it ended
    ended: bool


class _Caption(NamedTuple):
    """What stays the same below one side."""

    heading: str
    episode: str
    colour: tuple[int, int, int]


def record(
    agent: Agent,
    state: State,
    dist: VideoSource,
    task: Task,
    path: Path,
    *,
    schedule: Schedule | None = None,
    round_name: str | None = None,
    seed: int = SEED,
    sampler: Collector | None = None,
    every: int = 1,
    width: int = 480,
    height: int = 360,
    on_progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Writes an mp4 (H.264, yuv420p: it plays in browsers) of one task, before and after adaptation.

    The file appears under its name only when it is whole.

    Args:
        agent: the agent, unadapted.
        state: what it has learned.
        dist: where the task's environments come from.
        task: the task to adapt to and to show.
        path: ends in `.mp4`; its folder exists.
        schedule: rounds (at least one) and episodes of adaptation; as the agent was trained if None.
        round_name: what one round of adaptation is called in the caption; as the agent calls it if None.
        seed: decides the adaptation's episodes and the two that are shown.
        sampler: runs the adaptation's episodes; one of a single thread if None.
        every: environment steps from one picture to the next; the video runs at the same pace for all.
        width: of each side, in pixels.
        height: of each side without captions, in pixels.
        on_progress: called with (steps shown, steps in all).

    Raises:
        ValueError: another suffix, a schedule without adaptation, or a count that is not positive.
        DiskFullError: there is no room for the file.
        RunError: it cannot be written.
    """
    schedule = schedule or agent.schedule
    if path.suffix != ".mp4":
        raise ValueError(f"a video's name ends in .mp4, got {path.name}")
    if schedule.rounds < 1 or schedule.episodes < 1 or every < 1:
        raise ValueError(f"need rounds, episodes and every >= 1, got {schedule} and every={every}")
    before = agent.start(state, 1)
    after = _adapted(before, task, schedule, seed, sampler or Sampler(dist, device=device_of(state)))
    captions, by_success = _captions(schedule, round_name or agent.round_name), dist.score == "success"
    # The evaluation's seed of the last point of its first trial: no adaptation has used it.
    shown_seed = collection_seed(seed, 0, schedule.rounds)
    size = 2 * width, _TITLE + height + _CAPTION + height % 2  # yuv420p needs even sizes
    with contextlib.ExitStack() as stack:
        envs = [stack.enter_context(contextlib.closing(dist.env(task, "rgb_array", width, height))) for _ in captions]
        fps = float(envs[0].metadata["render_fps"]) / every
        write = stack.enter_context(_writer(path, size, fps))
        sides = [
            _play(actor, env, shown_seed, every, device_of(state))
            for actor, env in zip((before, after), envs, strict=True)
        ]
        moments, pictures = tuple(next(side) for side in sides), 0
        while True:
            picture = _compose(f"{dist.id} · {task}", captions, moments, size, "return" if by_success else "score")
            held = all(moment.ended for moment in moments)
            for _ in range(1 + held * round(_HOLD * fps)):
                write(picture)
                pictures += 1
            if on_progress is not None:
                on_progress(max(moment.step for moment in moments), dist.horizon)
            if held:
                return Recording(path, moments[0].score, moments[1].score, pictures)
            moments = tuple(next(side) for side in sides)


def _captions(schedule: Schedule, round_name: str) -> tuple[_Caption, _Caption]:
    """Of the left and the right side."""
    number = schedule.rounds * schedule.episodes + 1
    after = f"after adaptation ({_spent(schedule, round_name)})"
    return _Caption("before adaptation", "episode 1", _LIGHT), _Caption(after, f"episode {number}", _ACCENT)


def _adapted(actor: Adapted, task: Task, schedule: Schedule, seed: int, sampler: Collector) -> Adapted:
    for point in range(schedule.rounds):
        actor = actor.adapt(sampler.collect(actor, [task], schedule.episodes, collection_seed(seed, 0, point)))
    return actor


def _spent(schedule: Schedule, round_name: str) -> str:
    episodes = schedule.rounds * schedule.episodes
    counts = [f"{episodes} episode{'s' * (episodes > 1)}"]
    if schedule.episodes > 1:  # otherwise rounds are episodes
        counts.append(f"{schedule.rounds} {round_name}{'s' * (schedule.rounds > 1)}")
    return ", ".join(counts)


def _play(actor: Actor, env: Env, seed: int, every: int, device: torch.device) -> Iterator[_Moment]:
    """One episode, a moment each `every` steps and at its end; its last one for ever after."""
    space = box(env.action_space)
    generator = torch.Generator(device).manual_seed(seed)
    memory = actor.begin(1)
    observation, _ = env.reset(seed=seed % 2**31)
    score, step, status, done = 0.0, 0, tuple[str, ...](), False
    while not done:
        if step % every == 0:
            yield _Moment(_picture(env), step, score, status, done)
        inputs = torch.from_numpy(observation.astype(np.float32)).to(device)[None, None]
        with torch.no_grad():
            drawn, memory = actor.act(inputs, memory, generator)
        executed = drawn[0, 0].clamp(-1, 1)
        observation, reward, terminated, truncated, info = env.step(to_action_space(space, executed.cpu().numpy()))
        score, step = score + float(reward), step + 1
        done = terminated or truncated
        rewards = torch.tensor([[float(reward)]], device=device)
        memory = actor.feedback(memory, executed[None, None], rewards, torch.tensor([[done]], device=device))
        if not status and info.get("success", 0.0) > 0:
            status = (f"success at step {step}",)
        if done:
            status = (*status, "diverged" if info["diverged"] else "ended" if terminated else "time is up")
    last = _Moment(_picture(env), step, score, status, done)
    while True:
        yield last


def _picture(env: Env) -> Picture:
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    return picture


def _compose(
    title: str, captions: Sequence[_Caption], moments: Sequence[_Moment], size: tuple[int, int], summed: str
) -> Picture:
    """The title, the pictures side by side, and below each its caption."""
    frame = Image.new("RGB", size, _DARK)
    draw = ImageDraw.Draw(frame)
    width = size[0] // len(moments)
    room = width - 2 * _MARGIN
    _write(draw, (_MARGIN, _TITLE // 2), title, _LIGHT, 16, size[0] - 2 * _MARGIN)
    for side, (caption, moment) in enumerate(zip(captions, moments, strict=True)):
        left, top = side * width, _TITLE + moment.picture.shape[0]
        frame.paste(Image.fromarray(moment.picture), (left, _TITLE))
        progress = " · ".join((caption.episode, f"step {moment.step}", *moment.status))
        score = f"{summed} {moment.score:.1f}".replace("-", "−")
        _write(draw, (left + _MARGIN, top + 17), caption.heading, caption.colour, 15, room)
        _write(draw, (left + _MARGIN, top + 41), progress, _DIM, 14, room * 3 // 5)
        _write(draw, (left + width - _MARGIN, top + 41), score, caption.colour, 18, room * 2 // 5, "rm")
    draw.line([(width, _TITLE), (width, size[1])], _DARK, 2)
    return np.asarray(frame)


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
    wide = _font(size).getlength(text)
    font = _font(size if wide <= room else max(6, int(size * room / wide)))
    draw.text(place, text, colour, font, anchor=anchor)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, from matplotlib: machines without a screen often have no font at all."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


@contextlib.contextmanager
def _writer(path: Path, size: tuple[int, int], fps: float) -> Iterator[Callable[[Picture], None]]:
    """A function that appends a frame; the file gets its name once it is whole.

    ffmpeg is run here rather than by imageio: that does not look at its exit status, and a full disk is often met only
    when the index is written at the end.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", f"{fps:g}", "-i", "-"]
    target = ["-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(temporary)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, *target]
    pipe = subprocess.PIPE
    with writing(path):
        try:
            # A session of its own, so that Ctrl-C reaches this program only.
            with subprocess.Popen(command, stdin=pipe, stderr=pipe, start_new_session=True) as ffmpeg:
                assert ffmpeg.stdin is not None
                try:
                    # Where ffmpeg is gone, its own words say more than a broken pipe.
                    with contextlib.suppress(BrokenPipeError):
                        yield functools.partial(_append, ffmpeg.stdin)
                except BaseException:
                    # On Ctrl-C, Popen itself waits no more than a moment; ffmpeg could yet write its file.
                    ffmpeg.kill()
                    ffmpeg.wait()
                    with contextlib.suppress(BrokenPipeError):
                        ffmpeg.stdin.close()
                    raise
                complaint = ffmpeg.communicate()[1].decode(errors="replace").strip()
            if ffmpeg.returncode != 0:
                code = errno.ENOSPC if os.strerror(errno.ENOSPC) in complaint else errno.EIO
                raise OSError(code, complaint.rpartition("\n")[2] or f"ffmpeg failed ({ffmpeg.returncode})")
            os.replace(temporary, path)
        except BaseException:
            remove(temporary)
            raise


def _append(stream: IO[bytes], picture: Picture) -> None:
    stream.write(picture.tobytes())
