"""What grounds do to the cheetah, and what it is not told about them."""

import numpy as np
import pytest
from numpy import ndarray

from metarl import envs
from metarl.envs.cheetah import TORSO
from metarl.envs.mujoco_pool import MujocoPool
from metarl.envs.terrain import PARAMETERS, build_ground, field_x, ground_parameters, heights
from metarl.tasks import SPLITS, Task

SEEDS = 4
FLAT = Task.of("flat", friction=0.4)
ICE = Task.of("ice", friction=0.05)
SAND = Task.of("sand", damping=2.0, depth=0.08, drag=8.0, softness=0.05)
UP, DOWN = Task.of("slope-up", slope=8.0), Task.of("slope-down", slope=-8.0)
ICY_SLOPE = Task.of("icy-slope", friction=0.05, slope=3.0)
ROUGH = Task.of("rough", amplitude=0.2, seed=1.0, wavelength=1.5)
SWELL = Task.of("rough", amplitude=1.0, seed=6.0, wavelength=20.0)  # rises by half a metre over the first eight
FAMILIES = (FLAT, ICE, SAND, UP, DOWN, ICY_SLOPE, ROUGH)

# A gait that runs on flat ground, found by random search; in the order of the actuators.
FREQUENCY = 4.83  # Hz
AMPLITUDES = np.array([0.37, 0.40, 0.50, 0.44, 0.44, 0.49])
PHASES = np.array([5.38, 0.42, 3.36, 2.72, 2.51, 2.67])  # rad


def gait(step: int) -> ndarray:
    return AMPLITUDES * np.sin(2 * np.pi * FREQUENCY * 0.05 * step + PHASES)


def distances(*tasks: Task, strength: float = 1.0) -> ndarray:
    """How far the gait gets in 10 s, in m: [task, seed]."""
    venv = envs.make("cheetah-terrain").vector_env(len(tasks) * SEEDS)
    venv.set_tasks([task for task in tasks for _ in range(SEEDS)])
    venv.reset(seed=[*range(SEEDS)] * len(tasks))
    for step in range(199):
        venv.step(np.tile(strength * gait(step), (venv.num_envs, 1)))
    *_, truncated, infos = venv.step(np.zeros((venv.num_envs, 6)))
    assert truncated.all()
    assert not infos["diverged"].any()
    return infos["x_position"].reshape(len(tasks), SEEDS)


def test_each_family_changes_how_far_a_gait_gets() -> None:
    """Every margin is several times the spread over seeds, which is below a metre on flat ground."""
    travelled = distances(*FAMILIES)
    flat, ice, sand, up, down, icy_slope, rough = travelled
    assert flat.min() > 11
    assert np.ptp(flat) < 1
    assert ice.max() < flat.min() - 2
    assert sand.max() < flat.min() - 5
    assert up.max() < flat.min() - 3
    assert down.min() > flat.max() + 3
    assert icy_slope.max() < ice.min() - 3
    assert rough.max() < flat.min() - 2


@pytest.mark.parametrize(
    "tasks",
    [
        [Task.of("ice", friction=friction) for friction in (0.03, 0.06, 0.1)] + [FLAT],
        [Task.of("slope-up", slope=slope) for slope in (12.0, 6.0, 1.0)]
        + [Task.of("slope-down", slope=slope) for slope in (-1.0, -6.0, -12.0)],
        [Task.of("sand", damping=1.0, depth=0.04, drag=0.0, softness=softness) for softness in (0.08, 0.05, 0.03)],
        [Task.of("sand", damping=1.0, depth=depth, drag=0.0, softness=0.03) for depth in (0.12, 0.08, 0.04)],
        [Task.of("sand", damping=damping, depth=0.04, drag=0.0, softness=0.04) for damping in (3.0, 2.0, 1.0)],
        [Task.of("sand", damping=1.0, depth=0.04, drag=drag, softness=0.03) for drag in (15.0, 8.0, 0.0)],
    ],
    ids=["friction", "slope", "softness", "depth", "damping", "drag"],
)
def test_parameters_act_in_order(tasks: list[Task]) -> None:
    mean = distances(*tasks).mean(-1)
    assert (np.diff(mean) > 0.3).all(), mean


def test_each_height_field_is_another() -> None:
    tasks = [Task.of("rough", amplitude=0.2, seed=seed, wavelength=1.5) for seed in (1.0, 2.0)]
    tasks += [Task.of("rough", amplitude=0.2, seed=1.0, wavelength=length) for length in (0.8, 2.4)]
    for one, other in distances(*tasks).mean(-1).reshape(-1, 2):
        assert abs(one - other) > 0.3


def still(tasks: list[Task], steps: int) -> tuple[ndarray, ndarray]:
    """The observations and positions along x (m) after so many steps without moving a joint."""
    venv = envs.make("cheetah-terrain").vector_env(len(tasks))
    venv.set_tasks(tasks)
    starts, _ = venv.reset(seed=[0] * len(tasks))
    assert np.allclose(starts, starts[0], atol=1e-12)
    for _ in range(steps - 1):
        venv.step(np.zeros((len(tasks), 6)))
    observations, *_, infos = venv.step(np.zeros((len(tasks), 6)))
    return observations, infos["x_position"]


def test_feet_sink_into_sand() -> None:
    """At rest, the torso is lower over softer ground: by centimetres, and by the more the deeper it is."""
    sands = [Task.of("sand", damping=2.0, depth=depth, drag=2.0, softness=0.05) for depth in (0.04, 0.08, 0.12)]
    observations, _ = still([FLAT, *sands], 150)
    assert np.abs(observations[:, 8:]).max() < 0.2
    assert (np.diff(observations[:, 0]) < -0.01).all(), observations[:, 0]


