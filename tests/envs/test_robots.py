"""The robots against Gymnasium's v5 environments, the independent oracle."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)

from collections.abc import Mapping

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.utils import seeding

from metarl.envs.ant import Ant, ant_angle, ant_direction, ant_goal
from metarl.envs.body import Body, State, default_model
from metarl.envs.body_models import body_pairs, body_spec
from metarl.envs.contact_pairs import compile_with_pairs
from metarl.envs.dynamics import hopper_dynamics, humanoid_dynamics, scaled_world, walker_dynamics
from metarl.envs.faults import cheetah_faults
from metarl.envs.humanoid import Humanoid
from metarl.envs.locomotion import LocomotionSimulator
from metarl.envs.mujoco_pool import MujocoPool
from metarl.envs.objectives import FORWARD
from metarl.envs.planar import HALF_CHEETAH, HOPPER, WALKER
from metarl.tasks import Task

# What our Ant-Goal and our Humanoid change, by Gymnasium's names.
GOAL = {
    "ctrl_cost_weight": 0.1,
    "healthy_reward": 0.0,
    "terminate_when_unhealthy": False,
    "exclude_current_positions_from_observation": False,
}
BLIND = {"include_cinert_in_observation": False, "include_cvel_in_observation": False}
BODIES: dict[str, tuple[Body, Mapping[str, object]]] = {
    "ant": (Ant(), {}),
    "ant-goal": (Ant(0.1, 5e-4, 0.0, False, False), GOAL),
    "cheetah": (HALF_CHEETAH, {}),
    "hopper": (HOPPER, {}),
    "walker": (WALKER, {}),
    "humanoid": (Humanoid(), {}),
    "humanoid-dynamics": (
        Humanoid(include_cinert_in_observation=False, include_cvel_in_observation=False),
        BLIND,
    ),
}
FORWARDS = Task.of("forwards")


def oracle(body: Body, arguments: Mapping[str, object]) -> MujocoEnv:
    env = gymnasium.make(body.name, **arguments).unwrapped  # pyright: ignore[reportArgumentType]
    assert isinstance(env, MujocoEnv)
    return env


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("name", BODIES)
def test_moves_bit_for_bit_as_gymnasiums(name: str, precision: type) -> None:
    """Also long after the fall, where most of the contacts are."""
    body, arguments = BODIES[name]
    count, steps = 2, 150
    simulator, theirs = LocomotionSimulator(count, 2, body, FORWARD), [oracle(body, arguments) for _ in range(count)]
    assert simulator.observation_space == theirs[0].observation_space
    assert simulator.action_space == theirs[0].action_space
    observations = np.zeros((count, *simulator.observation_space.shape))
    rng = np.random.default_rng(0)
    endings = 0
    for seed in (0, 10, 20):
        for index, env in enumerate(theirs):
            simulator.set_task(index, FORWARDS)
            simulator.reset(index, seeding.np_random(seed + index)[0])
            first, _ = env.reset(seed=seed + index)
            simulator.observe(observations)
            assert np.array_equal(observations[index], first)
        space = simulator.action_space
        for _ in range(steps):
            actions = rng.uniform(1.3 * space.low, 1.3 * space.high, (count, *space.shape)).astype(precision)
            outcome = simulator.step(actions, np.ones(count, bool))
            simulator.observe(observations)
            wanted = [env.step(action) for env, action in zip(theirs, actions, strict=True)]
            assert np.array_equal(observations, [step[0] for step in wanted])
            assert np.array_equal(outcome.rewards, [step[1] for step in wanted])
            assert np.array_equal(outcome.terminated, [step[2] for step in wanted])
            assert not outcome.diverged.any()
            for term, values in outcome.terms.items():
                named = {"reward_task": "reward_forward"}.get(term, term)
                assert np.array_equal(values, [step[4][named] for step in wanted]), term
            endings += outcome.terminated.sum()
    assert bool(endings) == body.terminate_when_unhealthy
    simulator.close()


@pytest.mark.parametrize("name", ["ant", "cheetah", "hopper", "walker", "humanoid"])
def test_little_memory_is_enough_and_models_move_alike(name: str) -> None:
    """Much thrashing about, on Gymnasium's 6 to 15 MB of scratch memory and on ours."""
    body, arguments = BODIES[name]
    theirs = oracle(body, arguments)
    theirs.reset(seed=0)
    model = default_model(body)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = theirs.data.qpos, theirs.data.qvel
    mujoco.mj_forward(model, data)
    extremes = np.random.default_rng(0).choice([-1.0, 1.0], (100, model.nu)) * model.actuator_ctrlrange[:, 1]
    for action in extremes.repeat(3, 0):
        theirs.step(action)
        data.ctrl[:] = action
        mujoco.mj_step(model, data, body.integration.frame_skip)
        assert np.array_equal(data.qpos, theirs.data.qpos)
        assert np.array_equal(data.qvel, theirs.data.qvel)
    assert theirs.model.narena > 13 * model.narena
    assert data.maxuse_arena < model.narena / 4
    assert mujoco.mj_sizeModel(model) < mujoco.mj_sizeModel(theirs.model) / 4


