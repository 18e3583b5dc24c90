"""Agents of ours inside Meta-World's own evaluation, to see what its protocol makes of them.

Its protocol: adapt for some episodes, then let every environment go on from there, resetting whenever an episode ends
and ending it at its first success; count, for each *class*, the first few episodes to end. Where a class has several
goals at once, quick successes crowd out slow failures, so its figure is at least as high as the share of successes
with a fixed quota for each goal, which is what `metarl.evaluate` reports.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from metarl.envs.metaworld import metaworld_api
from metarl.envs.metaworld.distribution import ACTION_SPACE, HORIZON, Benchmark, observation_space
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy, Agent, Carry, State, Transition
from metarl.learning.random_streams import TaskRandom, task_seeds
from metarl.learning.spaces import Spaces

JUDGED = 3  # episodes; the published protocol's
ENVS_A_CLASS, TRIALS = 4, 10  # 40 goals a class, as published; where there is one class, 10 and 5
SPACES = Spaces(observation_space(goal_shown=False), ACTION_SPACE)


@runtime_checkable
class Timestep(Protocol):
    """Metaworld's record of a step, for all environments."""

    @property
    def observation(self) -> ndarray: ...
    @property
    def reward(self) -> ndarray: ...
    @property
    def terminated(self) -> ndarray: ...
    @property
    def truncated(self) -> ndarray: ...


@final
@dataclasses.dataclass(frozen=True)
class OfficialScores:
    """What metaworld's evaluation says."""

    success: float
    """Mean of the classes' success rates."""
    mean_return: float
    """Of the counted episodes, which end at their first success."""
    by_class: Mapping[str, float]
    """Success rate of each class."""


def evaluate(
    agent: Agent, state: State, benchmark: Benchmark, protocol: AdaptationProtocol | None = None, seed: int = 20_210_830
) -> OfficialScores:
    """Runs metaworld's evaluation on an agent as it is.

    Args:
        agent: the agent.
        state: what it has learned.
        benchmark: what metaworld calls the distribution.
        protocol: how the agent adapts; as it was trained to, if None.
        seed: of the goals, which metaworld draws, and of the agent's noise.
    """
    protocol = protocol or agent.protocol
    num_envs, trials = (10, 5) if benchmark.classes == 1 else (ENVS_A_CLASS * benchmark.classes, TRIALS)
    envs = metaworld_api.official_test_envs(benchmark.name, benchmark.reward, seed % 2**31, num_envs)
    try:
        start = agent.start(state, num_envs)
        adapter = AgentAdapter(start, num_envs, protocol.episodes_per_adaptation, seed, state.device)
        # The agent adapts as soon as its episodes are there. So metaworld's one adaptation has all of them.
        episodes = protocol.num_adaptations * protocol.episodes_per_adaptation
        scores = metaworld_api.evaluate_as_metaworld(adapter, envs, trials, 1, episodes, JUDGED)
    finally:
        envs.close()
    return OfficialScores(*scores)


