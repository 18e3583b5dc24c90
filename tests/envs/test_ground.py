"""Grounds under any body: what is seen of them, and that they act alike whatever stands on them."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)

import copy
from collections.abc import Callable

import gymnasium
import mujoco
import numpy as np
import pytest
from numpy import ndarray

from metarl.envs import EnvDistribution, ground
from metarl.envs.ant import Ant
from metarl.envs.body import Body, turned
from metarl.envs.ground import ground_parameters, ground_world
from metarl.envs.integration import Integration
from metarl.envs.locomotion import LocomotionSimulator, World
from metarl.envs.near_field import NearField
from metarl.envs.objectives import FORWARD
from metarl.envs.planar import HALF_CHEETAH, WALKER
from metarl.envs.terrain import ANT_INTEGRATION, WALKER_INTEGRATION, ant_terrain, cheetah_terrain, walker_terrain
from metarl.tasks import SPLITS, Task

MAKERS = {"cheetah": cheetah_terrain, "ant": ant_terrain, "walker": walker_terrain}
BODIES: dict[str, Body] = {"cheetah": HALF_CHEETAH, "ant": Ant(), "walker": WALKER}
RK4 = Integration("RK4", timestep=0.005, frame_skip=4, cone="elliptic")
SLOPE = Task.of("slope-up", slope=9.0)
ROUGH = Task.of("rough", amplitude=0.15, seed=4.0, wavelength=1.0)
SAND = Task.of("sand", damping=2.0, depth=0.08, drag=0.5, softness=0.05)


def playing(body: Body, worlds: list[tuple[Task, Callable[[Body, Integration, Task], World]]]) -> LocomotionSimulator:
    """One sub-simulation for each, all started from the same random numbers."""
    makers = dict(worlds)
    simulator = LocomotionSimulator(
        len(worlds), 1, body, FORWARD, lambda body, integration, task: makers[task](body, integration, task), RK4
    )
    for index, (task, _) in enumerate(worlds):
        simulator.set_task(index, task)
        simulator.reset(index, np.random.default_rng(7))
    return simulator


def observed(simulator: LocomotionSimulator) -> ndarray:
    out = np.zeros((simulator.num_envs, *simulator.observation_space.shape))
    simulator.observe(out)
    return out


@pytest.mark.parametrize("name", ["ant", "walker"])
def test_the_bodys_own_floor_is_gymnasiums(name: str) -> None:
    """With Gymnasium's integration and friction, up to where parts touch that grip less than feet."""
    body = BODIES[name]
    friction = ground_parameters(body, Task.of("flat"))["friction"]
    dist = MAKERS[name](body.integration)
    env = dist.env(Task.of("flat", friction=friction))
    theirs = gymnasium.make(body.name)
    assert np.array_equal(env.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (25, *(dist.action_space.shape or ()))).astype(np.float32):
        ours, wanted = env.step(action), theirs.step(action)
        assert np.array_equal(ours[0], wanted[0])
        assert ours[1:3] == wanted[1:3]
        if ours[2]:
            break


@pytest.mark.parametrize("name", BODIES)
def test_a_slope_is_gravity_that_pulls_aside(name: str) -> None:
    """A tilted body on a slope, observed relative to it, moves as an upright one under tilted gravity."""

    def under_tilted_gravity(body: Body, integration: Integration, _task: Task) -> World:
        level = ground_world(body, integration, Task.of("flat"))
        model = copy.copy(level.model)
        model.opt.gravity[:] = turned(model.opt.gravity, np.array(-np.deg2rad(9.0)))
        return World(model)

    simulator = playing(BODIES[name], [(SLOPE, ground_world), (Task.of("level"), under_tilted_gravity)])
    slope, level = observed(simulator)
    np.testing.assert_allclose(slope, level, rtol=0, atol=1e-12)
    actions = np.random.default_rng(0).uniform(-1, 1, (25, 1, *simulator.action_space.shape)).repeat(2, 1)
    rewards = []
    for action in actions:
        outcome = simulator.step(action, np.ones(2, bool))
        slope, level = observed(simulator)
        np.testing.assert_allclose(slope, level, rtol=0, atol=1e-6)
        assert outcome.terminated[0] == outcome.terminated[1]
        rewards.append(outcome.rewards)
    assert np.abs(np.diff(rewards)).max() > 1e-3  # of the world's x


