"""The protocols that every learner follows, and the values that they pass around.

A learner is a frozen record of options. What it has learned is a value, `State`, that goes in and comes out. So
nothing is overwritten and put back, and a checkpoint is simply the state written down.

    start(state, tasks) -> adapted      adapted.adapt(support) -> adapted      act (a policy) / predict (a predictor)
    meta_step(state, experience, rng) -> state                                 learn from many tasks
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeVar, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.learning.episodes import Episodes, Trials
from metarl.learning.random_streams import TaskRandom
from metarl.learning.store import EMPTY_STORE, Store

Parameters = Mapping[str, Tensor]
Metrics = Mapping[str, float | int]
Carry = tuple[Tensor, ...]
"""What a policy carries from step to step: any (named) tuple of tensors with leading axes [task, episode]."""

Experience_contra = TypeVar("Experience_contra", contravariant=True)
Experience_co = TypeVar("Experience_co", covariant=True)
Learner_contra = TypeVar("Learner_contra", contravariant=True)
Adapted_co = TypeVar("Adapted_co", covariant=True)


@final
@dataclasses.dataclass(frozen=True, repr=False)
class State:
    """What a learner has learned so far."""

    parameters: Parameters
    optimizer: Parameters
    """The optimiser's tensors by name; empty for an optimiser without state."""
    store: Store = EMPTY_STORE
    """Large data that only grows, such as a replay buffer; a checkpoint appends what is new."""
    behaviour: Parameters | None = None
    """The parameters that the next outer step's experience is collected with, where collecting overlaps with learning
    and so lags behind it (`metarl.learning.overlap`). None: `parameters`."""

    def __repr__(self) -> str:
        """One line, without the numbers."""
        count = sum(value.numel() for value in self.parameters.values())
        return f"<State of {count:,} parameters in {len(self.parameters)} tensors, on {self.device}>"

    def to(self, device: torch.device | str) -> "State":
        """The same on another device; the store stays in the computer's memory."""

        def moved(part: Parameters) -> Parameters:
            return {name: value.to(device) for name, value in part.items()}

        behaviour = None if self.behaviour is None else moved(self.behaviour)
        return State(moved(self.parameters), moved(self.optimizer), self.store, behaviour)

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and so where the learner computes."""
        return next((value.device for value in self.parameters.values()), torch.device("cpu"))


@final
@dataclasses.dataclass(frozen=True)
class AdaptationProtocol:
    """How an agent spends a trial: `num_adaptations` times, act for some episodes, then adapt to them."""

    num_adaptations: int
    """Adaptations in a trial; the adaptation curve has one point more."""
    episodes_per_adaptation: int
    """Episodes on each task before each adaptation, and after the last."""

    def __post_init__(self) -> None:
        if self.num_adaptations < 0 or self.episodes_per_adaptation < 1:
            raise ValueError(
                "need num_adaptations >= 0 and episodes_per_adaptation >= 1, "
                f"got {self.num_adaptations} and {self.episodes_per_adaptation}"
            )


@runtime_checkable
class Learner(Protocol[Experience_contra, Adapted_co]):
    """Learns across tasks. All randomness is in what is passed in."""

    @property
    def meta_batch(self) -> int:
        """Tasks an outer step."""
        ...

    @property
    def progress_keys(self) -> tuple[str, ...]:
        """The names of the metrics that people watch while it trains."""
        ...

    def init(self, seed: int) -> State:
        """The state before any learning."""
        ...

    def start(self, state: State, num_tasks: int) -> Adapted_co:
        """The learner that has seen nothing of `num_tasks` tasks yet."""
        ...

    def meta_step(self, state: State, experience: Experience_contra, rng: np.random.Generator) -> tuple[State, Metrics]:
        """One outer step, and its metrics beside those of the experience."""
        ...


class Transition(NamedTuple):
    """What one step of every episode led to; entries of episodes that had ended before mean nothing."""

    actions: Shaped[Tensor, "task episode *action"]
    """As executed: clipped to ±1, the bounds of the action space, or the numbers of discrete actions."""
    rewards: Float[Tensor, "task episode"]
    done: Bool[Tensor, "task episode"]
    """Whether the episode has ended, by termination or truncation."""
    next_observations: Float[Tensor, "task episode observation"]
    """Of an episode that has just ended: its final observation."""


@runtime_checkable
class AdaptedPolicy(Protocol):
    """A policy for each task of a batch: plain data and pure functions, so that it pickles and can be sent anywhere.

    A task's actions may depend on nothing but that task: not on which others are in the batch, nor on their number.
    """

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        """The carry at the start of `num_episodes` episodes a task, played side by side.

        `random` is for policies that draw something once an episode; None where no noise is wanted.
        """
        ...

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        """Actions in units of the action space (±1 are the bounds of a Box, to which the sampler clips; numbers from 0
        for Discrete): drawn with `random`'s noise, or, where it is None, the mean or most probable ones.
        """
        ...

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        """Takes in what the actions led to."""
        ...

    def adapt(self, support: Episodes) -> "AdaptedPolicy":
        """The policy after this experience too; `self` stays as it is."""
        ...


@runtime_checkable
class Agent(Learner[Trials, AdaptedPolicy], Protocol):
    """A learner that acts. It owns no sampler: an experience source hands the training loop its trials."""

    @property
    def protocol(self) -> AdaptationProtocol:
        """How the agent is trained to adapt; evaluation follows it unless told otherwise."""
        ...

    @property
    def adaptation_name(self) -> str:
        """What one adaptation is called in a caption: `gradient step`, `episode`."""
        ...


@runtime_checkable
class OffPolicyLearner(Learner[Experience_contra, Adapted_co], Protocol):
    """A learner that can learn from what other parameters than its present ones have collected."""

    def off_policy_meta_step(
        self, state: State, behaviour: Parameters, experience: Experience_contra, rng: np.random.Generator
    ) -> tuple[State, Metrics]:
        """`meta_step` on experience that was collected with the parameters `behaviour`, from an earlier state."""
        ...


@runtime_checkable
class WarmStarting(Protocol):
    """An agent that can begin with what one of another kind has learned."""

    def warm_start(self, fresh: State, other: Agent, learned: State) -> State:
        """`fresh` with what the other has learned in its place.

        Raises:
            ValueError: it cannot begin with this one; the message names both sides.
        """
        ...


@runtime_checkable
class Experience(Protocol):
    """What a learner learns from in an outer step: trials, or the supports and queries of few-shot tasks."""

    def metrics(self) -> Metrics:
        """Its own metrics. `env_steps`, where given, counts the simulator's steps."""
        ...


@runtime_checkable
class ExperienceSource(Protocol[Learner_contra, Experience_co]):
    """Hands the training loop the experience of an outer step."""

    def collect(self, learner: Learner_contra, state: State, seed: int, step: int) -> Experience_co:
        """The training experience of outer step `step`: a function of its arguments alone."""
        ...


class Memoryless:
    """What policies have in common whose actions depend on the present observation alone."""

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        return ()

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        return carry