def test_specs_are_the_published_ones() -> None:
    direction, angle, goal = ant_direction(), ant_angle(), ant_goal()
    others = hopper_dynamics(), walker_dynamics(), humanoid_dynamics(), cheetah_faults()
    assert {dist.horizon for dist in (direction, angle, goal, *others)} == {200}
    assert len({dist.hash for dist in (direction, angle, goal, *others)}) == 7
    assert [task["direction"] for task in direction.tasks("test")] == [-1.0, 1.0]
    assert not direction.held_out
    angles = np.array([task.number("angle") for task in angle.sample("train", 1000, np.random.default_rng(0))])
    assert -np.pi <= angles.min() < -3.1
    assert 3.1 < angles.max() <= np.pi
    goals = np.array(
        [
            (task.number("goal_x"), task.number("goal_y"))
            for task in goal.sample("train", 2000, np.random.default_rng(0))
        ]
    )
    radius = np.linalg.norm(goals, axis=-1)
    assert 2.95 < radius.max() <= 3.0
    assert np.mean(radius < 1.5) == pytest.approx(1 / 4, abs=0.03)  # uniform over the disc's area


def test_an_ant_is_rewarded_for_its_direction() -> None:
    """r = v·u: opposite directions have opposite rewards, the others follow from vₓ and v_y; costs are Ant-v5's."""
    dist = ant_angle()
    angles = (0.0, np.pi / 2, 3.1, -2.0)
    venv = dist.vector_env(4)
    venv.set_tasks([Task.of("angle", angle=angle) for angle in angles])
    opposed = ant_direction().vector_env(2)
    opposed.set_tasks([Task.of("direction", direction=direction) for direction in (1.0, -1.0)])
    venv.reset(seed=[3] * 4)
    opposed.reset(seed=[3] * 2)
    actions = np.random.default_rng(0).uniform(-0.3, 0.3, (10, 1, 8))
    for step in range(10):
        _, rewards, _, _, infos = venv.step(actions[step].repeat(4, 0))
        velocities = infos["x_velocity"][0], infos["y_velocity"][0]
        for angle, reward in zip(angles, infos["reward_task"], strict=True):
            assert reward == pytest.approx(np.cos(angle) * velocities[0] + np.sin(angle) * velocities[1])
        others = infos["reward_survive"] + infos["reward_ctrl"] + infos["reward_contact"]
        assert np.allclose(rewards, infos["reward_task"] + others)
        _, rewards, _, _, infos = opposed.step(actions[step].repeat(2, 0))
        assert infos["reward_task"].tolist() == [velocities[0], -velocities[0]]
        assert abs(infos["reward_survive"] - 1).max() == 0


def test_an_ant_is_rewarded_for_nearness_to_its_goal() -> None:
    dist = ant_goal()
    venv = dist.vector_env(2)
    goals = np.array(((1.0, -2.0), (-0.5, 0.25)))
    venv.set_tasks([Task.of("goal", goal_x=x, goal_y=y) for x, y in goals])
    observations, _ = venv.reset(seed=[1, 1])
    assert np.array_equal(observations[0], observations[1])
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 1, 8)):
        observations, rewards, terminated, _, infos = venv.step(action.repeat(2, 0))
        assert np.allclose(infos["reward_task"], -np.abs(observations[:, :2] - goals).sum(-1))
        assert np.allclose(infos["reward_ctrl"], -0.1 * np.square(action).sum())
        assert np.allclose(rewards, infos["reward_task"] + infos["reward_ctrl"] + infos["reward_contact"])
        assert np.array_equal(observations[0], observations[1])  # wherever it is to go
        assert not terminated.any()
        assert "reward_survive" not in infos


