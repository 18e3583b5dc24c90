# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false, reportIncompatibleMethodOverride=false
# (MuJoCo's binding comes without types; metaworld's environments are driven through what they keep to themselves.)
"""The only module that imports metaworld: its environments, its scripted policies and its own evaluation.

Rewards, observations and resets are metaworld's code. `fast_math.py` binds it to faster helpers, and `known_classes.py`
writes the steps of some classes out, unless metaworld is to be played as it is.
"""

import functools
import operator
import pickle
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import metaworld
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from metaworld import evaluation
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.types import Task as OfficialTask
from metaworld.utils import reward_utils
from mujoco import MjModel
from numpy import ndarray

from metarl.envs.metaworld import fast_math, known_classes
from metarl.envs.metaworld.known_classes import Outcome, Player

OBSERVATION_SIZE = fast_math.OBSERVATION_SIZE
_MOST_READS = 10  # of the random vector in a reset; one is what a class needs
TERMS = ("success", "near_object", "grasp_success", "grasp_reward", "in_place_reward", "obj_to_target")
"""What metaworld's `info` holds beside the unscaled reward, which is the reward."""
_terms = operator.itemgetter(*TERMS)
_ZEROS = np.zeros(OBSERVATION_SIZE)


def class_names() -> tuple[str, ...]:
    """All classes by metaworld's names."""
    return tuple(ALL_V3_ENVIRONMENTS)


def official_task(name: str, rand_vec: ndarray, *, goal_shown: bool) -> OfficialTask:
    """A task as metaworld wants it."""
    data = {
        "rand_vec": rand_vec,
        "env_cls": ALL_V3_ENVIRONMENTS[name],
        "partially_observable": not goal_shown,
    }
    return OfficialTask(name, pickle.dumps(data))


@functools.cache
def expert(name: str) -> Callable[[ndarray], ndarray]:
    """Metaworld's scripted policy of a class: an action for an observation that shows the goal."""
    return cast(Callable[[ndarray], ndarray], ENV_POLICY_MAP[name]().get_action)


def official_test_envs(name: str, reward: str, seed: int, num_envs: int) -> SyncVectorEnv:
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


def official_train_envs(name: str, num_envs: int, seed: int) -> AsyncVectorEnv:
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
        envs: of `official_test_envs`.
        trials: goals that each environment is given.
        rounds: adaptations.
        episodes: in each of them.
        judged: episodes a class and trial that the figures are made of: the first to end, of whichever environment.
    """
    return evaluation.metalearning_evaluation(agent, envs, trials, rounds, episodes, judged)


class SteppedEnv(SawyerXYZEnv):
    """What stands before a class of metaworld's to be played step by step, without a limit of its own."""

    reads: int
    """How often the random vector was asked for since the reset began."""

    def look_up(self) -> None:
        """Called once, when the simulation is there."""

    def observe(self, low: ndarray, high: ndarray) -> ndarray:
        """The observation after a step, within its bounds: [now (18), before (18), goal or zeros (3)]."""
        return np.clip(self._get_obs(), low, high, dtype=np.float64)

    def begin(self, observation: ndarray, kept: dict[str, Any]) -> None:
        """Called after a reset with the attributes that steps will find in place."""

    def outcome(self, low: ndarray, high: ndarray, action: ndarray, kept: dict[str, Any]) -> Outcome | None:
        """What an action led to: the observation, the reward and the `TERMS`; None where they are no numbers.

        Args:
            low: bounds of the observation.
            high: bounds of the observation.
            action: in the precision that metaworld is to compute in.
            kept: the attributes, which are in place.
        """
        observation = self.observe(low, high)
        if observation.dot(_ZEROS) != 0.0:  # faster than asking for each whether it is finite
            return None
        reward, info = self.evaluate_state(observation, action)
        return observation, float(reward), tuple(map(float, _terms(info)))

    def _get_state_rand_vec(self) -> ndarray:
        """The task's random vector. Metaworld asks again until it likes it, and it is always the same one."""
        self.reads += 1
        if self.reads > _MOST_READS:
            raise ValueError(
                f"metaworld's reset would never end: its object and its goal are too near in {self._last_rand_vec}"
            )
        return super()._get_state_rand_vec()


@functools.cache
def stepped_class(name: str, *, stock: bool) -> type[SteppedEnv]:
    """A class of metaworld's as it is (`stock`), or with its methods bound to faster helpers."""
    official = ALL_V3_ENVIRONMENTS[name]
    if stock:
        return type(f"Stock{official.__name__}", (SteppedEnv, official), {})
    return fast_math.fast_class(official, SteppedEnv, SawyerXYZEnv, reward_utils)


def make(name: str, reward: str, *, stock: bool) -> SteppedEnv:
    """An environment of a class, as metaworld constructs it; `reward` is `v1` or `v2`."""
    env = stepped_class(name, stock=stock)(reward_function_version=reward)
    env.reads = 0
    env.look_up()
    return env


def drawn_model(env: SteppedEnv) -> MjModel:
    """The model of an environment with all that is to be seen."""
    model, _ = MujocoEnv._initialize_simulation(env)
    return model


def player(env: SteppedEnv, name: str, reward: str, *, stock: bool) -> SteppedEnv | Player:
    """Who observes and computes rewards after a step: the environment, or what is written out of its class."""
    shared = SawyerXYZEnv.__module__, reward_utils.__name__
    known = None if stock else known_classes.known_class(ALL_V3_ENVIRONMENTS[name], reward, *shared)
    return env if known is None else Player(known, env.data, env._HAND_SPACE.low, env._HAND_SPACE.high)
