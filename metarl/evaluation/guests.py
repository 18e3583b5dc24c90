"""Policies from elsewhere, judged and filmed like our own: models of Stable-Baselines3, and plain functions.

A model is whatever has Stable-Baselines3's `predict` and its two spaces, one with memory (`sb3_contrib.RecurrentPPO`)
among them: it remembers within an episode. A function gets one observation of the environment and gives one action of
its action space. Neither adapts. What they are given went through float32, as everything that our agents see.

What a model draws comes from global generators; around every call they are seeded for the task, and put back.
"""

import dataclasses
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast, final, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces as kinds
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from metarl.errors import RunError, UsageError
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy, Carry, Metrics, State, Transition
from metarl.learning.random_streams import TaskRandom, seeded
from metarl.learning.spaces import BatchedObservations, Spaces, row, unflatten_batch

Function = Callable[[Any], object]
"""One observation ↦ one action."""
_SEEDS = 1 << 24  # as many as there are float32 numbers in U[0, 1) to make them of


@runtime_checkable
class Model(Protocol):
    """What has Stable-Baselines3's `predict`: its algorithms and its policies."""

    @property
    def observation_space(self) -> gym.Space[Any]: ...

    @property
    def action_space(self) -> gym.Space[Any]: ...

    def predict(
        self,
        observation: Any,  # noqa: ANN401  # an array, or a dict of arrays
        state: tuple[ndarray, ...] | None = None,
        episode_start: ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[ndarray, tuple[ndarray, ...] | None]:
        """Actions for a batch of observations; a memory's arrays have the axes layer, observation, unit."""
        ...


Policy = Model | Function


def guest(policy: Policy, spaces: Spaces, name: str) -> "Guest":
    """A policy from elsewhere as an agent that does not adapt; `name` is what messages call it.

    Raises:
        ValueError: a model that was made for other spaces.
    """
    if isinstance(policy, Model):
        _need_fitting(policy, spaces, name)
        return Guest(ModelActions(_acting(policy)), spaces, name)
    return Guest(FunctionActions(policy), spaces, name)


@runtime_checkable
class Actions(Protocol):
    """Chooses actions of the environment's action space for some episodes of one task."""

    def initial_carry(self, num_episodes: int, spaces: Spaces) -> Carry:
        """With the leading axis episode."""
        ...

    def choose(self, observations: BatchedObservations, carry: Carry, seed: int | None) -> tuple[ndarray, Carry]:
        """Without a seed, the mean or most probable actions, where there is a choice."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class FunctionActions:
    """Of a plain function, which is asked for one episode after the other. Chance in it is its own business."""

    function: Function

    def initial_carry(self, num_episodes: int, spaces: Spaces) -> Carry:
        return ()

    def choose(self, observations: BatchedObservations, carry: Carry, seed: int | None) -> tuple[ndarray, Carry]:
        count = len(_first(observations))
        return np.stack([np.asarray(self.function(row(observations, index))) for index in range(count)]), carry


@final
@dataclasses.dataclass(frozen=True)
class ModelActions:
    """Of a model. Its memory is carried as [starting, its arrays …], where `starting` is 1 before an episode's first
    step: that is when the model forgets what it is given.
    """

    model: Model

    def initial_carry(self, num_episodes: int, spaces: Spaces) -> Carry:
        blank = unflatten_batch(spaces.observation, np.zeros((num_episodes, spaces.observation_size), np.float32))
        with seeded(0):
            _, memory = self.model.predict(blank, deterministic=True)  # tells the shapes of its arrays
        return torch.ones(num_episodes), *(torch.zeros(array.shape).transpose(0, 1) for array in memory or ())

    def choose(self, observations: BatchedObservations, carry: Carry, seed: int | None) -> tuple[ndarray, Carry]:
        starting, *arrays = carry
        memory = tuple(array.transpose(0, 1).contiguous().numpy() for array in arrays) or None
        with seeded(seed or 0):
            actions, after = self.model.predict(observations, memory, starting.numpy() > 0, deterministic=seed is None)
        kept = (torch.from_numpy(np.array(array)).transpose(0, 1) for array in after or ())
        return actions, (torch.zeros_like(starting), *kept)


@final
@dataclasses.dataclass(frozen=True)
class Guest:
    """An agent that has learned elsewhere, and its own policy on `num_tasks` tasks."""

    actions: Actions
    spaces: Spaces
    name: str
    num_tasks: int = 1

    meta_batch = 1
    progress_keys = ()
    adaptation_name = "episode"
    protocol = AdaptationProtocol(num_adaptations=0, episodes_per_adaptation=1)

    def init(self, seed: int) -> State:
        return State({}, {})

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        raise ValueError(f"{self.name} was not made here, and is not trained here")

    def start(self, state: State, num_tasks: int) -> AdaptedPolicy:
        return dataclasses.replace(self, num_tasks=num_tasks)

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        return tuple(
            part.expand(self.num_tasks, *part.shape) for part in self.actions.initial_carry(num_episodes, self.spaces)
        )

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        """Task by task, so that no task's chance or rounding depends on the others."""
        drawn = None if random is None else (random.uniform(1)[:, 0, 0] * _SEEDS).long().tolist()
        acted, carries = list[Tensor](), list[Carry]()
        for task, rows in enumerate(observations.cpu().numpy()):
            batch = unflatten_batch(self.spaces.observation, rows)
            try:
                actions, after = self.actions.choose(
                    batch, tuple(part[task].cpu() for part in carry), None if drawn is None else drawn[task]
                )
            except Exception as error:  # somebody else's code: whatever it is, it is said whose
                space, what = self.spaces.observation, f"{type(error).__name__}: {error}"
                raise RunError(f"{self.name} failed on an observation of {space}: {what}") from error
            acted.append(torch.from_numpy(self._in_units(actions, len(rows))))
            carries.append(after)
        kept = tuple(torch.stack(parts) for parts in zip(*carries, strict=True))
        return torch.stack(acted).to(observations.device), tuple(part.to(observations.device) for part in kept)

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        return carry

    def adapt(self, support: Episodes) -> AdaptedPolicy:
        return self

    def shard(self, tasks: slice) -> AdaptedPolicy:
        """The policy on some of the tasks."""
        return dataclasses.replace(self, num_tasks=len(range(self.num_tasks)[tasks]))

    def _in_units(self, actions: ndarray, count: int) -> Shaped[ndarray, "episode *action"]:
        """Actions of the environment's space as the collector takes them.

        Raises:
            ValueError: they are none of that space.
        """
        space = self.spaces.action
        wrong = f"{self.name} gives actions that are none of {space}"
        if isinstance(space, kinds.Discrete):
            numbers = actions.reshape(count, -1) if actions.size == count else None
            if numbers is None or numbers.dtype.kind not in "iu":
                raise ValueError(f"{wrong}: {actions.dtype} of shape {actions.shape[1:]}")
            chosen = numbers[:, 0].astype(np.int64) - int(space.start)
            if chosen.min() < 0 or chosen.max() >= space.n:
                raise ValueError(f"{wrong}: {actions.ravel().tolist()}")
            return chosen
        if actions.shape != (count, *(space.shape or ())) or actions.dtype.kind not in "fiu":
            raise ValueError(f"{wrong}: {actions.dtype} of shape {actions.shape[1:]}")
        return self.spaces.from_action_space(actions).astype(np.float32)


def load_model(path: Path, trusted: bool) -> Model:
    """The policy in a file that Stable-Baselines3's `model.save` wrote: `PPO`, `SAC`, `RecurrentPPO`, …

    Args:
        path: the .zip file.
        trusted: the user's word that the file may run code here, which what is pickled in it does.

    Raises:
        UsageError: not trusted, no such file, or Stable-Baselines3 cannot read it.
    """
    if not trusted:
        raise UsageError(
            f"{path} holds pickled Python objects, which can run any code when they are loaded; add --trust-pickle if "
            "the file is yours or of somebody you trust"
        )
    try:
        from stable_baselines3.common.save_util import load_from_zip_file
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: to read it takes Stable-Baselines3: pip install stable-baselines3") from error
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is no zip file that Stable-Baselines3 wrote")
    try:
        data, parameters, _ = load_from_zip_file(path, device="cpu")
        return _policy(cast(Mapping[str, Any], data), cast(Mapping[str, Any], parameters)["policy"])
    except Exception as error:  # a pickle may raise anything
        raise UsageError(
            f"{path} cannot be read as a model of Stable-Baselines3: {type(error).__name__}: {error}"
        ) from error


def _policy(data: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> Model:
    """The policy as Stable-Baselines3's algorithms build it from what they save."""
    from stable_baselines3.common.policies import ActorCriticPolicy

    made, options = data["policy_class"], dict(data["policy_kwargs"])
    if issubclass(made, ActorCriticPolicy):  # the others have it among their options
        options["use_sde"] = data["use_sde"]
    with seeded(0):
        policy = made(data["observation_space"], data["action_space"], lambda progress: 0.0, **options)
    policy.load_state_dict(parameters)
    return policy


def _acting(model: Model) -> Model:
    """The part that acts: an algorithm of Stable-Baselines3 has its environment and its buffers too."""
    base = sys.modules.get("stable_baselines3.common.base_class")  # where it is one, that is imported
    return cast(Any, model).policy if base is not None and isinstance(model, base.BaseAlgorithm) else model


def name_of(policy: Policy) -> str:
    """What a policy is called where nobody named it."""
    return type(policy).__name__ if isinstance(policy, Model) else getattr(policy, "__qualname__", repr(policy))


def _need_fitting(model: Model, spaces: Spaces, name: str) -> None:
    for what, own, wanted in (
        ("observes", model.observation_space, spaces.observation),
        ("acts in", model.action_space, spaces.action),
    ):
        if not _fits(own, wanted, bounds=what == "acts in"):
            raise ValueError(f"{name} {what} {own}, and here that would be {wanted}: it was made for another world")


def _fits(own: gym.Space[Any], wanted: gym.Space[Any], *, bounds: bool) -> bool:
    """Whether the spaces' elements mean the same; bounds of observations and precisions may differ."""
    if isinstance(own, kinds.Dict) and isinstance(wanted, kinds.Dict):
        parts = own.spaces.keys() == wanted.spaces.keys()
        return parts and all(_fits(own.spaces[key], wanted.spaces[key], bounds=bounds) for key in own.spaces)
    if isinstance(own, kinds.Box) and isinstance(wanted, kinds.Box):
        same = not bounds or (np.array_equal(own.low, wanted.low) and np.array_equal(own.high, wanted.high))
        return same and own.shape == wanted.shape
    return own == wanted


def _first(observations: BatchedObservations) -> ndarray:
    """An array of the batch, which tells its length."""
    while not isinstance(observations, ndarray):
        observations = next(iter(observations.values() if isinstance(observations, dict) else observations))
    return observations
