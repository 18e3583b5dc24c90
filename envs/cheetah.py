# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""HalfCheetah: the body, and the distributions that vary what it is rewarded for.

In `cheetah-direction` and `cheetah-velocity` the body starts and moves bit for bit as Gymnasium's HalfCheetah-v5, so
that figures compare with published ones. Its integrator (Euler, 0.01 s; see `integration.py`) makes momentum out of
nothing: weights trained to do so gather 23 m/s in 10 s on frictionless ground, where nothing can get anywhere. Gaits
there owe part of their speed to it. A distribution whose ground matters needs a better one, as `cheetah-terrain` has.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Literal, final
from xml.etree import ElementTree

import mujoco
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl.envs.distribution import EnvDistribution
from metarl.envs.integration import Integration
from metarl.envs.mujoco_pool import MujocoPool
from metarl.envs.simulator import Outcome
from metarl.tasks import Choice, Family, Json, Task, TaskSpace, Uniform

HALF_CHEETAH_INTEGRATION = Integration("Euler", timestep=0.01, frame_skip=5, cone="pyramidal")  # HalfCheetah-v5's
CTRL_COST_WEIGHT = 0.1  # HalfCheetah-v5's
RESET_NOISE_SCALE = 0.1  # HalfCheetah-v5's
TORSO = np.array((0.0, 0.7))  # m, (x, z) of the torso at position 0 of its joints
ARENA_BYTES = 262144  # 8 times what the gravest contacts need; Gymnasium's model takes 6 MB for each simulation
OBSERVATION_SPACE = Box(-np.inf, np.inf, (17,), np.float64)
ACTION_SPACE = Box(-1.0, 1.0, (6,), np.float32)


@functools.cache
def cheetah_xml() -> str:
    """Gymnasium's half_cheetah.xml with less scratch memory: hundreds of simulations are to fit the caches."""
    path = resources.files("gymnasium.envs.mujoco") / "assets" / "half_cheetah.xml"
    root = ElementTree.fromstring(path.read_text())
    size = root.find("size")
    assert size is not None
    del size.attrib["nstack"]
    size.set("memory", str(ARENA_BYTES))
    _light_the_way(root)
    return ElementTree.tostring(root, encoding="unicode")


def _light_the_way(root: ElementTree.Element) -> None:
    """For pictures only: light and floor follow the robot instead of staying at the start, and shadows cost less."""
    world = root.find("worldbody")
    assert world is not None
    light, floor, torso = world.find("light"), world.find("geom"), world.find("body")
    assert light is not None and floor is not None and torso is not None
    world.remove(light)
    torso.insert(0, light)
    light.attrib.update({"mode": "trackcom", "pos": "0 0 3", "dir": "0 0.2 -1", "diffuse": "0.8 0.8 0.8"})
    floor.set("size", "0 0 1")
    material = root.find("asset/material[@name='MatPlane']")
    assert material is not None
    material.attrib.update({"texrepeat": "1 1", "texuniform": "true", "reflectance": "0.1"})
    ElementTree.SubElement(ElementTree.SubElement(root, "visual"), "quality", shadowsize="1024")


@functools.cache
def default_model() -> mujoco.MjModel:
    """HalfCheetah-v5's body and ground."""
    return mujoco.MjModel.from_xml_string(cheetah_xml())


def target_none(x_velocity: Float[ndarray, "env"], _target: Float[ndarray, "env"]) -> Float[ndarray, "env"]:
    """r = v, as HalfCheetah-v5."""
    return x_velocity


def target_direction(x_velocity: Float[ndarray, "env"], target: Float[ndarray, "env"]) -> Float[ndarray, "env"]:
    """r = d v with d = ±1 (Finn et al. 2017, section 5.3)."""
    return target * x_velocity


def target_velocity(x_velocity: Float[ndarray, "env"], target: Float[ndarray, "env"]) -> Float[ndarray, "env"]:
    """r = −|v − v*| (Finn et al. 2017, section 5.3)."""
    return -np.abs(x_velocity - target)


Objective = Literal["forward", "direction", "velocity"]
_OBJECTIVES = {"forward": target_none, "direction": target_direction, "velocity": target_velocity}


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Ground:
    """What a cheetah runs on."""

    model: mujoco.MjModel
    """The body and the ground under it."""
    slope: float = 0.0
    """rad, positive uphill in the direction of x; of its mean plane where the ground is rough."""


def rotate(angle: Float[ndarray, "*batch"] | float, vector: Float[ndarray, "*batch 2"]) -> Float[ndarray, "*batch 2"]:
    """(x, z) turned by `angle` (rad) from x towards z."""
    cosine, sine = np.cos(angle), np.sin(angle)
    x, z = vector[..., 0], vector[..., 1]
    return np.stack((cosine * x - sine * z, sine * x + cosine * z), -1)


def default_ground(_task: Task) -> Ground:
    """HalfCheetah-v5's, whatever the task."""
    return Ground(default_model())