@pytest.mark.parametrize("name", ["ant", "hopper", "walker", "humanoid"])
def test_falls_are_gymnasiums(name: str) -> None:
    """States around every limit of height, angle, and (the Hopper's) of all positions and velocities."""
    body, arguments = BODIES[name]
    theirs = oracle(body, arguments)
    theirs.reset(seed=0)
    qpos, qvel = theirs.data.qpos.copy(), theirs.data.qvel.copy()
    height, angle = (1, 2) if body.axes == 1 else (2, 3)
    states = [(qpos.copy(), qvel.copy()) for _ in range(400)]
    rng = np.random.default_rng(0)
    for index, (positions, velocities) in enumerate(states):
        positions[height] = rng.uniform(0.1, 2.2)
        positions[angle] += rng.uniform(-1.2, 1.2) if index % 2 else 0.0
        if index % 4 == 0:
            velocities[rng.integers(len(velocities))] = rng.uniform(-150, 150)
            positions[height] = (0.5, 1.25)[body.axes == 1]
    verdicts = []
    for positions, velocities in states:
        theirs.set_state(positions, velocities)
        verdicts.append(bool(theirs.is_healthy))
    qpos, qvel = (np.array(each) for each in zip(*states, strict=True))
    batch = State(qpos, qvel, {}, np.zeros((400, 1)))
    assert body.healthy(batch).tolist() == verdicts
    assert 20 < sum(verdicts) < 380


def test_a_humanoid_of_other_masses_moves_as_gymnasiums() -> None:
    """Its velocity is that of the centre of mass, which depends on the masses."""
    body, arguments = BODIES["humanoid"]
    theirs = oracle(body, arguments)
    theirs.model.body_mass[7] *= 1.5**3.0
    theirs.model.dof_damping[12] *= 1.3**-2.0
    mujoco.mj_setConst(theirs.model, mujoco.MjData(theirs.model))
    theirs.reset(seed=4)
    ours = LocomotionSimulator(2, 1, body, FORWARD, scaled_world)
    ours.set_task(0, FORWARDS)
    ours.set_task(1, Task.of("dynamics", mass_left_thigh=3.0, damping_right_knee=-2.0))
    ours.reset(0, np.random.default_rng(0))
    ours.reset(1, seeding.np_random(4)[0])
    for action in np.random.default_rng(0).uniform(-0.4, 0.4, (60, 17)):
        _, reward, _, _, info = theirs.step(action)
        outcome = ours.step(np.tile(action, (2, 1)), np.ones(2, bool))
        assert outcome.rewards[1] == reward
        assert outcome.terms["x_velocity"][1] == info["x_velocity"] != outcome.terms["x_velocity"][0]


def test_readings_follow_a_simulation_into_other_memory() -> None:
    """A model of another layout brings an MjData of its own, and too small a one only ends its own simulation."""
    body = Ant()
    roomy, cramped = (compile_with_pairs(body_spec("ant.xml", size), body_pairs("ant.xml")) for size in (1 << 20, 6700))
    plain, changed = (MujocoPool(default_model(body), 3, 5, 1, body.readings) for _ in range(2))
    changed.load(1, roomy)
    changed.load(2, cramped)
    qpos = body.initial_state(np.random.default_rng(0))[0]
    everybody = np.ones(3, bool)
    diverged = ~everybody
    for pool in (plain, changed):
        for index in range(3):
            pool.reset(index, qpos, np.zeros(14))
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 8)):
        actions = np.tile(action, (3, 1))
        assert not plain.step(actions, everybody).any()
        diverged |= changed.step(actions, everybody & ~diverged)
        for name in body.readings:
            assert np.array_equal(plain.readings[name][:2], changed.readings[name][:2])
    assert plain.readings["cfrc_ext"].any()
    assert diverged.tolist() == [False, False, True]
