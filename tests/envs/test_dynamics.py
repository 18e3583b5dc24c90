"""Scaled bodies against Gymnasium's environments on MJCF files that say the same."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)

from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils import seeding
from numpy import ndarray

from metarl.envs import EnvDistribution
from metarl.envs.ant import ant_angle, ant_direction, ant_goal
from metarl.envs.body import Body, default_model
from metarl.envs.body_models import body_xml
from metarl.envs.contact_pairs import compile_with_pairs, touching_pairs
from metarl.envs.dynamics import hopper_dynamics, humanoid_dynamics, scaled_world, walker_dynamics
from metarl.envs.faults import TEST, TRAIN, VALIDATION, broken_world, cheetah_faults
from metarl.envs.locomotion import LocomotionSimulator
from metarl.envs.objectives import FORWARD
from metarl.envs.planar import HALF_CHEETAH, HOPPER, WALKER
from metarl.tasks import Task

MAKERS = (hopper_dynamics, walker_dynamics, humanoid_dynamics, cheetah_faults, ant_direction, ant_angle, ant_goal)


def numbers(model: mujoco.MjModel) -> dict[str, ndarray]:
    """All arrays of a model, and its statistics."""
    arrays = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    found = {name: value for name, value in arrays.items() if isinstance(value, ndarray) and value.dtype.kind in "fiu"}
    return found | {"meaninertia": np.array(model.stat.meaninertia), "meanmass": np.array(model.stat.meanmass)}


def scaled(body: Body, task: Task) -> mujoco.MjModel:
    return scaled_world(body, body.integration, task).model


def same(left: mujoco.MjModel, right: mujoco.MjModel) -> bool:
    return all(np.array_equal(value, numbers(right)[name]) for name, value in numbers(left).items())


@pytest.mark.parametrize("body", [HOPPER, WALKER], ids=["hopper", "walker"])
def test_a_scaled_model_is_the_one_that_is_compiled_anew(body: Body) -> None:
    """Down to what MuJoCo derives: density scales a part's mass and its inertia alike."""
    spec = mujoco.MjSpec.from_string(body_xml(f"{'hopper' if body is HOPPER else 'walker2d_v5'}.xml", 262144))
    for part, exponent in (("leg", 2.0), ("torso", -1.5)):
        for geom in spec.body(part).geoms:
            geom.density *= 1.5**exponent
    ours_model = scaled(body, Task.of("x", mass_leg=2.0, inertia_leg=2.0, mass_torso=-1.5, inertia_torso=-1.5))
    compiled, ours = numbers(compile_with_pairs(spec, touching_pairs(spec))), numbers(ours_model)
    assert {"body_subtreemass", "body_invweight0", "dof_invweight0", "actuator_acc0", "dof_M0"} <= compiled.keys()
    for name, value in compiled.items():
        assert np.allclose(value, ours[name], rtol=1e-12, atol=1e-14), name
    assert not same(ours_model, default_model(body))
    assert same(scaled(body, Task.of("x", mass_leg=0.0, friction_floor=0.0)), default_model(body))


def write_variant(path: Path) -> None:
    """Walker2d-v5's file with a heavier left leg, a looser knee, a stiffer hip and less grip of floor and left foot."""
    source = resources.files("gymnasium.envs.mujoco") / "assets" / "walker2d_v5.xml"
    root = ElementTree.fromstring(source.read_text())
    geoms = {geom.get("name"): geom for geom in root.iter("geom")}
    joints = {joint.get("name"): joint for joint in root.iter("joint")}
    geoms["leg_left_geom"].set("density", repr(1000 * 1.5**2.0))
    geoms["floor"].set("friction", f"{0.7 * 1.5**-3.0!r} .1 .1")
    geoms["foot_left_geom"].set("friction", f"{1.9 * 1.5**-2.5!r} .1 .1")
    joints["leg_joint"].set("damping", repr(0.1 * 1.3**-3.0))
    joints["thigh_joint"].set("damping", repr(0.1 * 1.3**3.0))
    path.write_text(ElementTree.tostring(root, encoding="unicode"))


def test_a_scaled_walker_moves_as_gymnasiums_on_the_changed_file(tmp_path: Path) -> None:
    write_variant(tmp_path / "walker.xml")
    theirs = gymnasium.make("Walker2d-v5", xml_file=str(tmp_path / "walker.xml")).unwrapped
    task = Task.of(
        "dynamics", mass_leg_left=2.0, inertia_leg_left=2.0, friction_floor=-3.0, friction_foot_left=-2.5,
        damping_leg=-3.0, damping_thigh=3.0,
    )  # fmt: skip
    ours = LocomotionSimulator(1, 1, WALKER, FORWARD, scaled_world)
    ours.set_task(0, task)
    ours.reset(0, seeding.np_random(5)[0])
    first, _ = theirs.reset(seed=5)
    observed = np.zeros((1, 17))
    ours.observe(observed)
    assert np.array_equal(observed[0], first)
    for action in np.random.default_rng(1).uniform(-1, 1, (40, 6)):
        wanted = theirs.step(action)
        outcome = ours.step(action[None], np.ones(1, bool))
        ours.observe(observed)
        assert np.allclose(observed[0], wanted[0], rtol=0, atol=1e-8)
        assert outcome.rewards[0] == pytest.approx(wanted[1], abs=1e-7)


