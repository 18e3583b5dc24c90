"""What grounds do to the cheetah, and what it is not told about them."""

import numpy as np
import pytest
from numpy import ndarray

from metarl import envs
from metarl.envs import MujocoSimulator
from metarl.envs.ground import CACHE_BYTES, MODELS, field_x, ground_parameters, ground_world, heights
from metarl.envs.locomotion import World
from metarl.envs.model_cache import ModelCache, model_bytes
from metarl.envs.mujoco_pool import MujocoPool
from metarl.envs.planar import HALF_CHEETAH
from metarl.envs.terrain import CLIMBING_MARGIN, INTEGRATION
from metarl.tasks import SPLITS, Task

SEEDS = 4


def on(family: str, **ground: float) -> Task:
    """A task on a ground of this family, forwards."""
    return Task.of(family, direction=1.0, **ground)


FLAT = on("flat", friction=0.4)
ICE = on("ice", friction=0.05)
SAND = on("sand", damping=2.0, depth=0.08, drag=8.0, softness=0.05)
UP, DOWN = on("slope-up", slope=8.0), on("slope-down", slope=-8.0)
ICY_SLOPE = on("icy-slope", friction=0.05, slope=3.0)
ROUGH = on("rough", amplitude=0.2, seed=1.0, wavelength=1.5)
FAMILIES = (FLAT, ICE, SAND, UP, DOWN, ICY_SLOPE, ROUGH)

# A gait that runs on flat ground, found by random search; in the order of the actuators.
FREQUENCY = 4.967  # Hz
AMPLITUDES = np.array([0.500, 0.275, 0.235, 0.450, 0.500, 0.360])
PHASES = np.array([5.32, 0.24, 4.60, 0.61, 0.91, 0.89])  # rad


def build_ground(task: Task) -> World:
    return ground_world(HALF_CHEETAH, INTEGRATION, task)


def terrain_simulator(num_envs: int) -> MujocoSimulator:
    simulator = envs.make("cheetah-terrain").make_simulator(num_envs, 1)
    assert isinstance(simulator, MujocoSimulator)
    return simulator


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
        [on("ice", friction=friction) for friction in (0.03, 0.06, 0.1)] + [FLAT],
        [on("slope-up", slope=slope) for slope in (12.0, 6.0, 1.0)]
        + [on("slope-down", slope=slope) for slope in (-1.0, -6.0, -12.0)],
        [on("sand", damping=1.0, depth=0.04, drag=0.0, softness=softness) for softness in (0.08, 0.05, 0.03)],
        [on("sand", damping=1.0, depth=depth, drag=0.0, softness=0.03) for depth in (0.12, 0.08, 0.04)],
        [on("sand", damping=damping, depth=0.04, drag=0.0, softness=0.04) for damping in (3.0, 2.0, 1.0)],
        [on("sand", damping=1.0, depth=0.04, drag=drag, softness=0.03) for drag in (15.0, 8.0, 0.0)],
    ],
    ids=["friction", "slope", "softness", "depth", "damping", "drag"],
)
def test_parameters_act_in_order(tasks: list[Task]) -> None:
    mean = distances(*tasks).mean(-1)
    assert (np.diff(mean) > 0.3).all(), mean


def test_each_height_field_is_another() -> None:
    tasks = [on("rough", amplitude=0.2, seed=seed, wavelength=1.5) for seed in (1.0, 2.0)]
    tasks += [on("rough", amplitude=0.2, seed=1.0, wavelength=length) for length in (0.8, 2.4)]
    for one, other in distances(*tasks, strength=1.3).mean(-1).reshape(-1, 2):
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
    sands = [on("sand", damping=2.0, depth=depth, drag=2.0, softness=0.05) for depth in (0.04, 0.08, 0.12)]
    observations, _ = still([FLAT, *sands], 150)
    assert np.abs(observations[:, 8:]).max() < 0.2
    assert (np.diff(observations[:, 0]) < -0.01).all(), observations[:, 0]


def test_grip_holds_and_ice_slides() -> None:
    """On a slope, grip holds a robot that does not move; on ice it gathers speed at g (sin − μ cos) cos."""
    tasks = [on("slope-up", slope=5.0), on("icy-slope", friction=0.03, slope=5.0)]
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


@pytest.mark.parametrize("task", [UP, DOWN, ICY_SLOPE], ids=str)
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


def test_nothing_is_seen_of_rough_ground() -> None:
    """The same state looks the same over whatever lies under the robot."""
    tasks = [FLAT, *(on("rough", amplitude=0.25, seed=seed, wavelength=1.0) for seed in (1.0, 2.0))]
    simulator = terrain_simulator(len(tasks))
    observations, rng = np.zeros((len(tasks), 17)), np.random.default_rng(0)
    for index, task in enumerate(tasks):
        simulator.set_task(index, task)
    for x in rng.uniform(-10, 100, 20):
        state = np.concatenate(([x, 2.0], rng.normal(0, 0.3, 7))), rng.normal(0, 1, 9)
        for index in range(len(tasks)):
            simulator.pool.reset(index, *state)
        simulator.observe(observations)
        assert np.array_equal(observations, np.tile(np.concatenate((state[0][1:], state[1])), (len(tasks), 1)))


