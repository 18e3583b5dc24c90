"""Our agents inside Meta-World's own evaluation, to see what its protocol makes of them.

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
from metarl.envs.metaworld.distribution import ACTION_SPACE, HORIZON, Benchmark
from metarl.evaluation.evaluate import SEED, Trained, device_of
from metarl.learning.collect import to_action_space
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Adapted, Memory, Schedule

JUDGED = 3  # episodes; the published protocol's
ENVS_A_CLASS, TRIALS = 4, 10  # 40 goals a class, as published; where there is one class, 10 and 5


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
class Theirs:
    """What metaworld's evaluation says."""

    success: float
    """Mean of the classes' success rates."""
    mean_return: float
    """Of the counted episodes, which end at their first success."""
    by_class: Mapping[str, float]
    """Success rate of each class."""


def evaluate(trained: Trained, benchmark: Benchmark, schedule: Schedule | None = None, seed: int = SEED) -> Theirs:
    """Runs metaworld's evaluation on an agent as it is; the goals are those that metaworld draws for the seed."""
    schedule = schedule or trained.agent.schedule
    num_envs, trials = (10, 5) if benchmark.classes == 1 else (ENVS_A_CLASS * benchmark.classes, TRIALS)
    envs = metaworld_api.their_test_envs(benchmark.name, benchmark.reward, seed % 2**31, num_envs)
    try:
        guest = Guest(trained, num_envs, schedule.episodes, seed)
        # A round of ours is adapted to as soon as its episodes are there, so theirs is one of all of them.
        found = metaworld_api.evaluate_as_metaworld(guest, envs, trials, 1, schedule.rounds * schedule.episodes, JUDGED)
    finally:
        envs.close()
    return Theirs(found[0], found[1], found[2])


@final
class Guest:
    """An agent of ours as metaworld's `MetaLearningAgent`."""

    def __init__(self, trained: Trained, num_envs: int, episodes: int, seed: int) -> None:
        """`episodes` to collect before each adaptation."""
        self._trained = trained
        self._num_envs = num_envs
        self._episodes = episodes
        self._device = device_of(trained.state)
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self.init()

    def init(self) -> None:
        """A trial on new goals begins."""
        self._adapted: Adapted = self._trained.agent.start(self._trained.state, self._num_envs)
        self._memory: Memory = self._adapted.begin(1)
        self._drawn = np.zeros((self._num_envs, 4))
        self._fresh = np.ones(self._num_envs, bool)
        self._steps: list[tuple[ndarray, ndarray, ndarray]] = []
        self._whole: list[Episodes] = []

    def adapt_action(self, observations: Float[ndarray, "env x"]) -> tuple[Float[ndarray, "env 4"], dict[str, ndarray]]:
        return self.eval_action(observations), {}

    def eval_action(self, observations: Float[ndarray, "env x"]) -> Float[ndarray, "env 4"]:
        """Takes in what the last action led to, where an episode goes on, and draws the next."""
        told = self._tensor(observations)[:, None]
        before = self._tensor(np.clip(self._drawn, -1, 1))[:, None]
        never = torch.zeros(self._num_envs, 1, dtype=torch.bool, device=self._device)
        memory = self._adapted.feedback(self._memory, before, told[..., -2], never)
        fresh = torch.from_numpy(self._fresh).to(self._device)
        pairs = zip(memory, self._adapted.begin(1), strict=True)
        memory = tuple(torch.where(fresh.view(-1, *[1] * (new.ndim - 1)), new, old) for old, new in pairs)
        self._fresh[:] = False
        with torch.no_grad():
            actions, self._memory = self._adapted.act(
                told[..., : metaworld_api.OBSERVATION_SIZE], memory, self._generator
            )
        self._drawn = actions[:, 0].cpu().double().numpy()
        return to_action_space(ACTION_SPACE, self._drawn)

    def reset(self, env_mask: Bool[ndarray, "env"]) -> None:
        """New episodes of the evaluation begin, from what was learned in adapting."""
        self._fresh |= env_mask

    def step(self, timestep: Timestep) -> None:
        """Keeps a step of the adaptation; with an episode's last, the episode."""
        self._steps.append((timestep.observation[:, : metaworld_api.OBSERVATION_SIZE], self._drawn, timestep.reward))
        done = timestep.terminated | timestep.truncated
        if not done.any():
            return
        assert done.all() and len(self._steps) == HORIZON, "episodes of the adaptation last their whole horizon"
        self._whole.append(self._episode())
        self._steps = []
        self._fresh[:] = True
        if len(self._whole) == self._episodes:
            self._adapted = self._adapted.adapt(_side_by_side(self._whole))
            self._whole = []

    def adapt(self) -> None:
        """All episodes of the adaptation are there: `step` has adapted to them."""
        assert not self._whole and not self._steps

    def _episode(self) -> Episodes:
        observations, actions, rewards = (np.stack(parts, 1) for parts in zip(*self._steps, strict=True))
        never = torch.zeros(self._num_envs, 1, dtype=torch.bool, device=self._device)
        return Episodes(
            observations=self._tensor(observations)[:, None],
            # Metaworld hands on the next episode's first observation only; adapting does not need the last.
            final_observations=self._tensor(observations[:, -1])[:, None],
            actions=self._tensor(actions)[:, None],
            rewards=self._tensor(rewards)[:, None],
            terminated=never,
            diverged=never,
            lengths=torch.full((self._num_envs, 1), HORIZON, device=self._device),
        )

    def _tensor(self, array: ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(self._device)


def _side_by_side(episodes: list[Episodes]) -> Episodes:
    tensors = [each.tensors() for each in episodes]
    return Episodes(**{name: torch.cat([each[name] for each in tensors], dim=1) for name in tensors[0]})
