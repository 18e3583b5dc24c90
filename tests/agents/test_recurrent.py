"""Recurrent cells against their formulas, and pieces of sequences against whole ones."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from metarl.agents import Rl2PpoConfig, policies
from metarl.agents.recurrent import (
    MODELS,
    Architecture,
    Cell,
    Gru,
    Lstm,
    MakeModel,
    RecurrentActorCritic,
    SequenceModel,
    carry_after,
    unroll,
    unroll_pieces,
)
from metarl.agents.rl2 import Rl2Ppo
from metarl.learning.protocols import Carry, Parameters
from metarl.testing.agents import check_meta_step, check_policy
from tests.agents.toys import Toy, box
from tests.agents.worlds import lively

INPUTS, UNITS = 5, 6
cells = pytest.mark.parametrize("cell", ["gru", "lstm"])


class RunningMean(nn.Module):
    """A belief instead of a cell: the mean of a linear map of the inputs so far, and their number."""

    class Belief(NamedTuple):
        mean: Tensor
        steps: Tensor

    def __init__(self, inputs: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_features = units + 1
        self.map = policies.linear(inputs, units, policies.orthogonal(generator))

    def initial_carry(self, num_sequences: int, device: torch.device | str) -> "RunningMean.Belief":
        mean = torch.zeros(num_sequences, self.num_features - 1, device=device)
        return self.Belief(mean, torch.zeros(num_sequences, 1, device=device))

    def forward(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, "RunningMean.Belief"]:
        mean, steps = carry
        features = []
        for x in self.map(inputs).unbind(1):
            steps = steps + 1
            mean = mean + (x - mean) / steps
            features.append(torch.cat([mean, 1 / steps], dim=-1))
        return torch.stack(features, dim=1), self.Belief(mean, steps)


def network(make: MakeModel, seed: int = 0) -> tuple[RecurrentActorCritic, Parameters]:
    made = RecurrentActorCritic(
        INPUTS, UNITS, Toy(box(2)).spaces, make, Architecture(), torch.Generator().manual_seed(seed)
    )
    parameters = {
        name: value + 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
        for name, value in policies.parameters_of(made).items()
    }
    return policies.architecture(made), parameters


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def weights(parameters: Parameters) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cell = {name.removeprefix("model.cell.").removesuffix("_l0"): value for name, value in parameters.items()}
    return cell["weight_ih"], cell["weight_hh"], cell["bias_ih"], cell["bias_hh"]


def gru_step(parameters: Parameters, x: Tensor, h: Tensor) -> Tensor:
    """r, z = σ(…),   n = tanh(W_n x + r ∘ (U_n h + b)),   h' = (1 − z) ∘ n + z ∘ h   (Cho et al. 2014)."""
    w_ih, w_hh, b_ih, b_hh = weights(parameters)
    of_x, of_h = (w_ih @ x + b_ih).split(UNITS), (w_hh @ h + b_hh).split(UNITS)
    r, z = (1 / (1 + torch.exp(-(of_x[i] + of_h[i]))) for i in range(2))
    return (1 - z) * torch.tanh(of_x[2] + r * of_h[2]) + z * h


def lstm_step(parameters: Parameters, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """i, f, o = σ(…),   g = tanh(…),   c' = f ∘ c + i ∘ g,   h' = o ∘ tanh c'   (Hochreiter & Schmidhuber 1997)."""
    w_ih, w_hh, b_ih, b_hh = weights(parameters)
    i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).split(UNITS)
    i, f, o = (1 / (1 + torch.exp(-gate)) for gate in (i, f, o))
    c = f * c + i * torch.tanh(g)
    return o * torch.tanh(c), c


