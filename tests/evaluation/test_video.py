# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
"""Videos: what is in the file, frame by frame, and that a fault leaves none."""

import dataclasses
import errno
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import final

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metarl import envs
from metarl.agents.fixed import random_policy
from metarl.envs import TaskVectorEnv, markers
from metarl.errors import DiskFullError, RunError
from metarl.evaluation import encoding
from metarl.evaluation import video as video_module
from metarl.evaluation.video import (
    Column,
    Recording,
    adapted_on_each,
    before_and_after,
    every_point,
    in_words,
    record,
)
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Metrics, State, Transition
from metarl.learning.random_streams import TaskRandom
from metarl.tasks import Task

DIST = envs.make("point-navigation")
TASK = Task.of("goal", goal_x=0.4, goal_y=-0.3)
FRAMES = DIST.horizon + 1 + 20  # the first, one a step, and the last held for a second
SIZE = (200, 160)  # pixels
SEED = 3


@final
@dataclasses.dataclass(frozen=True)
class Walker:
    """Wanders before it has adapted; then steps over the action space's edge, towards the goal."""

    adaptations: int = 0
    fault: bool = False

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        return (torch.zeros(1, num_episodes),)

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        assert random is not None
        noise = 0.2 * random.normal(2)
        if self.fault and not self.adaptations and float(carry[0].max()) > 10:
            return torch.full_like(noise, torch.nan), carry
        towards = torch.tensor([0.4, -0.3]) - observations
        return (10 * towards if self.adaptations else noise), carry

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        assert float(transition.actions.abs().nan_to_num().max()) <= 1, "actions as executed"
        return (carry[0] + 1,)

    def adapt(self, support: Episodes) -> "Walker":
        return dataclasses.replace(self, adaptations=self.adaptations + 1)


@final
@dataclasses.dataclass(frozen=True)
class WalkerAgent:
    protocol: AdaptationProtocol
    meta_batch: int = 1
    progress_keys: tuple[str, ...] = ()
    adaptation_name: str = "round"
    fault: bool = False

    def init(self, seed: int) -> State:
        return State({}, {})

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        raise AssertionError("a video does not train")

    def start(self, state: State, num_tasks: int) -> Walker:
        assert num_tasks == 1
        return Walker(fault=self.fault)


def _record(path: Path, *, adaptations: int = 1, every: int = 1, fault: bool = False) -> Recording:
    agent = WalkerAgent(AdaptationProtocol(adaptations, 3), fault=fault)
    columns = before_and_after(agent, State({}, {}), Collector(DIST), TASK, agent.protocol, SEED)
    return record(columns, DIST, TASK, path, seed=SEED, every=every, width=SIZE[0], height=SIZE[1])


def _decoded(path: Path) -> np.ndarray:
    """Every frame; by ffmpeg itself, because imageio's reader leaves its pipes open."""
    encoder, (width, height) = imageio_ffmpeg.get_ffmpeg_exe(), (2 * SIZE[0], SIZE[1] + 94)
    command = [encoder, "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, height, width, 3)


def _described(path: Path) -> str:
    """What ffmpeg says about the file's picture."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    return next(line for line in said.splitlines() if "Video:" in line)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, np.ndarray]:
    recording = _record(tmp_path_factory.mktemp("videos") / "point.mp4")
    return recording, _decoded(recording.path)


def test_the_file_has_every_frame_in_a_format_that_browsers_play(video: tuple[Recording, np.ndarray]) -> None:
    recording, frames = video
    assert recording.frames == len(frames) == FRAMES
    assert re.search(r"h264 .* yuv420p.* 400x254.* 20 fps", _described(recording.path))
    assert list(recording.path.parent.iterdir()) == [recording.path]


def test_both_sides_start_alike_and_end_apart(video: tuple[Recording, np.ndarray]) -> None:
    recording, frames = video
    pictures = frames[:, 36 : 36 + SIZE[1]].astype(int)
    left, right = pictures[:, :, 4 : SIZE[0] - 4], pictures[:, :, SIZE[0] + 4 : -4]  # without the line between
    assert np.abs(left[0] - right[0]).mean() < 2  # the same world, up to the compression
    assert np.abs(left[-1] - right[-1]).mean() > 1
    assert (np.abs(left[-1] - right[-1]).max(-1) > 100).sum() > 20
    assert recording.returns[1] > recording.returns[0]


def test_the_scores_are_those_of_the_episodes(video: tuple[Recording, np.ndarray]) -> None:
    """The adapted walker goes straight at 0.1 m a step in each direction: the sum of its distances is known."""
    position, goal, total = np.zeros(2), np.array([0.4, -0.3]), 0.0
    for _ in range(DIST.horizon):
        position = position + np.clip(goal - position, -0.1, 0.1)
        total -= float(np.linalg.norm(goal - position))
    assert video[0].returns[1] == pytest.approx(total, abs=1e-4)


def test_the_captions_change_with_the_score(video: tuple[Recording, np.ndarray]) -> None:
    captions = video[1][:, 36 + SIZE[1] :].astype(int)
    assert captions.max() > 200, "there is light text"
    for side in (captions[:, :, : SIZE[0]], captions[:, :, SIZE[0] :]):
        assert np.abs(side[0] - side[-1]).max() > 100
    titles = video[1][:, :36].astype(int)
    assert titles.max() > 200
    assert np.abs(titles[0] - titles[-1]).mean() < 2


def test_every_other_step_makes_half_the_frames_at_half_the_rate(tmp_path: Path) -> None:
    recording = _record(tmp_path / "half.mp4", every=2)
    assert recording.frames == 51 + 10
    assert ", 10 fps" in _described(recording.path)


def test_the_same_seed_makes_the_same_video(tmp_path: Path) -> None:
    one, two = _record(tmp_path / "one.mp4", every=10), _record(tmp_path / "two.mp4", every=10)
    assert one.returns == two.returns
    np.testing.assert_array_equal(_decoded(one.path), _decoded(two.path))


def test_an_episode_that_diverges_is_shown_to_its_end(tmp_path: Path) -> None:
    recording = _record(tmp_path / "nan.mp4", fault=True)
    # The unadapted side stops after its eleventh step and waits for the other.
    assert recording.frames == FRAMES
    frames = _decoded(recording.path)[:, 36 : 36 + SIZE[1], : SIZE[0] - 2].astype(int)
    assert np.abs(frames[14] - frames[-1]).mean() < 1
    assert np.abs(frames[0] - frames[14]).max() > 50


def test_wrong_input_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.mp4 or \.gif, got video\.avi"):
        _record(tmp_path / "video.avi")
    with pytest.raises(ValueError, match="every=0"):
        _record(tmp_path / "video.mp4", every=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"could not write .*point\.mp4"):
        _record(tmp_path / "none" / "point.mp4", every=50)


@pytest.mark.parametrize("complaint", [os.strerror(errno.ENOSPC), "Conversion failed!"])
def test_a_fault_of_the_encoder_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: str
) -> None:
    """The encoder takes the frames, fails at the end, and has written half a file: as on a full disk."""
    encoder = tmp_path / "encoder"
    encoder.write_text(
        "#!/bin/sh\ncat > /dev/null\nfor last; do :; done\n"
        f'echo half > "${{last#file:}}"\necho "{complaint}" >&2\nexit 1\n'
    )
    encoder.chmod(encoder.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(encoder))
    path = tmp_path / "point.mp4"
    path.write_bytes(b"the video of yesterday")
    with pytest.raises(RunError) as fault:
        _record(path, every=50)
    assert isinstance(fault.value, DiskFullError) == (complaint != "Conversion failed!")
    assert complaint in str(fault.value)
    assert path.read_bytes() == b"the video of yesterday"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["encoder", "point.mp4"]


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    columns = [Column("", "", Walker())]
    with pytest.raises(KeyboardInterrupt):
        record(columns, DIST, TASK, tmp_path / "point.mp4", seed=0, width=200, height=160, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@final
class Telling:
    """Succeeds at the goal, as Meta-World's environments do, and may leave it again."""

    def __init__(self, venv: TaskVectorEnv) -> None:
        self._venv = venv
        self.num_envs, self.picture = venv.num_envs, venv.picture
        self.start_episodes, self.close = venv.start_episodes, venv.close

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        observations, rewards, terminated, truncated, infos = self._venv.step(actions)
        assert isinstance(observations, np.ndarray)
        success = (np.linalg.norm(observations - [0.4, -0.3], axis=-1) < 0.05).astype(float)
        return observations, rewards, terminated, truncated, {**infos, "success": success}


def test_a_success_is_told_from_the_step_at_which_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dist, make, texts = dataclasses.replace(DIST, score="success"), type(DIST).vector_env, list[str]()
    monkeypatch.setattr(type(DIST), "vector_env", lambda self, *arguments, **named: Telling(make(self, *arguments)))
    write = video_module._write
    monkeypatch.setattr(
        video_module, "_write", lambda draw, at, text, *rest: (texts.append(text), write(draw, at, text, *rest))
    )
    columns = [Column("before", "episode 1", Walker()), Column("after", "episode 4", Walker(adaptations=1))]
    record(columns, dist, TASK, tmp_path / "told.mp4", seed=SEED, width=SIZE[0], height=SIZE[1])
    adapted = [text for text in texts if text.startswith("episode 4 · ")]
    assert adapted[3:6] == ["episode 4 · step 3", *(f"episode 4 · step {n} · success at step 4" for n in (4, 5))]
    assert adapted[-1] == "episode 4 · step 100 · success at step 4 · time is up"
    assert not any("success" in text for text in texts if text.startswith("episode 1 · "))
    assert any(text.startswith("return −") for text in texts) and not any(text.startswith("score") for text in texts)


def test_a_policy_that_does_not_adapt_has_one_column(tmp_path: Path) -> None:
    recording = _record(tmp_path / "alone.mp4", adaptations=0, every=25)
    assert len(recording.returns) == 1
    assert " 200x254" in _described(recording.path)


def test_a_gif_has_the_frames_too(tmp_path: Path) -> None:
    recording = _record(tmp_path / "point.gif", every=10)
    assert recording.path.read_bytes().startswith(b"GIF89a")
    with Image.open(recording.path) as gif:
        assert gif.size == (2 * SIZE[0], SIZE[1] + 94)
        assert getattr(gif, "n_frames") > 5  # noqa: B009  # pictures that do not change are shown longer instead


def test_a_gif_keeps_the_colour_of_a_large_area_among_many_shades(tmp_path: Path) -> None:
    blue = (38, 94, 200)
    shades = np.linspace(0, 255, 40 * 100).astype(np.uint8).reshape(40, 100, 1)  # as smooth text has
    frame = np.full((120, 100, 3), 250, np.uint8)
    with encoding.writer(tmp_path / "blue.gif", (100, 120), 10.0) as write:
        for number in range(3):
            frame[:40] = np.roll(shades, 5 * number, 0)
            frame[60:] = blue if number else 250
            write(frame)
    with Image.open(tmp_path / "blue.gif") as gif:
        gif.seek(2)
        assert np.abs(np.asarray(gif.convert("RGB"), int)[60:] - blue).max() < 12


def test_parameters_are_told_by_names_and_units() -> None:
    ice = Task.of("icy-slope", friction=0.05, slope=2.5)
    units = envs.make("cheetah-terrain").units
    assert in_words(ice, units) == "icy-slope: friction 0.05 sliding coefficient, slope 2.5 degrees uphill along +x"
    rough = Task.of("rough", amplitude=0.2, seed=7, wavelength=1.5)
    assert in_words(rough, units) == "rough: amplitude 0.2 m, seed 7 seed of the height field, wavelength 1.5 m"
    assert in_words(Task.of("flat"), {}) == "flat"
    assert in_words(Task.of("bandit", seed=1078495801.0), {"seed": "seed"}) == "bandit: seed 1078495801"


def test_a_value_that_stands_for_something_is_told_by_it() -> None:
    units = envs.make("cheetah-terrain").units
    assert in_words(Task.of("ice", direction=-1.0), units) == "ice: direction along −x"
    assert in_words(Task.of("ice", direction=1.0), units) == "ice: direction along +x"


def test_of_many_parameters_a_caption_names_the_first() -> None:
    task = Task.of("body", **{f"m{number}": float(number) for number in range(9)})
    assert in_words(task, {}) == "body: m0 0, m1 1, m2 2, m3 3, m4 4, 4 more"
    assert in_words(Task.of("body", m0=0.0, m1=1.0, m2=2.0, m3=3.0, m4=4.0, m5=5.0), {}).endswith("m4 4, m5 5")


def test_several_tasks_make_a_grid_each_on_its_own_task(tmp_path: Path) -> None:
    tasks = [Task.of("goal", goal_x=x, goal_y=y) for x in (0.4, -0.4) for y in (0.3, -0.3)]
    agent = WalkerAgent(AdaptationProtocol(1, 1))
    columns = adapted_on_each([agent] * 4, State({}, {}), Collector(DIST), tasks, agent.protocol, SEED, DIST.units)
    assert columns[0].heading == "goal: goal x 0.4 m, goal y 0.3 m"
    recording = record(
        columns, DIST, tasks[0], tmp_path / "grid.mp4", seed=SEED, every=20, width=SIZE[0], height=SIZE[1]
    )
    assert f" {2 * SIZE[0]}x{36 + 2 * (SIZE[1] + 58)}" in _described(recording.path)
    # The walker always goes to (0.4, −0.3): only there does it do well.
    assert max(range(4), key=lambda number: recording.returns[number]) == 1


def test_every_point_of_a_trial_has_a_column() -> None:
    agent = WalkerAgent(AdaptationProtocol(2, 1))
    columns = every_point(agent, State({}, {}), Collector(DIST), TASK, agent.protocol, SEED)
    assert [column.episode for column in columns] == ["episode 1", "episode 2", "episode 3"]
    assert [column.policy.adaptations for column in columns if isinstance(column.policy, Walker)] == [0, 1, 2]
    assert columns[1].heading == "after 1 episode"
    assert [column.accent for column in columns] == [False, False, True]


def test_the_ground_is_marked_every_metre() -> None:
    scene = mujoco.MjvScene(mujoco.MjModel.from_xml_string("<mujoco/>"), 400)
    markers.draw_metres(scene, np.array((4.3, 0.0)), 0.1, axes=1)
    posts = {round(float(geom.pos[0]), 3): geom for geom in scene.geoms[: scene.ngeom]}
    assert list(posts) == list(range(-2, 11))  # whole metres, whatever the position
    assert {x: geom.label for x, geom in posts.items() if geom.label} == {0: "0 m", 5: "5 m", 10: "10 m"}
    for x, geom in posts.items():
        foot = geom.pos[2] - geom.size[2]
        assert foot == pytest.approx(x * np.tan(0.1), abs=1e-5)  # on the slope
    scene.ngeom = 0
    markers.draw_metres(scene, np.array((0.0, 2.6)), 0.0, axes=2)
    assert {tuple(np.round(geom.pos[:2]).tolist()) for geom in scene.geoms[: scene.ngeom]} == {
        (x, y) for x in range(-6, 7) for y in range(-3, 10)
    }


def test_a_shadow_lies_on_the_slope_below_its_body_and_the_renderer_draws_no_other() -> None:
    body = '<body pos="0 0 2"><freejoint/><geom type="capsule" fromto="-1 0 0 1 0 0" size=".1"/></body>'
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{body}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = mujoco.MjvScene(model, 100)
    scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = True
    everything = mujoco.mjtCatBit.mjCAT_ALL.value
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, mujoco.MjvCamera(), everything, scene)
    before = scene.ngeom
    markers.draw_shadow(scene, 0.2, np.array((0.0, 0.0, -1.0)))
    assert not scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW]
    box, *ends = scene.geoms[before : scene.ngeom]
    normal = np.array((-np.sin(0.2), 0.0, np.cos(0.2)))
    assert sorted(round(float(end.pos[0]), 2) for end in ends) == [-1.0, 1.0]  # straight below, but for the lift
    assert box.size[0] == pytest.approx(1 / np.cos(0.2), abs=1e-3)
    for geom in (box, *ends):
        assert geom.pos @ normal == pytest.approx(0.01, abs=1e-5)
        assert geom.mat[:, 2] == pytest.approx(normal, abs=1e-6)


