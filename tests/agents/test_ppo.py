"""Task-blind PPO: it learns, and knows nothing of the task or of what happened before."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from metarl import agents
from metarl.agents import PpoConfig, Rl2Ppo, Rl2PpoConfig
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Actor, Schedule
from metarl.tasks import Task

TASKS = (Task.of("x", x=0.0),) * 32


class Middle:
    """One step an episode, with reward −(a − o)²; the observation is random."""

    def collect(self, actor: Actor, tasks: Sequence[Task], episodes: int, seed: int) -> Episodes:
        generator = torch.Generator().manual_seed(seed)
        observations = 2 * torch.rand(len(tasks), episodes, 1, generator=generator) - 1
        with torch.no_grad():
            actions, _ = actor.act(observations, actor.begin(episodes), generator)
        return Episodes(
            observations=observations[:, :, None],
            final_observations=observations,
            actions=actions[:, :, None],
            rewards=-((actions - observations) ** 2),
            terminated=torch.ones(len(tasks), episodes, dtype=torch.bool),
            diverged=torch.zeros(len(tasks), episodes, dtype=torch.bool),
            lengths=torch.ones(len(tasks), episodes, dtype=torch.int64),
        )


def agent(config: PpoConfig) -> Rl2Ppo:
    return Rl2Ppo(config.as_rl2(), 1, 1, Middle())


def test_it_learns_what_can_be_known_from_the_observation() -> None:
    learner = agent(PpoConfig(meta_batch=32, hidden=16, learning_rate=3e-3))
    state, returns = learner.init(0), []
    for step in range(16):
        state, figures = learner.meta_step(state, TASKS, np.random.default_rng([0, step]))
        returns.append(figures["return_first"])
    assert np.mean(returns[:2]) < -0.4
    assert np.mean(returns[-3:]) > -0.15


def test_it_neither_adapts_nor_remembers() -> None:
    learner = agent(PpoConfig(hidden=8))
    assert learner.schedule == Schedule(rounds=0, episodes=1)
    actor = learner.start(learner.init(0), 2)
    episodes = Middle().collect(actor, TASKS[:2], 1, seed=0)
    observations = torch.tensor([[[0.3]], [[-0.7]]])
    memory = actor.begin(1)
    told = actor.feedback(memory, torch.ones(2, 1, 1), torch.full((2, 1), 5.0), torch.ones(2, 1, dtype=torch.bool))
    adapted = actor.adapt(episodes)
    drawn = [
        each.act(observations, remembered, torch.Generator().manual_seed(1))[0]
        for each, remembered in ((actor, memory), (actor, told), (adapted, adapted.begin(1)))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_its_options_are_rl2s() -> None:
    shared = {field.name for field in dataclasses.fields(PpoConfig)} & {
        f.name for f in dataclasses.fields(Rl2PpoConfig)
    }
    assert len(shared) == len(dataclasses.fields(PpoConfig))
    for name in shared - {"meta_batch"}:
        assert getattr(PpoConfig(), name) == getattr(Rl2PpoConfig(), name)
    assert agents.name_of(PpoConfig()) == "ppo"
    for wrong in ({"meta_batch": 0}, {"learning_rate": 0.0}, {"epochs": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PpoConfig(**wrong)  # pyright: ignore[reportArgumentType]  # wrong in value only