@final
class CheetahSimulator:
    """A batch of HalfCheetahs."""

    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(
        self,
        num_envs: int,
        threads: int,
        objective: Objective,
        ground: Callable[[Task], Ground] = default_ground,
        integration: Integration = HALF_CHEETAH_INTEGRATION,
    ) -> None:
        """`integration` must be that of the models of `ground`."""
        self.num_envs = num_envs
        self._pool = MujocoPool(default_model(), num_envs, integration.frame_skip, threads)
        self._dt = integration.control_period
        self._objective, self._reward = objective, _OBJECTIVES[objective]
        self._target = np.zeros(num_envs)
        self._ground_of = ground
        self._grounds = [Ground(default_model())] * num_envs
        self._sloped, self._slopes = np.zeros(0, np.intp), np.zeros(0)

    @property
    def pool(self) -> MujocoPool:
        return self._pool

    def set_task(self, index: int, task: Task) -> None:
        if self._objective != "forward":
            self._target[index] = task.number(self._objective)
        ground = self._grounds[index] = self._ground_of(task)
        self._pool.load(index, ground.model)
        self._sloped = np.array([i for i, ground in enumerate(self._grounds) if ground.slope], np.intp)
        self._slopes = np.array([self._grounds[i].slope for i in self._sloped])

    def reset(self, index: int, rng: np.random.Generator) -> None:
        # The draws of HalfCheetahEnv.reset_model, in its order.
        qpos = rng.uniform(-RESET_NOISE_SCALE, RESET_NOISE_SCALE, self._pool.qpos.shape[1])
        qvel = RESET_NOISE_SCALE * rng.standard_normal(self._pool.qvel.shape[1])
        slope = self._grounds[index].slope
        if slope:
            qpos[0:2] = rotate(slope, qpos[0:2] + TORSO) - TORSO
            qpos[2] -= slope  # pitch is positive nose down
            qvel[0:2] = rotate(slope, qvel[0:2])
        self._pool.reset(index, qpos, qvel)

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        x_before = self._pool.qpos[:, 0].copy()
        diverged = self._pool.step(actions, active)
        x_after = self._pool.qpos[:, 0].copy()
        x_velocity = (x_after - x_before) / self._dt
        reward_task = self._reward(x_velocity, self._target)
        # Summed in the actions' precision, as Gymnasium does.
        ctrl_cost = (CTRL_COST_WEIGHT * np.square(actions).sum(-1)).astype(np.float64)
        terms = {"x_position": x_after, "x_velocity": x_velocity, "reward_task": reward_task, "reward_ctrl": -ctrl_cost}
        return Outcome(reward_task - ctrl_cost, np.zeros(self.num_envs, bool), diverged, terms)

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        """HalfCheetah-v5's observation; height, pitch and the torso's velocity relative to the ground's mean plane."""
        qpos, qvel = self._pool.qpos, self._pool.qvel
        out[:, :8] = qpos[:, 1:]
        out[:, 8:] = qvel
        if self._sloped.size:
            sloped, slopes = self._sloped, self._slopes
            out[sloped, 0] = rotate(-slopes, qpos[sloped, 0:2] + TORSO)[:, 1] - TORSO[1]
            out[sloped, 1] += slopes
            out[sloped, 8:10] = rotate(-slopes, qvel[sloped, 0:2])

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        camera = mujoco.MjvCamera()
        x, z = self._pool.qpos[index, :2]
        camera.lookat[:] = (x, 0.0, z + TORSO[1] - 0.2)
        camera.distance, camera.azimuth, camera.elevation = 3.5, 90.0, -12.0
        return self._pool.render(index, width, height, camera)

    def close(self) -> None:
        self._pool.close()


def physics_spec(objective: Objective, integration: Integration = HALF_CHEETAH_INTEGRATION) -> Mapping[str, Json]:
    """What decides a cheetah's score, other than its tasks and horizon."""
    reward = {"forward": "v", "direction": "direction * v", "velocity": "-abs(v - velocity)"}[objective]
    return {
        "body": "HalfCheetah-v5",
        "reward": f"{reward} - ctrl_cost_weight * sum(action ** 2)",
        "ctrl_cost_weight": CTRL_COST_WEIGHT,
        "reset_noise_scale": RESET_NOISE_SCALE,
        "integration": integration.spec(),
        "mujoco": mujoco.__version__,
    }


def _distribution(space: TaskSpace, horizon: int, objective: Objective) -> EnvDistribution:
    simulator = functools.partial(CheetahSimulator, objective=objective)
    return EnvDistribution(space, horizon, simulator, physics_spec(objective), OBSERVATION_SPACE, ACTION_SPACE)


def cheetah_direction() -> EnvDistribution:
    """Run forwards or backwards: two tasks, so nothing can be held out."""
    families = (Family("direction", {"direction": Choice((-1.0, 1.0), "1 along +x, -1 along -x")}),)
    space = TaskSpace("cheetah-direction", families, families, families, held_out=False)
    return _distribution(space, 100, "direction")


def _cheetah_velocity(id: str, fastest: float) -> EnvDistribution:
    families = (Family("velocity", {"velocity": Uniform(0.0, fastest, 0.001, "m/s")}),)
    return _distribution(TaskSpace(id, families, families, families), 200, "velocity")


def cheetah_velocity() -> EnvDistribution:
    """Run at a velocity of U[0, 3] m/s, as in ProMP, PEARL and VariBAD."""
    return _cheetah_velocity("cheetah-velocity", 3.0)


def cheetah_velocity_2() -> EnvDistribution:
    """Run at a velocity of U[0, 2] m/s, as in MAML and garage."""
    return _cheetah_velocity("cheetah-velocity-2", 2.0)