@pytest.mark.parametrize("name", MAKERS)
def test_starts_tell_nothing(name: str) -> None:
    dist: EnvDistribution = MAKERS[name]()
    tasks = list({task.family: task for split in SPLITS for task in dist.tasks(split)}.values())
    assert len(tasks) == 7
    venv = dist.vector_env(len(tasks))
    venv.set_tasks(tasks)
    for seed in range(10):
        observations, _ = venv.reset(seed=[seed] * len(tasks))
        assert np.allclose(observations, observations[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BODIES)
def test_bumps_are_felt_and_not_seen(name: str) -> None:
    """The height field acts as MuJoCo's own search for contacts has it, and the same state looks the same over it."""
    body = BODIES[name]

    def search(spec: mujoco.MjSpec, _pairs: object) -> mujoco.MjModel:
        spec.geom("rough").conaffinity = 1
        return spec.compile()

    def by_search(body: Body, integration: Integration, task: Task) -> World:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ground, "compile_with_pairs", search)
            patch.setattr(ground, "MODELS", ground.ModelCache(0))
            return ground_world(body, integration, task)

    flat, searched = Task.of("flat"), Task.of(ROUGH.family, **(dict(ROUGH.parameters) | {"seed": 4}))
    simulator = playing(body, [(ROUGH, ground_world), (searched, by_search), (flat, ground_world)])
    assert simulator.pool.model(0).npair > simulator.pool.model(1).npair == 0
    qpos, qvel = simulator.pool.qpos.copy(), np.zeros(simulator.pool.qvel.shape)
    qpos[:, 0] = 30.0
    for index in range(3):
        simulator.pool.reset(index, qpos[index], qvel[index])
    assert np.array_equal(observed(simulator), observed(simulator)[:1].repeat(3, 0))
    for action in np.random.default_rng(0).uniform(-1, 1, (60, 1, *simulator.action_space.shape)).repeat(3, 1):
        assert not simulator.step(action, np.ones(3, bool)).diverged.any()
        assert np.array_equal(simulator.pool.qpos[0], simulator.pool.qpos[1])
    assert np.abs(simulator.pool.qpos[0] - simulator.pool.qpos[2]).max() > 0.01


@pytest.mark.parametrize("name", BODIES)
def test_sand_gives_way_and_holds_back(name: str) -> None:
    """A body at rest lies lower on softer ground; one that slides is slowed by F = −c v."""
    deep = Task.of("sand", damping=2.0, depth=0.12, drag=0.5, softness=0.08)
    simulator = playing(BODIES[name], [(task, ground_world) for task in (Task.of("flat"), SAND, deep)])
    height = BODIES[name].axes
    for _ in range(200):
        simulator.step(np.zeros((3, *simulator.action_space.shape)), np.ones(3, bool))
    flat, sand, deeper = simulator.pool.qpos[:, height]
    assert flat - 0.005 > sand > deeper + 0.005
    dampings = [simulator.pool.model(index).dof_damping for index in range(3)]
    assert dampings[1][: BODIES[name].axes].tolist() == [0.5] * BODIES[name].axes
    assert np.array_equal(dampings[1][BODIES[name].axes :], dampings[0][BODIES[name].axes :])
    assert not dampings[0][: BODIES[name].axes].any()


@pytest.mark.parametrize("name", BODIES)
def test_what_slides_on_ice_is_slowed_by_its_friction(name: str) -> None:
    """v̇ = −μ g, whatever the body: thrown along the ground, centre of mass by momentum."""
    simulator = playing(BODIES[name], [(Task.of("ice", friction=0.08), ground_world)])
    still = np.zeros((1, *simulator.action_space.shape))
    model, data = simulator.pool.model(0), mujoco.MjData(simulator.pool.model(0))
    speeds = []
    for step in range(300):
        if step == 150:
            qvel = simulator.pool.qvel[0].copy()
            qvel[0] += 2.0
            simulator.pool.reset(0, simulator.pool.qpos[0], qvel)
        simulator.step(still, np.ones(1, bool))
        if step in (160, 189):
            data.qpos[:], data.qvel[:] = simulator.pool.qpos[0], simulator.pool.qvel[0]
            mujoco.mj_fwdPosition(model, data)
            mujoco.mj_subtreeVel(model, data)
            mujoco.mj_comVel(model, data)
            mujoco.mj_subtreeVel(model, data)
            speeds.append(data.subtree_linvel[0, 0])
    assert (speeds[1] - speeds[0]) / (29 * RK4.control_period) == pytest.approx(-0.08 * 9.81, rel=0.05)


def test_walkers_and_ants_have_specs_of_their_own() -> None:
    dists = [make() for make in MAKERS.values()]
    assert len({dist.hash for dist in dists}) == 3
    assert [dist.horizon for dist in dists] == [200, 200, 500]
    for dist, integration in zip(dists[1:], (ANT_INTEGRATION, WALKER_INTEGRATION), strict=True):
        assert dist.physics["integration"] == integration.spec()
        assert {task.family for task in dist.tasks("test")} == {"ice", "icy-slope", "rough"}
        assert {task.family for task in dist.sample("train", 40, np.random.default_rng(0))} == {
            "flat",
            "slope-up",
            "slope-down",
            "sand",
        }


def test_near_ground_is_drawn_as_the_whole_field_is(drawing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the body stands, and however far it came since the part was cut out."""
    near, whole = (playing(HALF_CHEETAH, [(ROUGH, ground_world)]) for _ in range(2))
    follow = NearField.follow
    for x in (0.0, 3.0, 7.3, 61.0, 88.0, -40.0):
        pictures = []
        for simulator, cut in ((near, follow), (whole, lambda *_: None)):
            monkeypatch.setattr(NearField, "follow", cut)
            qpos, qvel = simulator.pool.qpos[0].copy(), simulator.pool.qvel[0].copy()
            qpos[0] = x
            simulator.pool.reset(0, qpos, qvel)
            pictures.append(simulator.render(0, 160, 120).astype(int))
        assert (np.abs(pictures[0] - pictures[1]).max(2) > 16).mean() < 0.002, x
    near.close()
    whole.close()
