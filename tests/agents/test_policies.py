"""Networks: heads for both kinds of action space, and weights that follow from the generator alone."""

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from metarl.agents import Rl2PpoConfig, policies
from metarl.agents.policies import ActionHead, ActorCriticHeads, MlpPolicy, orthogonal
from metarl.agents.recurrent import Cell
from metarl.learning.spaces import Spaces
from metarl.maths.distributions import Categorical, Gaussian
from tests.agents.toys import Toy, box, discrete

BOX, DISCRETE = Toy(box(2)).spaces, Toy(discrete(5)).spaces


def policy(spaces: Spaces, seed: int = 0) -> MlpPolicy:
    return MlpPolicy(spaces, (6, 7), -0.5, 0.1, torch.Generator().manual_seed(seed))


def test_a_box_has_gaussian_actions_with_squashed_means() -> None:
    network = policy(BOX)
    observations = 100 * torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0))
    distribution = network(observations)
    assert isinstance(distribution, Gaussian)
    assert distribution.mean.shape == distribution.log_std.shape == (4, 9, 2)
    assert bool((distribution.mean.abs() <= 1).all()) and bool((distribution.log_std == -0.5).all())
    weights = policies.parameters_of(network)  # the biases are zero
    x = torch.tanh(observations @ weights["body.0.weight"].T)
    x = torch.tanh(x @ weights["body.2.weight"].T)
    torch.testing.assert_close(distribution.mean, torch.tanh(x @ weights["head.linear.weight"].T))


def test_exploration_goes_on() -> None:
    network = policy(BOX)
    with torch.no_grad():
        network.head.log_std.fill_(-9.0)
    torch.testing.assert_close(network(torch.zeros(1, 3)).log_std, torch.full((1, 2), math.log(0.1)))


def test_discrete_actions_have_logits_and_no_log_std() -> None:
    network = policy(DISCRETE)
    distribution = network(torch.randn(4, 9, 3))
    assert isinstance(distribution, Categorical) and distribution.logits.shape == (4, 9, 5)
    assert not any("log_std" in name for name, _ in network.named_parameters())
    assert network.head_names == ("head.linear.weight", "head.linear.bias")
    assert policy(BOX).head_names == ("head.log_std", "head.linear.weight", "head.linear.bias")


def test_weights_follow_from_the_generator_and_the_global_one_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two, other = (policies.parameters_of(policy(BOX, seed)) for seed in (0, 0, 1))
    heads = ActorCriticHeads(8, BOX, -0.5, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["body.0.weight"], other["body.0.weight"])
    bound = math.sqrt(6 / (3 + 6))  # Glorot & Bengio 2010, eq. 16
    assert 0.5 * bound < float(one["body.0.weight"].abs().max()) <= bound and not one["body.0.bias"].any()
    features = torch.randn(5, 8)
    distribution, values = heads(features)
    assert float(distribution.mean.detach().abs().max()) < 0.1 < float(values.detach().abs().max())


def test_orthogonal_weights_are_orthogonal() -> None:
    weight = torch.empty(4, 9)
    orthogonal(torch.Generator().manual_seed(0), gain=2.0)(weight)
    torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(4))


def test_an_architecture_takes_parameters_and_has_none_of_its_own() -> None:
    network = policy(BOX)
    empty = policies.architecture(policy(BOX, seed=1))
    assert all(value.is_meta for value in empty.parameters())
    observations = torch.randn(3, 3)
    found = policies.apply(empty, policies.parameters_of(network), observations)
    assert torch.equal(found.mode(), network(observations).mode())


@pytest.mark.parametrize("squashed", [False, True])
def test_a_head_is_linear_but_for_the_squashing(squashed: bool) -> None:
    head = ActionHead(4, BOX, orthogonal(torch.Generator().manual_seed(0)), 0.3, squashed=squashed)
    features = torch.randn(6, 4)
    outputs = torch.nn.functional.linear(features, head.linear.weight, head.linear.bias)
    expected = torch.tanh(outputs) if squashed else outputs
    distribution = head(features)
    torch.testing.assert_close(distribution.mean, expected)
    actions = torch.randn(6, 2)
    torch.testing.assert_close(
        distribution.log_prob(actions), Normal(expected, math.exp(0.3)).log_prob(actions).sum(-1)
    )


class Broken(nn.Module):
    """Fails when it is called, after the layer inside it has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError(f"it is {float(self.layer(x).sum())}")


@pytest.mark.parametrize("cell", ["gru", "lstm", "transformer"])
def test_a_call_is_pytorchs_functional_one(cell: Cell) -> None:
    spaces = Toy(box(2)).spaces
    agent = Rl2PpoConfig(cell=cell, hidden=16).build(spaces)
    parameters = agent.learned(agent.init(0).parameters)
    inputs = torch.randn(4, 5, spaces.observation_size + spaces.action_size + 2)
    carry = agent.network.model.initial_carry(4, "cpu")
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    found, expected = (
        policies.call(agent.network, leaves, inputs, carry),
        torch.func.functional_call(agent.network, leaves, (inputs, carry)),
    )
    assert torch.equal(found.values, expected.values)
    gradients = [
        torch.autograd.grad(each.values.square().sum(), leaves["heads.value.weight"]) for each in (found, expected)
    ]
    assert torch.equal(*(gradient for (gradient,) in gradients))


def test_a_call_can_be_transformed() -> None:
    """Each task has parameters of its own, and gradients are taken inside."""
    network = policies.architecture(MlpPolicy(Toy(box(2)).spaces, (8,), -1.0, 0.1, torch.Generator()))
    own = {name: torch.randn(3, *value.shape) for name, value in network.named_parameters()}
    inputs = torch.randn(3, 5, 3)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return policies.call(network, parameters, x).mode().square().sum()

    found = torch.func.vmap(torch.func.grad(loss))(own, inputs)
    for task in range(3):
        leaves = {name: value[task].clone().requires_grad_() for name, value in own.items()}
        value = torch.func.functional_call(network, leaves, (inputs[task],)).mode().square().sum()
        (expected,) = torch.autograd.grad(value, leaves["body.0.weight"])
        torch.testing.assert_close(found["body.0.weight"][task], expected)


def test_a_call_leaves_the_module_as_it_was_whatever_happens() -> None:
    network = policies.architecture(Broken())
    before = dict(network.named_parameters())
    full = {name: torch.ones(value.shape) for name, value in before.items()}
    with pytest.raises(ValueError, match=r"it is 8\.0"):
        policies.call(network, full, torch.ones(1, 3))
    with pytest.raises(KeyError, match=r"layer\.bias"):
        policies.call(network, {"layer.weight": full["layer.weight"]}, torch.ones(1, 3))
    assert all(value is before[name] for name, value in network.named_parameters())
    assert all(value.is_meta for value in network.parameters())


def test_a_copy_of_a_module_that_was_called_has_parameters_of_its_own() -> None:
    """Also one that was sent elsewhere; threads must not meet in one."""
    network = policies.architecture(nn.Linear(3, 2))
    one, two = ({name: torch.full(x.shape, n) for name, x in network.named_parameters()} for n in (1.0, 2.0))
    policies.call(network, one, torch.ones(1, 3))
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        inside = []
        copied.register_forward_pre_hook(lambda *_, inside=inside: inside.append(network.weight.is_meta))
        assert policies.call(copied, two, torch.ones(1, 3)).tolist() == [[8.0, 8.0]]
        assert inside == [True]