def test_grip_holds_and_ice_slides() -> None:
    """On a slope, grip holds a robot that does not move; on ice it gathers speed at g (sin − μ cos) cos."""
    tasks = [Task.of("slope-up", slope=5.0), Task.of("icy-slope", friction=0.03, slope=5.0)]
    early, middle, late = (still(tasks, steps)[1] for steps in (40, 70, 100))
    held, slid = late - 2 * middle + early
    assert abs(late[0]) < 0.6
    assert abs(held) < 0.01
    angle = np.deg2rad(5.0)
    assert slid / 1.5**2 == pytest.approx(-9.81 * (np.sin(angle) - 0.03 * np.cos(angle)) * np.cos(angle), rel=0.05)


def test_starts_tell_nothing() -> None:
    venv = envs.make("cheetah-terrain").vector_env(len(FAMILIES))
    venv.set_tasks(FAMILIES)
    for seed in range(20):
        observations, _ = venv.reset(seed=[seed] * len(FAMILIES))
        assert np.allclose(observations, observations[0], rtol=0, atol=1e-12)


def test_nobody_starts_inside_the_ground() -> None:
    """A foot inside the ground would be thrown out: the first steps would be fast."""
    tasks = [task for split in SPLITS for task in envs.make("cheetah-terrain").tasks(split)]
    venv = envs.make("cheetah-terrain").vector_env(len(tasks))
    venv.set_tasks(tasks)
    venv.reset(seed=0)
    for _ in range(5):
        observations, *_, infos = venv.step(np.zeros((len(tasks), 6)))
        assert np.abs(observations[:, 8:10]).max() < 3  # m/s
        assert not infos["diverged"].any()


@pytest.mark.parametrize("task", [UP, DOWN, ICY_SLOPE, SWELL], ids=str)
def test_height_is_above_the_ground(task: Task) -> None:
    """However far the robot slides or runs, it stands as high over its ground as on flat ground."""
    venv = envs.make("cheetah-terrain").vector_env(2)
    venv.set_tasks([task, FLAT])
    venv.reset(seed=[0, 0])
    observed, places = [], []
    for step in range(150):
        observations, *_, infos = venv.step(np.tile(gait(step), (2, 1)))
        observed.append(observations[:, 0])
        places.append(infos["x_position"][0])
    assert abs(places[-1]) > 3
    sloped, flat = np.transpose(observed)
    assert abs(sloped.mean() - flat.mean()) < 0.1
    assert abs(sloped[-30:].mean() - sloped[30:60].mean()) < 0.1


def test_height_fields_are_as_described() -> None:
    ground = build_ground(Task.of("rough", amplitude=1.0, seed=5.0, wavelength=20.0))
    assert ground.height is not None
    field = heights(1.0, 20.0, 5)
    assert np.abs(field).max() == pytest.approx(1.0, abs=0.05)
    middle = field[len(field) // 2]
    assert np.ptp(middle) > 0.5
    for x in (0.0, 3.33, 57.05, -11.0):
        assert ground.height(x) == pytest.approx(np.interp(x, field_x(), middle))
    assert ground.height(0.9) == ground.height(-0.9) == 0.0


def test_mujoco_has_the_heights_that_are_subtracted() -> None:
    """Drops the cheetah on many places of rough ground: torso over ground is the same wherever it comes to rest."""
    ground = build_ground(Task.of("rough", amplitude=0.3, seed=2.0, wavelength=30.0))
    flat = build_ground(FLAT)
    places = np.linspace(5.0, 140.0, 8)
    pool = MujocoPool(flat.model, len(places) + 1, 5, 1)
    levels = []
    for index, x in enumerate(places):
        assert ground.height is not None
        pool.load(index, ground.model)
        levels.append(ground.height(x))
        pool.reset(index, np.array([x, levels[-1], *[0.0] * 7]), np.zeros(9))
    pool.reset(len(places), np.zeros(9), np.zeros(9))
    for _ in range(60):
        assert not pool.step(np.zeros((len(places) + 1, 6)), np.ones(len(places) + 1, bool)).any()
    above = [pool.qpos[i, 1] - ground.height(pool.qpos[i, 0]) for i in range(len(places))] if ground.height else []
    assert np.ptp(levels) > 0.15
    assert np.allclose(above, pool.qpos[-1, 1], atol=0.04), (above, pool.qpos[-1, 1])


def test_the_test_is_outside_of_training() -> None:
    dist = envs.make("cheetah-terrain")
    drawn = dist.sample("train", 2000, np.random.default_rng(0))
    grips = [ground_parameters(task)["friction"] for task in drawn]
    slippery = [task.number("friction") for task in dist.tasks("test") if task.family != "rough"]
    assert max(slippery) <= min(grips) / 3
    assert {task.family for task in dist.tasks("test")} == {"ice", "icy-slope", "rough"}
    assert {task.family for task in dist.tasks("validation")} == {"flat", "slope-up", "slope-down", "sand"}


@pytest.mark.parametrize(
    "task",
    [
        Task.of("ice", friction=-0.1),
        Task.of("slope-up", slope=80.0),
        Task.of("sand", damping=1.0, depth=0.1, drag=1.0, softness=0.001),
        Task.of("rough", amplitude=0.1, seed=0.0, wavelength=0.1),
    ],
    ids=str,
)
def test_impossible_grounds_are_refused(task: Task) -> None:
    with pytest.raises(ValueError, match=r"the ground's \w+ can be .* to .*, got"):
        envs.make("cheetah-terrain").env(task).reset(seed=0)


def test_defaults_are_half_cheetahs() -> None:
    assert PARAMETERS["friction"].default == 0.4
    assert TORSO[1] == 0.7