@cells
def test_unrolling_is_the_cells_formula_step_by_step(cell: Cell) -> None:
    net, parameters = network(MODELS[cell])
    inputs, carry = noise(3, 7, INPUTS), tuple(noise(2, 3, UNITS)[: 1 if cell == "gru" else 2])
    outputs = unroll(net, parameters, inputs, carry)
    for row in range(3):
        state = tuple(part[row] for part in carry)
        for step in range(7):
            x = inputs[row, step]
            state = (gru_step(parameters, x, *state),) if cell == "gru" else lstm_step(parameters, x, *state)
            mean = parameters["heads.policy.linear.weight"] @ state[0] + parameters["heads.policy.linear.bias"]
            value = parameters["heads.value.weight"] @ state[0] + parameters["heads.value.bias"]
            torch.testing.assert_close(outputs.distribution.mode()[row, step], mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(outputs.values[row, step][None], value, rtol=1e-4, atol=1e-5)
        for part, expected in zip(outputs.carry, state, strict=True):
            torch.testing.assert_close(part[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [Gru, Lstm, RunningMean])
@pytest.mark.parametrize("length", [1, 3, 7, 20])
def test_pieces_are_the_whole(make: MakeModel, length: int) -> None:
    net, parameters = network(make)
    assert isinstance(net.model, SequenceModel)
    inputs, carry = noise(4, 7, INPUTS), net.model.initial_carry(4, "cpu")
    whole = unroll(net, parameters, inputs, carry)
    pieces, carries = unroll_pieces(net, parameters, inputs, carry, length)
    assert len(carries) == -(-7 // length) and type(carries[-1]) is type(carry)
    for one, other in zip((*whole.distribution, whole.values), (*pieces.distribution, pieces.values), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for index, start in enumerate(range(0, 7, length)):
        again = unroll(net, parameters, inputs[:, start : start + length], carries[index])
        torch.testing.assert_close(again.values, whole.values[:, start : start + length], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [Gru, Lstm, RunningMean])
def test_the_carry_is_that_after_each_sequences_own_last_step(make: MakeModel) -> None:
    net, parameters = network(make)
    lengths = torch.tensor([4, 0, 7, 1, 4])
    inputs, carry = noise(5, 7, INPUTS), net.model.initial_carry(5, "cpu")
    carry = type(carry)(*(part + 0.5 for part in carry))
    kept = [part.clone() for part in carry]
    after = carry_after(lambda x, before: unroll(net, parameters, x, before).carry, inputs, carry, lengths)
    assert type(after) is type(carry) and all(torch.equal(*pair) for pair in zip(kept, carry, strict=True))
    for row, length in enumerate(lengths.tolist()):
        own = type(carry)(*(part[row : row + 1] for part in carry))
        expected = unroll(net, parameters, inputs[row : row + 1, :length], own).carry if length else own
        for part, alone in zip(after, expected, strict=True):
            torch.testing.assert_close(part[row], alone[0], rtol=1e-5, atol=1e-6)


@cells
def test_initial_weights_are_orthogonal_for_each_gate_and_follow_from_the_generator(cell: Cell) -> None:
    before = torch.get_rng_state()
    one, two, other = (MODELS[cell](INPUTS, UNITS, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    parts = [policies.parameters_of(model) for model in (one, two, other) if isinstance(model, nn.Module)]
    for block in parts[0]["cell.weight_hh_l0"].split(UNITS):
        torch.testing.assert_close(block @ block.T, torch.eye(UNITS), rtol=1e-5, atol=1e-5)
    assert not parts[0]["cell.bias_ih_l0"].any()
    assert all(torch.equal(parts[0][name], parts[1][name]) for name in parts[0])
    assert not torch.equal(parts[0]["cell.weight_hh_l0"], parts[2]["cell.weight_hh_l0"])


def test_any_sequence_model_makes_an_agent() -> None:
    world = Toy(box(2), ragged=True)
    config = Rl2PpoConfig(meta_batch=5, hidden=8, epochs=2, minibatches=2, chunk_length=4)
    agent, again = (Rl2Ppo(config, world.spaces, "cpu", RunningMean) for _ in range(2))
    check_meta_step(agent, again, world, torch.device("cpu"))
    state = lively(agent.init(0))
    check_policy(lambda num_tasks: agent.start(state, num_tasks), world, agent.protocol)
