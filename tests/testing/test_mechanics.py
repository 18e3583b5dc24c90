"""Momentum, energy and friction of models, against MuJoCo's mass matrix and against what can be worked out by hand."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)

import mujoco
import numpy as np
import pytest

from metarl.envs.body import default_model
from metarl.envs.ground import ground_world
from metarl.envs.planar import HALF_CHEETAH
from metarl.envs.terrain import INTEGRATION
from metarl.tasks import Task
from metarl.testing.mechanics import (
    Mechanics,
    greatest_friction,
    in_free_flight,
    on_level_ground,
    random_state,
    root_dofs,
    up,
    without_friction,
)

FLOOR = '<geom name="floor" type="plane" size="9 9 1"/>'
BALL = '<body pos="0 0 2"><freejoint/><geom type="sphere" size="0.1" mass="2"/></body>'


def model(world: str, rest: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{world}</worldbody>{rest}</mujoco>")


def test_momentum_is_the_mass_matrixs_first_rows() -> None:
    """P = M v in the rows of the root's slides, and the centre of mass moves at P / m."""
    cheetah, rng = default_model(HALF_CHEETAH), np.random.default_rng(0)
    mechanics, data, mass = Mechanics(cheetah), mujoco.MjData(cheetah), np.zeros((9, 9))
    assert mechanics.mass == pytest.approx(14)
    for _ in range(5):
        qpos, qvel = random_state(cheetah, rng, 5.0)
        data.qpos[:] = qpos
        mujoco.mj_forward(cheetah, data)
        mujoco.mj_fullM(cheetah, mass, data.qM)
        states = np.stack((qpos, qpos + 1e-6 * qvel))
        momenta, centres = mechanics.momentum(states, np.tile(qvel, (2, 1)))
        momentum = momenta[0]
        np.testing.assert_allclose(momentum, [mass[0] @ qvel, 0.0, mass[1] @ qvel], atol=1e-10)
        np.testing.assert_allclose((centres[1] - centres[0]) / 1e-6, momentum / 14, atol=1e-4)


def test_static_bodies_do_not_count() -> None:
    mechanics = Mechanics(model(f'{FLOOR}<body pos="5 0 0"><geom size="1" mass="100"/></body>{BALL}{BALL}'))
    assert mechanics.mass == pytest.approx(4)
    qpos, qvel = np.tile([0.0, 0, 2, 1, 0, 0, 0], (2, 2)), np.zeros((2, 12))
    qvel[0, :3], qvel[0, 6:9] = (1, 2, 3), (4, 0, 0)
    qpos[1, 0] = 1.0
    momenta, centres = mechanics.momentum(qpos, qvel)
    np.testing.assert_allclose(momenta, [[10, 4, 6], [0, 0, 0]])
    np.testing.assert_allclose(centres[1] - centres[0], [0.5, 0, 0], atol=1e-12)


def test_energy_is_of_motion_gravity_and_springs() -> None:
    spring = '<body><joint type="slide" axis="1 0 0" stiffness="50"/><geom size="0.1" mass="3"/></body>'
    energies = Mechanics(model(spring)).energy(np.array([[0.2], [0.0]]), np.array([[2.0], [1.0]]))
    np.testing.assert_allclose(energies, [0.5 * 3 * 4 + 0.5 * 50 * 0.04, 0.5 * 3])
    raised = np.array([[0.0, 0, 5, 1, 0, 0, 0]])
    np.testing.assert_allclose(Mechanics(model(BALL)).energy(raised, np.zeros((1, 6))), 2 * 9.81 * 5)


def test_level_ground_is_level_and_holds_nothing() -> None:
    """What becomes of terrain's grounds: one plane through the origin, gravity against it, no drag."""
    tasks = [
        Task.of("icy-slope", friction=0.08, slope=2.5),
        Task.of("sand", damping=2.0, depth=0.08, drag=8.0, softness=0.05),
        Task.of("rough", amplitude=0.2, seed=1.0, wavelength=1.5),
    ]
    for task in tasks:
        ground = ground_world(HALF_CHEETAH, INTEGRATION, task)
        level = on_level_ground(ground.model)
        data = mujoco.MjData(level)
        mujoco.mj_forward(level, data)
        assert not level.geom_conaffinity.any()  # contacts are by listed pairs
        (plane,) = set(level.pair_geom1[level.pair_margin >= 0].tolist())
        assert level.geom_type[plane] == mujoco.mjtGeom.mjGEOM_PLANE
        np.testing.assert_allclose(data.geom_xpos[plane], 0.0)
        np.testing.assert_allclose(up(level), data.geom_xmat[plane].reshape(3, 3)[:, 2], atol=1e-12)
        assert np.linalg.norm(level.opt.gravity) == pytest.approx(9.81)
        assert not level.dof_damping[:3].any() and (level.dof_damping[3:] == ground.model.dof_damping[3:]).all()
        assert root_dofs(level).tolist() == [0, 1, 2]
    assert ground_world(HALF_CHEETAH, INTEGRATION, tasks[1]).model.dof_damping[0] == 8.0  # the original is left alone


def test_bodies_that_the_world_holds_are_refused() -> None:
    hinge = '<body><joint name="arm" type="hinge"/><geom size="0.1"/></body>'
    cart = '<body><joint name="cart" type="slide"/><geom size="0.1"/></body>'
    with pytest.raises(ValueError, match="no ground plane"):
        on_level_ground(model(BALL))
    with pytest.raises(ValueError, match="fixed to the world"):
        on_level_ground(model(FLOOR + hinge))
    with pytest.raises(ValueError, match="actuator 0 pushes the body off the world"):
        on_level_ground(model(FLOOR + cart, '<actuator><motor joint="cart"/></actuator>'))
    named = BALL.replace("<body", '<body name="ball"')
    with pytest.raises(ValueError, match="a constraint ties the body to the world"):
        on_level_ground(model(FLOOR + named, '<equality><connect body1="ball" anchor="0 0 0"/></equality>'))


@pytest.mark.parametrize(
    ("floor", "ball", "rest", "friction"),
    [
        ('friction="0.2"', 'friction="0.7"', "", 0.7),
        ('friction="0.2" priority="1"', 'friction="0.7"', "", 0.2),
        ('friction="0.2" condim="1"', 'friction="0.7" condim="1"', "", 0.0),
        ('friction="0.2" contype="2" conaffinity="2"', 'friction="0.7"', "", 0.0),
        (
            'friction="0.2" contype="0" conaffinity="0"',
            'name="ball" contype="0" conaffinity="0"',
            '<contact><pair geom1="floor" geom2="ball" friction="0.3 0.9"/></contact>',
            0.9,
        ),
    ],
    ids=["the greater", "priority", "frictionless", "no contact", "pair"],
)
def test_friction_is_combined_as_mujoco_does(floor: str, ball: str, rest: str, friction: float) -> None:
    world = FLOOR.replace("<geom", f"<geom {floor}") + BALL.replace("<geom", f"<geom {ball}")
    built = model(world, rest)
    assert greatest_friction(built) == pytest.approx(friction)
    assert greatest_friction(without_friction(built)) == 0.0
    data = mujoco.MjData(built)
    data.qpos[2] = 0.09
    mujoco.mj_forward(built, data)
    if friction > 0:
        assert data.contact[0].friction[:2].max() == pytest.approx(friction)
    else:
        assert data.ncon == 0 or data.contact[0].dim == 1


def test_free_flight_is_free() -> None:
    """Without gravity, ground, motors and damping, a body keeps momentum and energy."""
    cheetah, rng = in_free_flight(default_model(HALF_CHEETAH)), np.random.default_rng(0)
    cheetah.opt.timestep, cheetah.opt.integrator = 1e-4, mujoco.mjtIntegrator.mjINT_RK4
    mechanics, data = Mechanics(cheetah), mujoco.MjData(cheetah)
    qpos, qvel = random_state(cheetah, rng, 1.0)
    low, high = cheetah.jnt_range[3:].T
    assert (qpos[3:] >= low).all() and (qpos[3:] <= high).all() and np.ptp(qpos[3:]) > 0.3
    qpos[1] = -0.6  # where the ground would be
    data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, 1.0
    mujoco.mj_step(cheetah, data, 50)
    states = np.stack((qpos, data.qpos)), np.stack((qvel, data.qvel))
    momenta, energies = mechanics.momentum(*states)[0], mechanics.energy(*states)
    np.testing.assert_allclose(momenta[1], momenta[0], atol=1e-9)
    assert energies[1] == pytest.approx(energies[0], rel=1e-6)
    assert default_model(HALF_CHEETAH).dof_damping[3] == 6.0
