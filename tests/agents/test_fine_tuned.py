"""Fine-tuning: PPO on each task for itself, from the blind policy."""

import numpy as np
import pytest
import torch

from metarl.agents import PpoConfig
from metarl.agents.fine_tuned import FineTuned, FineTunedPolicy
from metarl.agents.ppo import Ppo
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, State
from metarl.learning.random_streams import task_seeds
from metarl.maths import adam
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, held_out_returns, lively

PROTOCOL = AdaptationProtocol(num_adaptations=2, episodes_per_adaptation=3)
WORLD = Toy(box(2), ragged=True)


def agent(world: Toy = WORLD, protocol: AdaptationProtocol = PROTOCOL) -> FineTuned:
    ppo = PpoConfig(meta_batch=4, hidden=(6, 5), epochs=2, minibatches=2).build(world.spaces)
    assert isinstance(ppo, Ppo)
    return FineTuned(ppo, protocol)


def own(episodes: Episodes, index: int) -> Episodes:
    return Episodes(**{name: part[index : index + 1] for name, part in episodes.tensors().items()})


@pytest.mark.parametrize("world", [WORLD, Toy(discrete(3), ragged=True)], ids=["box", "discrete"])
def test_it_acts_as_the_blind_policy_before_and_as_ppo_s_after(world: Toy) -> None:
    tuned = agent(world)
    state = lively(tuned.init(0))
    trials = collect(tuned, state, world, protocol=AdaptationProtocol(1, 3))
    count = len(trials.tasks)
    observations = torch.randn(count, 5, world.observation_size, generator=torch.Generator().manual_seed(1))

    before, _ = tuned.start(state, count).act(observations, (), None)
    blind, _ = tuned.ppo.start(state, count).act(observations, (), None)
    torch.testing.assert_close(before, blind)

    after, _ = tuned.start(state, count).adapt(trials.episodes[0]).act(observations, (), None)
    fresh = State(state.parameters, adam.start(tuned.ppo.learned(state.parameters)))
    for index, task in enumerate(trials.tasks):
        alone = Trials((task,), (own(trials.episodes[0], index),))
        updated, _ = tuned.ppo.meta_step(fresh, alone, np.random.default_rng(0))
        expected, _ = tuned.ppo.start(updated, 1).act(observations[index : index + 1], (), None)
        torch.testing.assert_close(after[index : index + 1], expected)
    if not world.spaces.discrete:
        assert not torch.allclose(before, after)


def test_a_second_update_goes_on_from_the_first() -> None:
    tuned = agent()
    trials = collect(tuned, lively(tuned.init(0)), WORLD)
    policy = tuned.start(lively(tuned.init(0)), len(trials.tasks))
    twice = policy.adapt(trials.episodes[0]).adapt(trials.episodes[1])
    assert isinstance(twice, FineTunedPolicy)
    assert twice.updates == 2
    gradient_steps = {int(state.optimizer["step"]) for state in twice.states}
    assert gradient_steps == {2 * 2 * 2}  # updates × epochs × minibatches


def test_a_task_s_trial_does_not_depend_on_its_company() -> None:
    tuned = agent()
    state = lively(tuned.init(0))
    tasks = WORLD.tasks("test")[:5]
    seeds = task_seeds(3, num_tasks=5)
    whole = Collector(WORLD).collect_trials(tuned.start(state, 5), tasks, PROTOCOL, seeds)
    for index in (0, 3):
        alone = Collector(WORLD).collect_trials(
            tuned.start(state, 1), tasks[index : index + 1], PROTOCOL, seeds[index : index + 1]
        )
        for one, all_ in zip(alone.episodes, whole.episodes, strict=True):
            assert torch.equal(one.rewards, own(all_, index).rewards)


def test_it_learns_on_each_task() -> None:
    world = Toy(box(1))
    ppo = PpoConfig(meta_batch=4, hidden=(8,), epochs=20, minibatches=1, learning_rate=0.03).build(world.spaces)
    assert isinstance(ppo, Ppo)
    tuned = FineTuned(ppo, AdaptationProtocol(num_adaptations=4, episodes_per_adaptation=10))
    _, gain = held_out_returns(tuned, tuned.init(0), world, trials=2)
    assert gain.low > 1.0  # of at most 6


def test_there_is_nothing_to_meta_train() -> None:
    tuned = agent()
    trials = collect(tuned, tuned.init(0), WORLD)
    with pytest.raises(ValueError, match="nothing to meta-train"):
        tuned.meta_step(tuned.init(0), trials, np.random.default_rng(0))