@final
class AgentAdapter:
    """An adapting policy of ours as metaworld's `MetaLearningAgent`: metaworld plays, and calls it.

    Metaworld's environments play in step, and give the reward of the step before in the observation.

    Args:
        start: the policy for `num_envs` tasks, before any adaptation.
        num_envs: environments, each of which is a task.
        episodes: to collect before each adaptation.
        seed: of the policy's noise.
        device: where the policy computes.
    """

    def __init__(
        self, start: AdaptedPolicy, num_envs: int, episodes: int, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self._start = start
        self._num_envs = num_envs
        self._episodes = episodes
        self._seed = seed
        self._device = torch.device(device)
        self._trials = 0
        self.init()

    @property
    def policy(self) -> AdaptedPolicy:
        """The policy after what it has adapted to."""
        return self._policy

    def init(self) -> None:
        """A trial on new goals begins."""
        seeds = task_seeds(self._seed, self._trials, num_tasks=self._num_envs)
        self._random = TaskRandom(seeds, 1, self._device)
        self._trials += 1
        self._policy = self._start
        self._carry: Carry = ()
        self._drawn = np.zeros((self._num_envs, SPACES.action_size), np.float32)
        self._fresh = np.ones(self._num_envs, bool)
        self._steps: list[tuple[ndarray, ndarray, ndarray]] = []
        self._support: list[Episodes] = []

    def adapt_action(self, observations: Float[ndarray, "env x"]) -> tuple[Float[ndarray, "env 4"], dict[str, ndarray]]:
        return self.eval_action(observations), {}

    def eval_action(self, observations: Float[ndarray, "env x"]) -> Float[ndarray, "env 4"]:
        """Takes in what the last action led to, where an episode goes on, and draws the next."""
        inputs = self._tensor(observations[:, : metaworld_api.OBSERVATION_SIZE])
        with torch.no_grad():
            self._carry = self._carried(inputs, self._tensor(observations[:, -2]))
            actions, self._carry = self._policy.act(inputs, self._carry, self._random)
        self._drawn = actions[:, 0].cpu().numpy()
        return SPACES.to_action_space(SPACES.clip(self._drawn).astype(np.float64))

    def reset(self, env_mask: Bool[ndarray, " env"]) -> None:
        """New episodes of the evaluation begin, from what was learned in adapting."""
        self._fresh |= env_mask

    def step(self, timestep: Timestep) -> None:
        """Keeps a step of the adaptation; with an episode's last, the episode."""
        self._steps.append((timestep.observation[:, : metaworld_api.OBSERVATION_SIZE], self._drawn, timestep.reward))
        done = timestep.terminated | timestep.truncated
        if not done.any():
            return
        assert done.all() and len(self._steps) == HORIZON, "episodes of the adaptation last their whole horizon"
        self._support.append(self._episode())
        self._steps = []
        self._fresh[:] = True
        if len(self._support) == self._episodes:
            self._policy = self._policy.adapt(_side_by_side(self._support))
            self._support = []

    def adapt(self) -> None:
        """All episodes of the adaptation are there: `step` has adapted to them."""
        assert not self._support and not self._steps

    def _carried(self, inputs: Float[Tensor, "env 1 x"], rewards: Float[Tensor, "env 1"]) -> Carry:
        """The carry of episodes that go on after the last step, and of those that begin."""
        going_on, fresh = self._carry, torch.from_numpy(self._fresh.copy()).to(self._device)
        if not self._fresh.all():
            executed = self._tensor(SPACES.clip(self._drawn))
            never = torch.zeros(self._num_envs, 1, dtype=torch.bool, device=self._device)
            going_on = self._policy.observe(going_on, Transition(executed, rewards, never, inputs))
        if not self._fresh.any():
            return going_on
        initial = self._policy.initial_carry(1, self._random)
        if self._fresh.all():
            going_on = initial
        self._fresh[:] = False
        pairs = zip(going_on, initial, strict=True)
        parts = [torch.where(fresh.view(-1, *[1] * (new.ndim - 1)), new, old) for old, new in pairs]
        return tuple(parts) if type(initial) is tuple else type(initial)(*parts)  # a named tuple

    def _episode(self) -> Episodes:
        observations, actions, rewards = (np.stack(parts, 1) for parts in zip(*self._steps, strict=True))
        never = torch.zeros(self._num_envs, 1, dtype=torch.bool, device=self._device)
        return Episodes(
            observations=self._tensor(observations),
            # Metaworld hands on the next episode's first observation only.
            final_observations=self._tensor(observations[:, -1]),
            actions=self._tensor(actions),
            rewards=self._tensor(rewards),
            terminated=never,
            diverged=never,
            lengths=torch.full((self._num_envs, 1), HORIZON, device=self._device),
        )

    def _tensor(self, array: Float[ndarray, "env *x"]) -> Float[Tensor, "env 1 *x"]:
        """With an axis for the one episode that every task is in."""
        return torch.from_numpy(array.astype(np.float32)).to(self._device)[:, None]


def _side_by_side(episodes: list[Episodes]) -> Episodes:
    tensors = [part.tensors() for part in episodes]
    return Episodes(**{name: torch.cat([part[name] for part in tensors], dim=1) for name in tensors[0]})
