# pyright: reportPrivateUsage=false
"""Agents of ours in Meta-World's own evaluation, and the scripted policies in ours."""

import dataclasses
import pickle
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import envs
from metarl.envs.metaworld import metaworld_api, official_evaluation
from metarl.envs.metaworld.distribution import HORIZON, Benchmark, benchmark
from metarl.envs.metaworld.experts import SHOWN, ExpertActions, expert_actions
from metarl.envs.metaworld.official_evaluation import AgentAdapter
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import (
    AdaptationProtocol,
    AdaptedPolicy,
    Agent,
    Carry,
    Memoryless,
    Metrics,
    State,
    Transition,
)
from metarl.learning.random_streams import TaskRandom

NOTHING = State({}, {})
NEVER = np.zeros(2, bool)


class Memory(NamedTuple):
    """What the probe carries: a named tuple, and two tensors of different shapes."""

    total: Tensor  # [task, episode]
    last_position: Tensor  # [task, episode, 1]


@dataclasses.dataclass(frozen=True)
class Probe:
    """Acts by what it carries: the sum of rewards since the episode's start, plus 100 for each adaptation."""

    num_tasks: int
    supports: tuple[Episodes, ...] = ()

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Memory:
        shape = (self.num_tasks, num_episodes)
        return Memory(torch.full(shape, 100.0 * len(self.supports)), torch.zeros(*shape, 1))

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        assert isinstance(carry, Memory)
        assert observations.shape == (self.num_tasks, 1, metaworld_api.OBSERVATION_SIZE)
        last, now = carry.last_position, observations[..., :1]
        assert ((last == now) | (last == 0)).all()  # zero where an episode has just begun
        return carry.total[..., None].expand(*carry.total.shape, 4), carry

    def observe(self, carry: Carry, transition: Transition) -> Memory:
        assert isinstance(carry, Memory)
        assert transition.actions.abs().max() <= 1 and not transition.done.any()
        return Memory(carry.total + transition.rewards, transition.next_observations[..., :1])

    def adapt(self, support: Episodes) -> "Probe":
        return dataclasses.replace(self, supports=(*self.supports, support))


@dataclasses.dataclass(frozen=True)
class ProbeAgent:
    protocol: AdaptationProtocol = AdaptationProtocol(num_adaptations=2, episodes_per_adaptation=1)
    meta_batch: int = 1
    progress_keys: tuple[str, ...] = ()
    adaptation_name: str = "episode"

    def init(self, seed: int) -> State:
        return NOTHING

    def start(self, state: State, num_tasks: int) -> Probe:
        return Probe(num_tasks)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        raise AssertionError("an evaluation does not train")


@dataclasses.dataclass
class Step:
    """Metaworld's `Timestep`, but for what nobody reads."""

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def supports(adapter: AgentAdapter) -> tuple[Episodes, ...]:
    assert isinstance(adapter.policy, Probe)
    return adapter.policy.supports


def test_a_policy_remembers_and_adapts_as_it_does_at_home() -> None:
    adapter = AgentAdapter(Probe(2), 2, 1, seed=0)
    told = np.zeros((2, metaworld_api.OBSERVATION_SIZE + 6))
    for episode in range(2):
        told[:, -2] = 7.0  # whatever metaworld says at an episode's start belongs to no episode of ours
        for step in range(HORIZON):
            actions, _ = adapter.adapt_action(told)
            wanted = np.repeat([[100.0 * episode + step], [100.0 * episode - step]], 4, 1)
            assert np.array_equal(adapter._drawn, wanted)
            assert np.array_equal(actions, wanted.clip(-1, 1))
            reward = np.array([1.0, -1.0])
            adapter.step(Step(told, reward, NEVER, np.full(2, step == HORIZON - 1)))
            told = told.copy()
            told[:, 0], told[:, -2] = step + 1, reward
    adapter.adapt()
    assert [episodes.rewards.sum(-1).tolist() for episodes in supports(adapter)] == [[[500.0], [-500.0]]] * 2
    assert supports(adapter)[1].observations[0, 0, 1:, 0].tolist() == list(range(1, 500))
    assert supports(adapter)[0].actions.shape == (2, 1, HORIZON, 4)
    assert supports(adapter)[0].actions[0, 0, :, 0].tolist() == list(range(500))  # as drawn, not as clipped

    told[:, -2] = 3.0
    adapter.reset(np.array([True, True]))
    adapter.eval_action(told)
    assert adapter._drawn[:, 0].tolist() == [200.0, 200.0]
    adapter.reset(np.array([False, True]))
    adapter.eval_action(told)
    assert adapter._drawn[:, 0].tolist() == [203.0, 200.0]
    adapter.init()
    adapter.eval_action(told)
    assert adapter._drawn[:, 0].tolist() == [0.0, 0.0]


