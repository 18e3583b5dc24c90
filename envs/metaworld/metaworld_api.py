# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false, reportIncompatibleMethodOverride=false
# (MuJoCo's binding comes without types; metaworld's environments are driven through what they keep to themselves.)
"""The only module that imports metaworld: its environments, made lean, and its scripted policies.

A lean environment is metaworld's own class with its methods as they are, but for the way they find things: bodies,
sites and geoms are looked up by name once instead of at every use, and the helpers of `fast_math.py` stand in for their
slow equals. Rewards, observations and resets remain metaworld's code; only `observe` is written anew.
"""

import functools
import pickle
import sys
import types
from collections.abc import Callable
from typing import Protocol, cast, final, runtime_checkable

import metaworld
import mujoco
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from metaworld import evaluation, sawyer_xyz_env
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.types import Task as StockTask
from metaworld.utils import reward_utils
from numpy import ndarray

from metarl.envs.metaworld import fast_math

OBSERVATION_SIZE = 39
TERMS = ("success", "near_object", "grasp_success", "grasp_reward", "in_place_reward", "obj_to_target")
"""What metaworld's `info` holds beside the unscaled reward, which is the reward."""


def class_names() -> tuple[str, ...]:
    """All classes by metaworld's names."""
    return tuple(ALL_V3_ENVIRONMENTS)


def stock_task(name: str, rand_vec: ndarray, *, goal_shown: bool) -> StockTask:
    """A task as metaworld wants it."""
    data = {
        "rand_vec": rand_vec,
        "env_cls": ALL_V3_ENVIRONMENTS[name],
        "partially_observable": not goal_shown,
    }
    return StockTask(name, pickle.dumps(data))


def expert(name: str) -> Callable[[ndarray], ndarray]:
    """Metaworld's scripted policy of a class: an action for an observation that shows the goal."""
    return cast(Callable[[ndarray], ndarray], ENV_POLICY_MAP[name]().get_action)


def their_test_envs(name: str, reward: str, seed: int, num_envs: int) -> SyncVectorEnv:
    """Metaworld's own test environments of a benchmark (`ML10`) or a class, which add the last action, reward and done
    to their observations.
    """
    envs = metaworld.make_ml_envs_test(
        name,
        seed=seed,
        meta_batch_size=num_envs,
        recurrent_info_in_obs=True,
        normalize_reward_in_recurrent_info=False,
        reward_function_version=reward,
    )
    assert isinstance(envs, SyncVectorEnv)
    return envs


def their_train_envs(name: str, num_envs: int, seed: int) -> AsyncVectorEnv:
    """Metaworld's own training environments of a benchmark, a process each, on their first goals."""
    envs = metaworld.make_ml_envs_train(name, seed=seed, meta_batch_size=num_envs, vector_strategy="async")
    assert isinstance(envs, AsyncVectorEnv)
    envs.call("sample_tasks")  # without it the reset raises
    envs.reset()
    return envs


@runtime_checkable
class MetaLearningAgent(Protocol):
    """What metaworld's evaluation asks of an agent: its own protocol, in a form that can be checked."""

    def init(self) -> None: ...
    def adapt_action(self, observations: ndarray) -> tuple[ndarray, dict[str, ndarray]]: ...
    def step(self, timestep: evaluation.Timestep) -> None: ...
    def adapt(self) -> None: ...
    def eval_action(self, observations: ndarray) -> ndarray: ...
    def reset(self, env_mask: ndarray) -> None: ...


def evaluate_as_metaworld(
    agent: MetaLearningAgent, envs: SyncVectorEnv, trials: int, rounds: int, episodes: int, judged: int
) -> tuple[float, float, dict[str, float]]:
    """`metaworld.evaluation.metalearning_evaluation`: success rate, mean return, success rate by class.

    Args:
        agent: any that follows metaworld's protocol.
        envs: of `their_test_envs`.
        trials: goals that each environment is given.
        rounds: adaptations.
        episodes: in each of them.
        judged: episodes a class and trial that the figures are made of: the first to end, of whichever environment.
    """
    return evaluation.metalearning_evaluation(agent, envs, trials, rounds, episodes, judged)


@final
class NamedParts:
    """An `MjData` whose bodies, sites, geoms and joints are looked up by name once."""

    def __init__(self, data: mujoco.MjData) -> None:
        self._data = data
        self.body, self.site = functools.cache(data.body), functools.cache(data.site)
        self.geom, self.joint = functools.cache(data.geom), functools.cache(data.joint)
        self.qpos, self.qvel, self.site_xpos = data.qpos, data.qvel, data.site_xpos

    def __getattr__(self, name: str) -> object:
        return getattr(self._data, name)