def test_height_fields_are_as_described() -> None:
    field = heights(1.0, 20.0, 5)
    assert np.abs(field).max() == pytest.approx(1.0, abs=0.05)
    middle = field[len(field) // 2]
    assert np.ptp(middle) > 0.5
    assert not middle[np.abs(field_x()) < 0.95].any()


def test_mujoco_has_the_heights() -> None:
    """Drops the cheetah on many places of rough ground: torso over ground is the same wherever it comes to rest."""
    rough = on("rough", amplitude=0.3, seed=2.0, wavelength=30.0)
    field = heights(0.3, 30.0, 2)
    places = np.linspace(-85.0, 85.0, 8)
    levels = np.interp(places, field_x(), field[len(field) // 2])
    pool = MujocoPool(build_ground(FLAT).model, len(places) + 1, INTEGRATION.frame_skip, 1)
    for index, x in enumerate(places):
        pool.load(index, build_ground(rough).model)
        pool.reset(index, np.array([x, levels[index], *[0.0] * 7]), np.zeros(9))
    pool.reset(len(places), np.zeros(9), np.zeros(9))
    for _ in range(60):
        assert not pool.step(np.zeros((len(places) + 1, 6)), np.ones(len(places) + 1, bool)).any()
    above = pool.qpos[:-1, 1] - np.interp(pool.qpos[:-1, 0], field_x(), field[len(field) // 2])
    assert np.ptp(levels) > 0.15
    assert np.allclose(above, pool.qpos[-1, 1], atol=0.04), (above, pool.qpos[-1, 1])


def test_models_are_kept_within_bytes() -> None:
    """However many grounds are asked for; those asked for last stay."""
    for index in range(300):
        build_ground(on("ice", friction=0.03 + 1e-4 * index))
    kept = [build_ground(ROUGH).model for _ in range(2)]
    assert kept[0] is kept[1]
    assert CACHE_BYTES / 2 < MODELS.num_bytes <= CACHE_BYTES


def test_a_cache_counts_what_models_take() -> None:
    made = {name: build_ground(task).model for name, task in (("ice", ICE), ("rough", ROUGH), ("flat", FLAT))}
    sizes = {name: model_bytes(model) for name, model in made.items()}
    assert sizes["rough"] - sizes["ice"] >= heights(0.2, 1.5, 1).size * np.dtype(np.float32).itemsize
    cache: ModelCache[str] = ModelCache(sizes["ice"] + sizes["rough"])
    assert cache.get("ice", lambda: made["ice"]) is made["ice"]
    cache.get("rough", lambda: made["rough"])
    assert cache.num_bytes == sizes["ice"] + sizes["rough"]
    assert cache.get("ice", lambda: made["flat"]) is made["ice"]  # used again: now rough's turn to go
    cache.get("flat", lambda: made["flat"])
    assert (len(cache), cache.num_bytes) == (2, sizes["ice"] + sizes["flat"])
    assert cache.get("rough", lambda: made["flat"]) is made["flat"]


def test_pictures_of_rough_ground_have_no_black_patches(drawing: str) -> None:
    for seed, wavelength in ((7.0, 0.9), (1.0, 1.5)):
        task = on("rough", amplitude=0.25, seed=seed, wavelength=wavelength)
        env = envs.make("cheetah-terrain").env(task, render_mode="rgb_array", width=320, height=240)
        env.reset(seed=0)
        for step in range(80):
            env.step(gait(step))
        picture = env.render()
        env.close()
        assert picture is not None
        below = picture[len(picture) // 2 :]  # the ground; the marks' labels, which are black, stand above
        assert (below.max(-1) < 40).mean() < 1e-3  # edges of the legs and of posts


def test_icy_slopes_can_be_climbed() -> None:
    """Coulomb: what friction can push with is above what gravity pulls with, by a margin; some have it narrowly."""
    icy = [task for task in envs.make("cheetah-terrain").tasks("test") if task.family == "icy-slope"]
    family = next(each for each in envs.make("cheetah-terrain").space.test if each.name == "icy-slope")
    icy += [family.draw(np.random.default_rng(seed)) for seed in range(500)]
    margins = [task.number("friction") / np.tan(np.deg2rad(task.number("slope"))) for task in icy]
    assert CLIMBING_MARGIN - 0.01 < min(margins) < CLIMBING_MARGIN + 0.02
    steepest = max(task.number("slope") for task in icy)
    assert 2.5 < steepest < np.rad2deg(0.1 / CLIMBING_MARGIN)


def test_the_gait_climbs_an_icy_slope() -> None:
    assert distances(on("icy-slope", friction=0.08, slope=2.0), strength=1.6).min() > 3


def test_the_test_is_outside_of_training() -> None:
    dist = envs.make("cheetah-terrain")
    drawn = dist.sample("train", 2000, np.random.default_rng(0))
    grips = [ground_parameters(HALF_CHEETAH, task)["friction"] for task in drawn]
    slippery = [task.number("friction") for task in dist.tasks("test") if task.family != "rough"]
    assert max(slippery) <= min(grips) / 3
    assert {task.family for task in dist.tasks("test")} == {"ice", "icy-slope", "rough"}
    assert {task.family for task in dist.tasks("validation")} == {"flat", "slope-up", "slope-down", "sand"}


@pytest.mark.parametrize(
    "task",
    [
        on("ice", friction=-0.1),
        on("slope-up", slope=80.0),
        on("sand", damping=1.0, depth=0.1, drag=1.0, softness=0.001),
        on("rough", amplitude=0.1, seed=0.0, wavelength=0.1),
    ],
    ids=str,
)
def test_impossible_grounds_are_refused(task: Task) -> None:
    with pytest.raises(ValueError, match=r"the ground's \w+ can be .* to .*, got"):
        envs.make("cheetah-terrain").env(task).reset(seed=0)


def test_defaults_are_half_cheetahs() -> None:
    own = {"friction": 0.4, "slope": 0.0, "softness": 0.02, "damping": 1.0}
    assert ground_parameters(HALF_CHEETAH, Task.of("flat")) == own
