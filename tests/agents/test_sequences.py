"""Trials as sequences, written out task by task."""

import dataclasses

import numpy as np
import pytest
import torch

from metarl.agents import Rl2PpoConfig
from metarl.agents.sequences import PreviousStep, concatenate, told
from metarl.learning.episodes import Trials
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, lively

WORLDS = {"box": Toy(box(2), ragged=True), "discrete": Toy(discrete(3), ragged=True)}


def trials(world: Toy) -> Trials:
    agent = Rl2PpoConfig(meta_batch=5, episodes_per_trial=3, hidden=8).build(world.spaces)
    return collect(agent, lively(agent.init(0)), world)


@pytest.mark.parametrize("name", WORLDS)
def test_the_padding_between_episodes_is_squeezed_out(name: str) -> None:
    world = WORLDS[name]
    collected = trials(world)
    sequences = concatenate(collected.episodes)
    assert sequences.rewards.shape[1] == int(sequences.lengths.max()) < 3 * world.horizon
    for index in range(5):
        lengths = [int(episodes.lengths[index, 0]) for episodes in collected.episodes]
        total, ends = sum(lengths), np.cumsum(lengths)
        assert int(sequences.lengths[index]) == total
        for field in ("observations", "actions", "rewards"):
            parts = [
                getattr(episodes, field)[index, 0, :length]
                for episodes, length in zip(collected.episodes, lengths, strict=True)
            ]
            assert torch.equal(getattr(sequences, field)[index, :total], torch.cat(parts))
            assert not getattr(sequences, field)[index, total:].any()
        assert sequences.done[index].nonzero().flatten().tolist() == [end - 1 for end in ends]
    last = collected.query
    assert torch.equal(sequences.final_observations, last.final_observations[:, 0])
    assert torch.equal(sequences.terminated, last.terminated[:, 0])


@pytest.mark.parametrize("name", WORLDS)
def test_each_step_is_told_the_one_before_it_also_across_episodes(name: str) -> None:
    world = WORLDS[name]
    sequences = concatenate(trials(world).episodes)
    before = PreviousStep(torch.full((5, world.spaces.action_size), 0.5), torch.full((5,), 7.0), torch.ones(5))
    previous = sequences.previous(before, world.spaces)
    for now, first, earlier in zip(
        previous, before, (told(sequences.actions, world.spaces), sequences.rewards, sequences.done), strict=True
    ):
        assert torch.equal(now[:, 0], first) and torch.equal(now[:, 1:], earlier[:, :-1])
    last = sequences.last(world.spaces)
    for index, length in enumerate(sequences.lengths.tolist()):
        assert torch.equal(last.actions[index], told(sequences.actions[index, length - 1], world.spaces))
        assert float(last.rewards[index]) == float(sequences.rewards[index, length - 1])
        assert float(last.done[index]) == 1.0


def test_a_policy_is_told_what_was_executed() -> None:
    assert told(torch.tensor([[-3.0, 0.5]]), WORLDS["box"].spaces).tolist() == [[-1.0, 0.5]]
    assert told(torch.tensor([[2, 0]]), WORLDS["discrete"].spaces).tolist() == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    assert not any(part.any() for part in PreviousStep.none(4, 3, "cpu"))


def test_the_final_observation_comes_after_the_last_step() -> None:
    sequences = concatenate(trials(WORLDS["box"]).episodes)
    longer = sequences.with_final_observations(25)
    assert longer.rewards.shape == (5, 25) and longer.actions.shape == (5, 25, 2)
    for index, length in enumerate(sequences.lengths.tolist()):
        assert torch.equal(longer.observations[index, :length], sequences.observations[index, :length])
        assert torch.equal(longer.observations[index, length], sequences.final_observations[index])
        assert not longer.observations[index, length + 1 :].any() and not longer.rewards[index, length:].any()


def test_episodes_played_side_by_side_are_read_in_their_order() -> None:
    (episodes,) = trials(dataclasses.replace(WORLDS["box"], ragged=False)).episodes[:1]
    both = type(episodes)(**{name: torch.cat([x, x + 1 if x.is_floating_point() else x], dim=1) for name, x in
                             episodes.tensors().items()})  # fmt: skip
    sequences = concatenate([both])
    assert sequences.rewards.shape == (5, 12)
    assert torch.equal(sequences.rewards[:, 6:], episodes.rewards[:, 0] + 1)
    assert torch.equal(sequences.final_observations, episodes.final_observations[:, 0] + 1)