class Lean(SawyerXYZEnv):
    """What lean environments have in common; `lean_class` adds a class of metaworld's."""

    _hand: ndarray
    _claws: tuple[ndarray, ndarray]
    _fingers: tuple[ndarray, ndarray]

    def settle(self) -> None:
        """Called once, when the simulation is there: looks up what every step needs."""
        data = self.data
        self._hand = data.body("hand").xpos
        self._claws = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._fingers = data.site("rightEndEffector").xpos, data.site("leftEndEffector").xpos

    def get_endeff_pos(self) -> ndarray:
        return self.data.body("hand").xpos

    def observe(self, low: ndarray, high: ndarray) -> ndarray:
        """The observation after a step, within its bounds: [now (18), before (18), goal or zeros (3)]."""
        now = np.zeros(18)
        now[:3] = self._hand
        right, left = self._claws
        now[3] = min(max(fast_math.norm(right - left) / 0.1, 0.0), 1.0)
        positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
        for index in range(len(positions) // 3):
            start = 4 + 7 * index
            now[start : start + 3] = positions[3 * index : 3 * index + 3]
            now[start + 3 : start + 7] = quaternions[4 * index : 4 * index + 4]
        observation = np.empty(OBSERVATION_SIZE)
        observation[:18], observation[18:36] = now, self._prev_obs
        observation[36:] = 0.0 if self._partially_observable else self._get_pos_goal()
        self._prev_obs = now
        return observation.clip(low, high, out=observation)

    @property
    def tcp_center(self) -> ndarray:
        right, left = self.data.site("rightEndEffector").xpos, self.data.site("leftEndEffector").xpos
        return (right + left) / 2.0

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both pads press on the object, from the contacts of the last `mj_forward`."""
        contacts, forces = self.data.contact, self.data.efc_force
        pressing = []
        for pad in ("leftpad_geom", "rightpad_geom"):
            identifier, force = self.data.geom(pad).id, 0.0
            for pair, address in zip(contacts.geom.tolist(), contacts.efc_address.tolist(), strict=True):
                if identifier in pair and object_geom_id in pair:
                    force += forces[address]
            pressing.append(force > 0)
        return all(pressing)


@functools.cache
def lean_class(name: str) -> type[Lean]:
    """A class of metaworld's with its methods bound to quicker helpers."""
    stock = ALL_V3_ENVIRONMENTS[name]
    tolerance = fast_math.tolerance(reward_utils.tolerance)
    helpers = {
        "np": fast_math.numpy_with_quick_norm(),
        "Rotation": fast_math.Rotation,
        "tolerance": tolerance,
        "reward_utils": types.SimpleNamespace(**{**vars(reward_utils), "tolerance": tolerance}),
    }
    names = {**vars(sys.modules[stock.__module__]), **helpers}
    caging = _with_names(SawyerXYZEnv._gripper_caging_reward, {**vars(sawyer_xyz_env), **helpers})
    methods: dict[str, object] = {"_gripper_caging_reward": caging}
    for attribute, value in vars(stock).items():
        if isinstance(value, types.FunctionType) and attribute not in ("__init__", "reset_model"):
            methods[attribute] = _with_names(_undecorated(value), names)
        elif isinstance(value, staticmethod):
            methods[attribute] = staticmethod(_with_names(value.__func__, names))
    lean = type(f"Lean{stock.__name__}", (Lean, stock), methods)
    names[stock.__name__] = lean  # static methods are called by the class's name
    return lean


def make(name: str, reward: str) -> Lean:
    """A lean environment, as metaworld constructs it."""
    lean = lean_class(name)(reward_function_version=reward)
    lean.settle()
    return lean


def _undecorated(function: types.FunctionType) -> types.FunctionType:
    """The function under metaworld's check that a task is set."""
    if function.__closure__ is None or function.__name__ != "inner":
        return function
    inside = [cell.cell_contents for cell in function.__closure__]
    return next(each for each in inside if isinstance(each, types.FunctionType))


def _with_names(function: Callable[..., object], names: dict[str, object]) -> types.FunctionType:
    """The same function with its module's names taken from `names`."""
    assert isinstance(function, types.FunctionType)
    bound = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound
