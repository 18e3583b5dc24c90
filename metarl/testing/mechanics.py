# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""A MuJoCo model's mechanics: its momentum and energy, and variations of it in which they are known beforehand."""

import copy
from typing import final

import mujoco
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

_NEVER = -1e6  # m, a margin so negative that geoms never touch


@final
class Mechanics:
    """What a model's bodies do together, from positions and velocities alone. Static bodies do not count."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self.mass = float(model.body_mass[model.body_weldid != 0].sum())  # kg

    def momentum(
        self, qpos: Float[ndarray, "state nq"], qvel: Float[ndarray, "state nv"]
    ) -> tuple[Float[ndarray, "state 3"], Float[ndarray, "state 3"]]:
        """P = Σ m ẋ in kg m/s, and the centre of mass Σ m x / Σ m in m, up to a constant where bodies are static."""
        model, data = self._model, self._data
        momenta, centres = np.empty((2, len(qpos), 3))
        for index, (position, velocity) in enumerate(zip(qpos, qvel, strict=True)):
            data.qpos[:], data.qvel[:] = position, velocity
            for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_comVel, mujoco.mj_subtreeVel):
                stage(model, data)
            momenta[index], centres[index] = data.subtree_linvel[0], data.subtree_com[0]
        total = model.body_subtreemass[0]  # with static bodies
        return momenta * total, centres * (total / self.mass)

    def energy(self, qpos: Float[ndarray, "state nq"], qvel: Float[ndarray, "state nv"]) -> Float[ndarray, " state"]:
        """½ vᵀM(q)v, plus what gravity and the joints' and tendons' springs hold, in J."""
        model, data = self._model, self._data
        energies = np.empty(len(qpos))
        for index, (position, velocity) in enumerate(zip(qpos, qvel, strict=True)):
            data.qpos[:], data.qvel[:] = position, velocity
            for stage in (mujoco.mj_fwdPosition, mujoco.mj_energyPos, mujoco.mj_energyVel):
                stage(model, data)
            energies[index] = data.energy.sum()
        return energies


def on_level_ground(model: mujoco.MjModel) -> mujoco.MjModel:
    """The model on one plane, with gravity at right angles to it, and with nothing else to hold on to.

    Other ground (height fields, boxes, walls) is taken away, the plane then goes through its body's origin. What ties
    the body to the world goes too: damping, springs, friction and armature of the joints between them, wind, drag.

    Raises:
        ValueError: there is no plane, or the body cannot move freely over it.
    """
    _need_free(model)
    model = copy.copy(model)
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    collides[np.concatenate((model.pair_geom1, model.pair_geom2))] = True
    ground = np.flatnonzero((model.body_weldid[model.geom_bodyid] == 0) & collides)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    normals = {int(g): data.geom_xmat[g].reshape(3, 3)[:, 2] for g in ground if _is_plane(model, int(g))}
    if not normals:
        raise ValueError("this model has no ground plane to stand on")
    plane = max(normals, key=lambda geom: float(normals[geom] @ -model.opt.gravity))
    others = ground[ground != plane]
    if others.size:
        model.geom_contype[others] = model.geom_conaffinity[others] = 0
        listed = np.isin(model.pair_geom1, others) | np.isin(model.pair_geom2, others)
        model.pair_margin[listed] = _NEVER
        model.geom_pos[plane] = 0.0
    model.opt.gravity[:] = -np.linalg.norm(model.opt.gravity) * normals[plane]
    model.opt.wind[:] = model.opt.density = model.opt.viscosity = 0.0
    model.body_gravcomp[:] = 0.0
    dofs = root_dofs(model)
    model.dof_damping[dofs] = model.dof_frictionloss[dofs] = model.dof_armature[dofs] = 0.0
    model.jnt_stiffness[model.dof_jntid[dofs]] = 0.0
    return model


def without_friction(model: mujoco.MjModel) -> mujoco.MjModel:
    """The model with contacts that push along their normal alone, whatever the cone."""
    model = copy.copy(model)
    model.geom_condim[:] = 1
    model.pair_dim[:] = 1
    return model


def in_free_flight(model: mujoco.MjModel) -> mujoco.MjModel:
    """The model without gravity, contacts, actuators and all that takes energy away: that would hide what is made."""
    model = copy.copy(model)
    model.opt.gravity[:] = model.opt.wind[:] = model.opt.density = model.opt.viscosity = 0.0
    model.dof_damping[:] = model.dof_frictionloss[:] = 0.0
    model.tendon_damping[:] = model.tendon_frictionloss[:] = 0.0
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    return model


def up(model: mujoco.MjModel) -> Float[ndarray, "3"]:
    """Against gravity; length 1."""
    return -model.opt.gravity / np.linalg.norm(model.opt.gravity)


def greatest_friction(model: mujoco.MjModel) -> float:
    """μ: the greatest sliding coefficient of any contact between the ground and a body."""
    static = model.body_weldid[model.geom_bodyid] == 0
    coefficients = [0.0]
    for ground in np.flatnonzero(static):
        for geom in np.flatnonzero(~static):
            if not (
                model.geom_contype[ground] & model.geom_conaffinity[geom]
                or model.geom_contype[geom] & model.geom_conaffinity[ground]
            ):
                continue
            # As in MuJoCo: the geom of higher priority decides, the greater value where they are equals.
            pair = np.array([ground, geom])
            deciding = pair[model.geom_priority[pair] == model.geom_priority[pair].max()]
            if model.geom_condim[deciding].max() > 1:
                coefficients.append(float(model.geom_friction[deciding, 0].max()))
    for one, other, condim, friction in zip(
        model.pair_geom1, model.pair_geom2, model.pair_dim, model.pair_friction, strict=True
    ):
        if static[one] != static[other] and condim > 1:
            coefficients.append(float(friction[:2].max()))
    return max(coefficients)


def root_dofs(model: mujoco.MjModel) -> Int[ndarray, " dof"]:
    """The degrees of freedom between the world and the bodies that hang on it directly."""
    return np.flatnonzero(model.body_weldid[model.body_parentid[model.dof_bodyid]] == 0)


def random_state(
    model: mujoco.MjModel, rng: np.random.Generator, speed: float
) -> tuple[Float[ndarray, "nq"], Float[ndarray, "nv"]]:
    """Hinges and slides anywhere within their limits, velocities of N(0, speed²) rad/s or m/s."""
    qpos, qvel = model.qpos0.copy(), rng.normal(0.0, speed, model.nv)
    scalar = np.isin(model.jnt_type, (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE))
    for joint in np.flatnonzero(scalar & (model.jnt_limited != 0)):
        qpos[model.jnt_qposadr[joint]] = rng.uniform(*model.jnt_range[joint])
    return qpos, qvel


def _is_plane(model: mujoco.MjModel, geom: int) -> bool:
    return bool(model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE)


def _need_free(model: mujoco.MjModel) -> None:
    """Raises ValueError where something ties a body to the world that cannot be taken off."""
    joints = model.dof_jntid[root_dofs(model)]
    free = np.isin(model.jnt_type[joints], (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_SLIDE))
    if not free.any():
        raise ValueError("this model's body is fixed to the world: its momentum is not its own")
    for actuator in range(model.nu):
        kind, target = model.actuator_trntype[actuator], model.actuator_trnid[actuator, 0]
        if kind in (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT) and target in joints:
            raise ValueError(f"actuator {actuator} pushes the body off the world: its momentum is not its own")
    for kind, one, other in zip(model.eq_type, model.eq_obj1id, model.eq_obj2id, strict=True):
        bodies = kind in (mujoco.mjtEq.mjEQ_CONNECT, mujoco.mjtEq.mjEQ_WELD)
        if bodies and 0 in (model.body_weldid[one], model.body_weldid[other]):
            raise ValueError("a constraint ties the body to the world: its momentum is not its own")
