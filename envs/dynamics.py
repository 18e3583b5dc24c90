# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Robots whose bodies are not quite what they were: mass, inertia, damping and friction vary part by part.

    m' = 1.5^e m,   e ~ U[−3, 3]

for the mass and the inertia of each part and the sliding friction of each geom (the floor's too), and 1.3^e for the
damping of each joint: the rand-params environments of ProMP (Rothfuss et al. 2019), PEARL and VariBAD, with their
horizon of 200. There, each component of inertia and friction has a factor of its own; here a part's inertia has one,
which is the same in the plane, where bodies only turn about y; and of friction only the sliding coefficient acts.

Nothing of it is observed: the Humanoid goes without the inertias of Humanoid-v5's observation and without the
velocities relative to its centre of mass. Otherwise reward, costs and termination are Gymnasium's v5; the literature's
environments too end when the robot falls. Training and validation are drawn from the range above, and so is half of
the test; the other half, `wide`, has exponents of U[−4.5, 4.5]: factors to 6.2 instead of 3.4.

The integrators are Gymnasium's, RK4 at 0.002 s (Hopper, Walker2d) and 0.003 s (Humanoid). Under random actions on
frictionless ground they gain what friction of 0.00001, 0.0001 and 0.0004 would account for.
"""

import copy

import mujoco
from numpy import ndarray

from metarl.envs.body import Body, default_model
from metarl.envs.contact_pairs import mix_contact_parameters
from metarl.envs.distribution import EnvDistribution
from metarl.envs.humanoid import Humanoid
from metarl.envs.integration import Integration
from metarl.envs.locomotion import World, locomotion
from metarl.envs.model_cache import ModelCache
from metarl.envs.objectives import FORWARD
from metarl.envs.planar import HOPPER, WALKER
from metarl.tasks import Family, Task, TaskSpace, Uniform

HORIZON = 200  # environment steps
SCALE, DAMPING_SCALE = 1.5, 1.3
LOG_SCALE_LIMIT, WIDE_LOG_SCALE_LIMIT = 3.0, 4.5
CACHE_BYTES = 64 << 20  # of compiled models in a process
MAX_LOG_SCALE = 10.0  # 1.5^10 = 58


MODELS: ModelCache[tuple[str, Task]] = ModelCache(CACHE_BYTES)
"""The process's scaled bodies."""


def _varied(model: mujoco.MjModel) -> dict[str, tuple[ndarray, float]]:
    """The numbers that each parameter scales, as views into the model, and what its exponent is one of."""
    varied: dict[str, tuple[ndarray, float]] = {}
    for index in range(1, model.nbody):
        name = model.body(index).name
        varied[f"mass_{name}"] = model.body_mass[index : index + 1], SCALE
        varied[f"inertia_{name}"] = model.body_inertia[index], SCALE
    for index in range(model.nv):
        if model.dof_damping[index]:
            joint = model.joint(model.dof_jntid[index]).name.removesuffix("_joint")
            varied[f"damping_{joint}"] = model.dof_damping[index : index + 1], DAMPING_SCALE
    for index in range(model.ngeom):
        name = model.geom(index).name.removesuffix("_geom")
        varied[f"friction_{name}"] = model.geom_friction[index, :1], SCALE
    return varied


def scaled_world(body: Body, integration: Integration, task: Task) -> World:
    """The body with the task's factors, on Gymnasium's floor."""
    assert integration == body.integration
    return World(MODELS.get((body.name, task), lambda: _scaled_model(body, task)))


def _scaled_model(body: Body, task: Task) -> mujoco.MjModel:
    model = copy.copy(default_model(body))
    varied = _varied(model)
    for name, _ in task.parameters:
        exponent = task.number(name)
        if not abs(exponent) <= MAX_LOG_SCALE:
            raise ValueError(f"the exponent {name} can be {-MAX_LOG_SCALE:g} to {MAX_LOG_SCALE:g}, got {exponent:g}")
        values, scale = varied[name]
        values *= scale**exponent
    mix_contact_parameters(model)
    # What MuJoCo derives from these when it compiles: apparent inertias, and so the softness of contacts and limits.
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _family(name: str, body: Body, limit: float) -> Family:
    units = {
        parameter: f"e: {scale:g}^e times {body.name}'s"
        for parameter, (_, scale) in _varied(default_model(body)).items()
    }
    return Family(name, {parameter: Uniform(-limit, limit, 0.01, unit) for parameter, unit in units.items()})


def _distribution(id: str, body: Body) -> EnvDistribution:
    usual, wide = _family("dynamics", body, LOG_SCALE_LIMIT), _family("wide", body, WIDE_LOG_SCALE_LIMIT)
    space = TaskSpace(id, train=(usual,), validation=(usual,), test=(usual, wide))
    return locomotion(space, HORIZON, body, FORWARD, scaled_world)


def hopper_dynamics() -> EnvDistribution:
    """Hop forwards with a body whose masses, inertias, damping and friction are unknown: 16 factors."""
    return _distribution("hopper-dynamics", HOPPER)


def walker_dynamics() -> EnvDistribution:
    """Walk forwards with a body whose masses, inertias, damping and friction are unknown: 28 factors."""
    return _distribution("walker-dynamics", WALKER)


def humanoid_dynamics() -> EnvDistribution:
    """Walk forwards with a body whose masses, inertias, damping and friction are unknown: 61 factors."""
    body = Humanoid(include_cinert_in_observation=False, include_cvel_in_observation=False)
    return _distribution("humanoid-dynamics", body)