def test_a_target_is_a_ball_with_a_pin_that_rises_from_it() -> None:
    scene = mujoco.MjvScene(mujoco.MjModel.from_xml_string("<mujoco/>"), 10)
    markers.draw_target(scene, np.array((0.1, 0.7, 0.2)))
    ball, pin = scene.geoms[: scene.ngeom]
    assert ball.pos == pytest.approx((0.1, 0.7, 0.2))
    assert (pin.pos[0], pin.pos[1], pin.pos[2] - pin.size[2]) == pytest.approx((0.1, 0.7, 0.2))


def test_a_ghost_is_the_body_once_more_at_its_own_place() -> None:
    body = '<body pos="0 0 2"><freejoint/><geom type="sphere" size=".1"/></body><geom type="plane" size="1 1 1"/>'
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{body}</worldbody></mujoco>")
    scene = mujoco.MjvScene(model, 10)
    markers.draw_ghost(scene, model, np.array((3.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0)))
    (ghost,) = scene.geoms[: scene.ngeom]  # not the floor
    assert ghost.pos == pytest.approx((3.0, 0.0, 1.0))
    assert 0 < ghost.rgba[3] < 1


def test_the_first_columns_body_runs_along_in_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dist = envs.make("cheetah-velocity")
    agent = random_policy(dist.spaces)
    poses, shown = list[list[float]](), list[list[float] | None]()
    monkeypatch.setattr(TaskVectorEnv, "picture", lambda venv, index, width, height: np.zeros((height, width, 3), "u1"))
    pose, show = TaskVectorEnv.pose, TaskVectorEnv.show_ghost

    def observed_pose(venv: TaskVectorEnv, index: int) -> np.ndarray | None:
        found = pose(venv, index)
        assert found is not None
        poses.append(found.tolist())
        return found

    def observed_ghost(venv: TaskVectorEnv, at: np.ndarray | None) -> None:
        shown.append(None if at is None else at.tolist())
        show(venv, at)

    monkeypatch.setattr(TaskVectorEnv, "pose", observed_pose)
    monkeypatch.setattr(TaskVectorEnv, "show_ghost", observed_ghost)
    columns = [Column(name, "episode 1", agent.start(State({}, {}), 1)) for name in "ab"]
    task, path = dist.tasks("test")[0], tmp_path / "a.mp4"
    record(columns, dist, task, path, seed=SEED, every=50, width=64, height=48, ghost=True)
    count = len(poses) // 2
    assert shown[:count] == [None] * count
    assert shown[count:] == poses[:count]
    assert poses[0] != poses[1]
    shown.clear()
    record(columns, dist, task, path, seed=SEED, every=50, width=64, height=48)
    assert shown == [None] * (2 * count)
