# pyright: reportPrivateUsage=false
"""Our agents as guests of Meta-World's own evaluation, and the scripted policies as agents of ours."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import envs
from metarl.agents.fixed import NOTHING, FixedPolicy, random_policy
from metarl.envs.metaworld import metaworld_api, official_evaluation
from metarl.envs.metaworld.distribution import HORIZON, benchmark
from metarl.envs.metaworld.experts import SHOWN, expert_actions
from metarl.evaluation.evaluate import Candidate, Source, evaluate
from metarl.learning.collect import Sampler
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Figures, Memory, Schedule, State
from metarl.tasks import Task

SOURCE = Source("probe", "probe", None, "none", 0)


@dataclasses.dataclass(frozen=True)
class Probe:
    """Acts by what it remembers: the sum of rewards since the episode's start, plus 100 for each adaptation."""

    schedule: Schedule = Schedule(rounds=2, episodes=1)
    meta_batch: int = 1
    shown: tuple[str, ...] = ()
    round_name: str = "episode"
    supports: tuple[Episodes, ...] = ()
    num_tasks: int = 0

    def init(self, seed: int) -> State:
        return NOTHING

    def meta_step(self, state: State, batch: tuple[Task, ...], rng: np.random.Generator) -> tuple[State, Figures]:
        raise AssertionError("an evaluation does not train")

    def start(self, state: State, num_tasks: int) -> "Probe":
        return dataclasses.replace(self, num_tasks=num_tasks)

    def begin(self, episodes: int) -> Memory:
        return (torch.full((self.num_tasks, episodes), 100.0 * len(self.supports)),)

    def act(self, observations: Tensor, memory: Memory, generator: torch.Generator) -> tuple[Tensor, Memory]:
        assert observations.shape == (self.num_tasks, 1, metaworld_api.OBSERVATION_SIZE)
        return memory[0][..., None].expand(*memory[0].shape, 4), memory

    def feedback(self, memory: Memory, actions: Tensor, rewards: Tensor, done: Tensor) -> Memory:
        return (memory[0] + rewards,)

    def adapt(self, support: Episodes) -> "Probe":
        return dataclasses.replace(self, supports=(*self.supports, support))


@dataclasses.dataclass
class Step:
    """Metaworld's `Timestep`, but for what nobody reads."""

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def test_a_guest_remembers_and_adapts_as_it_does_at_home() -> None:
    guest = official_evaluation.Guest(Candidate(Probe(), NOTHING, SOURCE), 2, 1, seed=0)
    told, never = np.zeros((2, metaworld_api.OBSERVATION_SIZE + 6)), np.zeros(2, bool)
    for episode in range(2):
        told[:, -2] = 7.0  # whatever metaworld says at an episode's start belongs to no episode of ours
        for step in range(HORIZON):
            actions, _ = guest.adapt_action(told)
            assert np.array_equal(guest._drawn, np.repeat([[100.0 * episode + step], [100.0 * episode - step]], 4, 1))
            assert np.abs(actions).max() <= 1
            reward = np.array([1.0, -1.0])
            guest.step(Step(told, reward, never, np.full(2, step == HORIZON - 1)))
            told = told.copy()
            told[:, 0], told[:, -2] = step + 1, reward
    guest.adapt()
    assert isinstance(guest._adapted, Probe)
    supports = guest._adapted.supports
    assert [episodes.rewards.sum(-1).tolist() for episodes in supports] == [[[500.0], [-500.0]]] * 2
    assert supports[1].observations[0, 0, 1:, 0].tolist() == list(range(1, 500))
    assert supports[0].actions.shape == (2, 1, HORIZON, 4)

    told[:, -2] = 3.0
    guest.reset(np.array([True, True]))
    guest.eval_action(told)
    assert guest._drawn[:, 0].tolist() == [200.0, 200.0]
    guest.reset(np.array([False, True]))
    guest.eval_action(told)
    assert guest._drawn[:, 0].tolist() == [203.0, 200.0]
    guest.init()
    guest.eval_action(told)
    assert guest._drawn[:, 0].tolist() == [0.0, 0.0]


@pytest.mark.filterwarnings("ignore")
def test_metaworld_takes_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, with stock environments of a horizon of few steps."""
    monkeypatch.setattr(official_evaluation, "HORIZON", 6)
    monkeypatch.setattr(metaworld_api.SawyerXYZEnv, "max_path_length", 6)
    guest = official_evaluation.Guest(Candidate(Probe(), NOTHING, SOURCE), 2, 1, seed=0)
    stock_envs = metaworld_api.their_test_envs("reach-v3", "v2", 0, 2)
    success, mean_return, by_class = metaworld_api.evaluate_as_metaworld(guest, stock_envs, 1, 1, 2, 3)
    stock_envs.close()
    assert success == by_class["reach-v3"] == 0
    assert mean_return > 0
    assert isinstance(guest._adapted, Probe)
    assert len(guest._adapted.supports) == 2


def test_metaworlds_counterparts() -> None:
    assert benchmark("metaworld-ml10+reward-v1") == dataclasses.replace(benchmark("metaworld-ml10"), reward="v1")
    assert benchmark("metaworld-ml10").name == "ML10"
    assert benchmark("metaworld-ml1-reach-v3").name == "reach-v3"
    for id in ("metaworld-ml10+goal-shown", "metaworld-custom:reach-v3/push-v3"):
        with pytest.raises(ValueError, match="metaworld's own evaluation knows"):
            benchmark(id)


def test_the_script_reaches_and_random_actions_do_not() -> None:
    dist = dataclasses.replace(envs.make(f"metaworld-ml1-reach-v3{SHOWN}"), horizon=120)
    tasks = dist.tasks("test")[:3]
    script = Candidate(FixedPolicy(expert_actions(tasks)), NOTHING, SOURCE)
    chance = Candidate(random_policy(4), NOTHING, SOURCE)
    expert, random = (evaluate(each, dist, num_tasks=3, sampler=Sampler(dist)) for each in (script, chance))
    assert expert.curve()[0].mean.value == 1
    assert random.curve()[0].mean.value == 0
    assert expert.returns is not None and random.returns is not None
    assert (expert.returns > 2 * random.returns).all()
