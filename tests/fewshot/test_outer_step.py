"""What every learner's outer step does: Adam, a half-life, running averages."""

import dataclasses

import pytest
import torch

from metarl.fewshot import outer_step
from metarl.fewshot.encoders import Conv4Config, Standardised
from metarl.fewshot.mann import MannConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.network import Network
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.learning.protocols import State
from metarl.testing.toy_tasks import IMAGES

NETWORK = Network(Conv4Config(filters=2).build(IMAGES))


@dataclasses.dataclass(frozen=True)
class Options:
    """Of an outer step."""

    learning_rate: float = 0.1
    learning_rate_half_life: int = 0


def initial_state() -> State:
    return outer_step.initial_state(NETWORK, NETWORK.init(torch.Generator().manual_seed(0)), "cpu")


@pytest.mark.parametrize("half_life", [0, 2])
def test_it_is_pytorchs_adam_with_a_learning_rate_that_is_halved(half_life: int) -> None:
    state, options = initial_state(), Options(learning_rate_half_life=half_life)
    leaves = {name: value.clone().requires_grad_() for name, value in outer_step.learned(state).items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=0.1)
    for step in range(5):
        gradients = {name: torch.cos(value.detach() + step) for name, value in leaves.items()}
        for name, value in leaves.items():
            value.grad = gradients[name]
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5 ** (step // half_life if half_life else 0)
        optimizer.step()
        state = outer_step.step(state, gradients, options)
    for name, value in leaves.items():
        torch.testing.assert_close(state.parameters[name], value.detach())


def test_running_averages_move_by_a_tenth_where_statistics_are_given() -> None:
    state = initial_state()
    zeros = {name: torch.zeros_like(value) for name, value in outer_step.learned(state).items()}
    there = outer_step.running(state)
    assert there.keys() == {f"blocks.{block}" for block in range(4)}
    given = {block: (mean + 2, variance + 3) for block, (mean, variance) in there.items()}
    after = outer_step.running(outer_step.step(state, zeros, Options(), given))
    for mean, variance in after.values():
        torch.testing.assert_close(mean, torch.full((2,), 0.2))
        torch.testing.assert_close(variance, torch.full((2,), 1.3))
    assert torch.equal(outer_step.running(outer_step.step(state, zeros, Options()))["blocks.0"][0], torch.zeros(2))


def test_what_another_learner_can_begin_with_is_the_encoders() -> None:
    """All that a prototypical network knows, and of MANN not what stands behind its encoder."""
    encoder = Conv4Config(filters=2)
    names = [
        {name for name in config.build(IMAGES).init(0).parameters if outer_step.of_encoder(name)}
        for config in (
            PrototypicalConfig(encoder=encoder),
            MatchingConfig(encoder=encoder, full_context=True),
            MannConfig(embedding="fixed", encoder=encoder),
        )
    ]
    assert names[0] == names[1] == names[2] and len(names[0]) == 4 * 3 + 4 * 2
    assert isinstance(MannConfig(embedding="fixed", encoder=encoder).build(IMAGES).network, Network)
    assert Standardised(NETWORK.encoder).initial_statistics().keys() == {
        *(f"blocks.{i}" for i in range(4)),
        "standardised",
    }