def motions(body: Body, tasks: list[Task]) -> ndarray:
    """Positions after some thrashing about, and after falling and sliding in several postures: [task, coordinate]."""
    simulator = LocomotionSimulator(len(tasks), 1, body, FORWARD, scaled_world)
    for index, task in enumerate(tasks):
        simulator.set_task(index, task)
        simulator.reset(index, np.random.default_rng(0))
    everybody, rng = np.ones(len(tasks), bool), np.random.default_rng(0)
    for action in rng.uniform(-1, 1, (50, default_model(body).nu)):
        simulator.step(np.tile(action, (len(tasks), 1)), everybody)
    ends = [simulator.pool.qpos.copy()]
    for _ in range(8):
        qpos, qvel = np.zeros(default_model(body).nq), np.zeros(default_model(body).nv)
        qpos[1], qpos[2:], qvel[0] = 0.5, rng.uniform(-2.0, 0.0, default_model(body).nq - 2), 3.0
        for index in range(len(tasks)):
            simulator.pool.reset(index, qpos, qvel)
        for _ in range(50):
            simulator.step(np.zeros((len(tasks), default_model(body).nu)), everybody)
        ends.append(simulator.pool.qpos.copy())
    return np.concatenate(ends, -1)


@pytest.mark.parametrize("body", [HOPPER, WALKER], ids=["hopper", "walker"])
def test_every_parameter_changes_how_the_body_moves(body: Body) -> None:
    names = (hopper_dynamics() if body is HOPPER else walker_dynamics()).units
    assert len(names) == (16 if body is HOPPER else 28)
    unchanged, *changed = motions(body, [Task.of("x"), *[Task.of("x", **{name: 3.0}) for name in names]])
    for name, qpos in zip(names, changed, strict=True):
        assert np.abs(qpos - unchanged).max() > 1e-6, name


@pytest.mark.parametrize("make", [hopper_dynamics, walker_dynamics, humanoid_dynamics])
def test_exponents_are_the_literatures_and_half_of_the_test_goes_beyond(make: type) -> None:
    dist: EnvDistribution = make()
    for task in (*dist.sample("train", 50, np.random.default_rng(0)), *dist.tasks("validation")):
        assert task.family == "dynamics"
        assert all(abs(task.number(name)) <= 3.0 for name, _ in task.parameters)
    families = [task.family for task in dist.tasks("test")]
    assert families.count("dynamics") == families.count("wide") == 20
    for task in dist.tasks("test"):
        largest = max(abs(task.number(name)) for name, _ in task.parameters)
        assert largest <= 3.0 if task.family == "dynamics" else 3.0 < largest <= 4.5


@pytest.mark.parametrize("make", MAKERS)
def test_starts_tell_nothing(make: type) -> None:
    dist: EnvDistribution = make()
    tasks = (*dist.tasks("test"), *dist.tasks("train"))[:24]
    venv = dist.vector_env(len(tasks))
    venv.set_tasks(tasks)
    for seed in range(5):
        observations, _ = venv.reset(seed=[seed] * len(tasks))
        assert np.array_equal(observations, observations[:1].repeat(len(tasks), 0))


def test_impossible_exponents_are_refused() -> None:
    venv = hopper_dynamics().vector_env(1)
    task = Task.of("dynamics", **(dict(venv.tasks[0].parameters) | {"mass_leg": 40.0}))
    venv.set_tasks([task])
    with pytest.raises(ValueError, match="exponent mass_leg can be -10 to 10, got 40"):
        venv.reset(seed=0)


# A failed joint


def test_joints_of_the_test_are_not_those_of_training() -> None:
    dist = cheetah_faults()
    assert {*TRAIN, *VALIDATION, *TEST} == {"intact", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"}
    assert len({*TRAIN, *VALIDATION, *TEST}) == len(TRAIN) + len(VALIDATION) + len(TEST)
    assert {task.family for task in dist.tasks("test")} == set(TEST)
    assert {task.family for task in dist.sample("train", 100, np.random.default_rng(0))} == set(TRAIN)
    assert broken_world(HALF_CHEETAH, HALF_CHEETAH.integration, Task.of("intact")).model is not default_model(
        HALF_CHEETAH
    )
    assert same(
        broken_world(HALF_CHEETAH, HALF_CHEETAH.integration, Task.of("intact")).model, default_model(HALF_CHEETAH)
    )


@pytest.mark.parametrize("joint", range(6))
def test_a_dead_motor_moves_nothing_and_costs(joint: int) -> None:
    """Motors in the order of the actions; the one that failed is ignored, the others are not."""
    names = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
    venv = cheetah_faults().vector_env(3)
    venv.set_tasks([Task.of(names[joint])] * 3)
    venv.reset(seed=[0] * 3)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 6)):
        actions = np.tile(action, (3, 1))
        actions[1, joint] = 0.0
        actions[2, (joint + 1) % 6] = 0.0
        observations, _, _, _, infos = venv.step(actions)
        assert np.array_equal(observations[0], observations[1])
        assert infos["reward_ctrl"][0] < infos["reward_ctrl"][1]
        assert not np.array_equal(observations[0], observations[2])