def test_episodes_of_one_adaptation_are_handed_over_side_by_side() -> None:
    adapter = AgentAdapter(Probe(2), 2, 3, seed=0)
    told = np.zeros((2, metaworld_api.OBSERVATION_SIZE + 6))
    for episode in range(3):
        for step in range(HORIZON):
            adapter.adapt_action(told)
            adapter.step(Step(told, np.full(2, float(episode)), NEVER, np.full(2, step == HORIZON - 1)))
    adapter.adapt()
    (support,) = supports(adapter)
    assert support.rewards.shape == (2, 3, HORIZON)
    assert support.rewards[:, :, 7].tolist() == [[0.0, 1.0, 2.0]] * 2


@dataclasses.dataclass(frozen=True)
class Noise(Memoryless):
    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        assert random is not None
        return random.normal(4), carry

    def adapt(self, support: Episodes) -> "Noise":
        return self


def test_noise_is_each_tasks_own_and_new_in_every_trial() -> None:
    told = np.zeros((3, metaworld_api.OBSERVATION_SIZE + 6))
    one, fewer = AgentAdapter(Noise(), 3, 1, seed=0), AgentAdapter(Noise(), 2, 1, seed=0)
    first = one.eval_action(told)
    assert len(np.unique(first, axis=0)) == 3
    assert np.array_equal(fewer.eval_action(told[:2]), first[:2])
    assert not np.array_equal(one.eval_action(told), first)
    one.init()
    for other in (one, AgentAdapter(Noise(), 3, 1, seed=1)):
        assert np.isclose(other.eval_action(told), first).sum() <= 2  # actions at their limit meet


@pytest.mark.filterwarnings("ignore")
def test_metaworld_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, with metaworld's environments of a horizon of few steps."""
    monkeypatch.setattr(official_evaluation, "HORIZON", 6)
    monkeypatch.setattr(metaworld_api.SawyerXYZEnv, "max_path_length", 6)
    adapters: list[AgentAdapter] = []

    def spy(start: AdaptedPolicy, num_envs: int, episodes: int, seed: int, device: torch.device) -> AgentAdapter:
        adapters.append(AgentAdapter(start, num_envs, episodes, seed, device))
        return adapters[-1]

    monkeypatch.setattr(official_evaluation, "AgentAdapter", spy)
    monkeypatch.setattr(official_evaluation, "TRIALS", 1)
    agent: Agent = ProbeAgent()
    scores = official_evaluation.evaluate(agent, NOTHING, Benchmark("reach-v3", 1, "v2"), seed=0)
    assert scores.success == scores.by_class["reach-v3"] == 0
    assert scores.mean_return > 0
    assert len(supports(adapters[0])) == 2


def test_metaworlds_counterparts() -> None:
    assert benchmark("metaworld-ml10+reward-v1") == dataclasses.replace(benchmark("metaworld-ml10"), reward="v1")
    assert benchmark("metaworld-ml10").name == "ML10"
    assert benchmark("metaworld-ml1-reach-v3").name == "reach-v3"
    for id in ("metaworld-ml10+goal-shown", "metaworld-custom:reach-v3/push-v3"):
        with pytest.raises(ValueError, match="metaworld's own evaluation knows"):
            benchmark(id)


@dataclasses.dataclass(frozen=True)
class Scripted(Memoryless):
    script: ExpertActions

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        return self.script(observations, random), carry

    def adapt(self, support: Episodes) -> "Scripted":
        return self


def test_the_script_reaches_and_random_actions_do_not() -> None:
    dist = dataclasses.replace(envs.make(f"metaworld-ml1-reach-v3{SHOWN}"), horizon=120)
    tasks = dist.tasks("test")[:3]
    script = pickle.loads(pickle.dumps(expert_actions(tasks)))
    collector = Collector(dist)
    expert, chance = (collector.collect_episodes(each, tasks, 1, (1, 2, 3)) for each in (Scripted(script), Noise()))
    collector.close()
    assert expert.success is not None and chance.success is not None
    assert expert.success.all() and not chance.success.any()
    assert (expert.returns > 2 * chance.returns).all()
