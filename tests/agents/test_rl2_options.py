"""RL²'s options: its head, its critic and its scales of rewards. Each is off by default."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.agents import Rl2PpoConfig, policies
from metarl.agents.recurrent import MODELS, Architecture, Cell, RecurrentActorCritic, SideBySide, unroll, unroll_pieces
from metarl.agents.sequences import concatenate
from metarl.learning.episodes import Trials
from metarl.learning.protocols import Parameters
from metarl.maths.distributions import Gaussian
from metarl.tasks import Task
from metarl.testing.agents import check_agent
from tests.agents.test_rl2 import BOX, GUESSING, SIGNS, SMALL, agent
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, held_out_returns, lively, trained

INPUTS, UNITS, OBSERVATION = 7, 6, 3
VARIANTS: dict[str, dict[str, Any]] = {
    "bounded": {"mean": "bounded", "min_std": 0.5, "max_std": 1.5},
    "state": {"state_to_head": True, "head_layers": (5, 4), "critic": "separate"},
    "linear": {"critic": "linear", "reward_scale": "family", "state_to_head": True},
    "hypernetwork": {"hypernetwork": True, "head_layers": (5, 4), "min_std": 0.2},
    "lstm": {"cell": "lstm", "critic": "separate", "chunk_length": 4},
    "transformer": {"cell": "transformer", "hidden": 8, "critic": "separate", "chunk_length": 4},
}
variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


def network(cell: Cell = "gru", **options: Any) -> tuple[RecurrentActorCritic, dict[str, Tensor]]:
    made = RecurrentActorCritic(
        INPUTS, UNITS, Toy(box(2)).spaces, MODELS[cell], Architecture(**options), torch.Generator().manual_seed(0)
    )
    parameters = policies.parameters_of(made)
    return policies.architecture(made), parameters


def moved(parameters: Parameters) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: value + 0.3 * torch.randn(value.shape, generator=generator) for name, value in parameters.items()}


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@variants
def test_every_variant_keeps_the_contract(options: dict[str, Any]) -> None:
    check_agent(dataclasses.replace(SMALL, **options), BOX)


# The head.


def test_means_and_deviations_stay_within_their_limits() -> None:
    rl2 = agent(mean="bounded", min_std=0.5, max_std=1.5, initial_log_std=-0.2)
    first = rl2.init(0)
    outputs = unroll(
        rl2.network, rl2.learned(first.parameters), noise(3, 4, 7), rl2.network.model.initial_carry(3, "cpu")
    )
    assert isinstance(outputs.distribution, Gaussian)
    torch.testing.assert_close(outputs.distribution.log_std, torch.full((3, 4, 2), -0.2))
    for number in (-9.0, 9.0):
        extreme = {**rl2.learned(first.parameters)}
        extreme["heads.policy.linear.bias"] = torch.full((2,), number)
        extreme["heads.policy.log_std"] = torch.full((2,), number)
        found = unroll(rl2.network, extreme, noise(3, 4, 7), rl2.network.model.initial_carry(3, "cpu")).distribution
        assert isinstance(found, Gaussian)
        mean, log_std = found
        assert bool((mean.abs() <= 1).all()) and float(mean.abs().min()) > 0.9
        assert bool((log_std.exp() >= 0.5).all()) and bool((log_std.exp() <= 1.5).all())


def mlp(parameters: Parameters, name: str, x: Tensor, layers: int) -> Tensor:
    for layer in range(layers):
        x = torch.tanh(parameters[f"{name}.{2 * layer}.weight"] @ x + parameters[f"{name}.{2 * layer}.bias"])
    return x


@pytest.mark.parametrize("sees_state", [False, True])
def test_the_head_sees_the_memory_and_if_asked_the_observation(sees_state: bool) -> None:
    net, parameters = network(layers=(5, 4), sees_state=sees_state)
    parameters = moved(parameters)
    inputs, carry = noise(2, 3, INPUTS), net.model.initial_carry(2, "cpu")
    assert isinstance(net.model, nn.Module)
    memories, _ = torch.func.functional_call(
        net.model, {name.removeprefix("model."): x for name, x in parameters.items() if name.startswith("model.")},
        (inputs, carry),
    )  # fmt: skip
    outputs = unroll(net, parameters, inputs, carry)
    for row in range(2):
        for step in range(3):
            seen = torch.cat([memories[row, step], inputs[row, step, : OBSERVATION * sees_state]])
            hidden = mlp(parameters, "bodies.policy", seen, 2)
            mean = parameters["heads.policy.linear.weight"] @ hidden + parameters["heads.policy.linear.bias"]
            value = parameters["heads.value.weight"] @ mlp(parameters, "bodies.value", seen, 2)
            torch.testing.assert_close(outputs.distribution.mode()[row, step], mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                outputs.values[row, step], (value + parameters["heads.value.bias"])[0], rtol=1e-4, atol=1e-5
            )


def test_before_training_a_hypernetwork_gives_every_memory_the_same_ordinary_network() -> None:
    net, parameters = network(layers=(5,), hypernetwork=True)
    inputs, carry = noise(2, 3, INPUTS), net.model.initial_carry(2, "cpu")
    inputs[1, :, :OBSERVATION] = inputs[0, :, :OBSERVATION]  # the same observations with other memories
    means = unroll(net, parameters, inputs, carry).distribution.mode()
    torch.testing.assert_close(means[0], means[1])
    weight, bias = parameters["bodies.policy.generator.bias"].split([5 * OBSERVATION, 5])
    hidden = torch.tanh(inputs[0, :, :OBSERVATION] @ weight.view(5, OBSERVATION).T + bias)
    torch.testing.assert_close(means[0], hidden @ parameters["heads.policy.linear.weight"].T, rtol=1e-4, atol=1e-6)
    assert float(weight.std()) > 0.1 and not bias.any()
    means = unroll(net, moved(parameters), inputs, carry).distribution.mode()
    assert float((means[0, 1:] - means[1, 1:]).abs().min()) > 1e-3


# The critic.


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_critic_of_its_own_shares_no_gradient_with_the_policy(cell: Cell) -> None:
    net, parameters = network(cell, critic="separate", layers=(4,))
    assert isinstance(net.model, SideBySide)
    leaves = {name: value.requires_grad_() for name, value in moved(parameters).items()}
    outputs = unroll(net, leaves, noise(4, 5, INPUTS), net.model.initial_carry(4, "cpu"))
    touched = {}
    for name, scalar in (("policy", outputs.distribution.mode().sum()), ("value", outputs.values.sum())):
        found = torch.autograd.grad(scalar, list(leaves.values()), allow_unused=True, retain_graph=True)
        parts: list[Tensor | None] = [*found]  # None where a leaf has no part in it
        touched[name] = {leaf for leaf, part in zip(leaves, parts, strict=True) if part is not None and part.any()}
    assert not touched["policy"] & touched["value"]
    assert {"model.policy.cell.weight_hh_l0", "bodies.policy.0.weight", "heads.policy.linear.weight"} <= touched[
        "policy"
    ]
    assert {"model.critic.cell.weight_hh_l0", "bodies.value.0.weight", "heads.value.weight"} <= touched["value"]
    shared, _ = network(cell)
    assert unroll(shared, network(cell)[1], noise(4, 5, INPUTS), shared.model.initial_carry(4, "cpu")).values.any()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_two_memories_in_pieces_are_the_whole(cell: Cell) -> None:
    net, parameters = network(cell, critic="separate")
    parameters, inputs, carry = moved(parameters), noise(4, 7, INPUTS), net.model.initial_carry(4, "cpu")
    whole = unroll(net, parameters, inputs, carry)
    pieces, _ = unroll_pieces(net, parameters, inputs, carry, 3)
    torch.testing.assert_close(whole.values, pieces.values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.distribution.mode(), pieces.distribution.mode(), rtol=1e-5, atol=1e-6)
    for one, other in zip(whole.carry, pieces.carry, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_linear_critic_is_fitted_to_each_trial_and_bootstraps_on_nothing() -> None:
    """Against least squares in NumPy, and advantages by a loop."""
    world = dataclasses.replace(BOX, horizon=40)
    rl2 = agent(world, critic="linear", gae_lambda=0.9)
    state = lively(rl2.init(0))
    assert not any("value" in name for name in state.parameters)
    trials = concatenate(collect(rl2, state, world).episodes)
    batch, _ = rl2.build_batch(state.parameters, trials, 2.0)
    found, expected = list[float](), list[float]()
    for row, length in enumerate(trials.lengths.tolist()):
        rewards = (trials.rewards[row, :length] / 2.0).double().numpy()
        discounted = [sum(0.99**k * r for k, r in enumerate(rewards[t:])) for t in range(length)]
        o = np.clip(batch.inputs[row, :length].double().numpy(), -10, 10)
        t = np.arange(length)[:, None] / 100
        x = np.concatenate([o, o**2, t, t**2, t**3, np.ones_like(t)], axis=1)
        weights = np.linalg.solve(x.T @ x + 1e-5 * np.eye(x.shape[1]), x.T @ discounted)
        v = [*(x @ weights), 0.0]
        following, own = 0.0, list[float]()
        for step in reversed(range(length)):
            following = rewards[step] + 0.99 * v[step + 1] - v[step] + 0.99 * 0.9 * following
            own.append(following)
        expected += own[::-1]
        found += batch.rollout.advantages[row, :length].tolist()
    standardised = (np.array(expected) - np.mean(expected)) / np.std(expected)
    np.testing.assert_allclose(found, standardised, rtol=1e-3, atol=1e-3)


def test_a_step_with_the_linear_critic_learns_no_value() -> None:
    rl2 = agent(critic="linear")
    state = lively(rl2.init(0))
    after, metrics = rl2.meta_step(state, collect(rl2, state, BOX), np.random.default_rng(0))
    assert metrics["value_loss"] == 0 and math.isfinite(metrics["explained_variance"])
    assert not torch.equal(after.parameters["model.cell.weight_hh_l0"], state.parameters["model.cell.weight_hh_l0"])


# The scale of rewards.


def families(trials: Trials) -> Trials:
    """Every second task is of another family, whose rewards are a hundred times as large."""
    tasks = [Task.of("large", **dict(task.parameters)) if i % 2 else task for i, task in enumerate(trials.tasks)]
    factor = torch.tensor([100.0 if i % 2 else 1.0 for i in range(len(tasks))])[:, None, None]
    scaled = [dataclasses.replace(episodes, rewards=episodes.rewards * factor) for episodes in trials.episodes]
    return Trials(tuple(tasks), tuple(scaled))


def test_each_family_has_a_scale_of_its_own() -> None:
    rl2 = agent(reward_scale="family", meta_batch=6)
    state = lively(rl2.init(0))
    trials = families(collect(rl2, state, BOX))
    joined = concatenate(trials.episodes)
    scales, named = rl2.scale_by_family(state.parameters, joined, trials.tasks, 1.0)
    discounted = rl2.discounted_returns(joined)
    for row in range(2):
        own = torch.cat([discounted[i, : joined.lengths[i]] for i in range(row, 6, 2)]).double()
        assert float(scales[row]) == pytest.approx(float(own.std(correction=0)), rel=1e-4)
    assert float(scales[1] / scales[0]) > 20
    after, _ = rl2.meta_step(state, trials, np.random.default_rng(0))
    for name, value in named.items():
        torch.testing.assert_close(after.parameters[name], value)
    again, _ = rl2.scale_by_family(after.parameters, joined._replace(rewards=0 * joined.rewards), trials.tasks, 1e-9)
    torch.testing.assert_close(again, scales * math.sqrt(0.9))
    floor, _ = rl2.scale_by_family(state.parameters, joined._replace(rewards=0 * joined.rewards), trials.tasks, 50.0)
    assert floor.unique().tolist() == pytest.approx([0.5])


def test_what_the_policy_sees_does_not_depend_on_the_family() -> None:
    rl2 = agent(reward_scale="family")
    state = lively(rl2.init(0))
    trials = collect(rl2, state, BOX)
    batches = []
    for each in (trials, Trials(tuple(Task.of("xyz"[i % 2], a=i) for i in range(5)), trials.episodes)):
        joined = concatenate(each.episodes)
        scales, _ = rl2.scale_by_family(state.parameters, joined, each.tasks, 1.0)
        batches.append(rl2.build_batch(state.parameters, joined, scales)[0])
    assert torch.equal(batches[0].inputs, batches[1].inputs)
    assert not torch.equal(batches[0].rollout.targets, batches[1].rollout.targets)


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_std": 0.7}, "initial_log_std must be within log min_std and log max_std: -0.5 is not between -0.35"),
        ({"max_std": 0.0}, "max_std must be positive, got 0.0"),
        ({"head_layers": (4, 0)}, "head_layers must be at least 1, got 0"),
        ({"hypernetwork": True}, "a hypernetwork needs head_layers"),
        ({"cell": "transformer", "hidden": 10}, "hidden must be a multiple of a transformer's 4 heads, got 10"),
        ({"hypernetwork": True, "head_layers": (4,), "state_to_head": True}, "without state_to_head"),
        ({"reward_scale": "family", "normalise_rewards": False}, "normalise_rewards is off"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **options)


@pytest.mark.parametrize("options", [{"mean": "bounded"}, {"max_std": 1.5}])
def test_options_of_continuous_actions_are_refused_for_discrete_ones(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="these are discrete"):
        dataclasses.replace(SMALL, **options).build(Toy(discrete(3)).spaces)


# Learning.


LONGER = dataclasses.replace(SIGNS, horizon=12, observation_size=1)  # more steps than the linear critic has weights


@pytest.mark.parametrize(
    ("variant", "world", "steps"),
    [("state", SIGNS, 30), ("linear", LONGER, 12), ("hypernetwork", SIGNS, 50)],
)
def test_every_variant_learns_to_use_what_the_first_episode_told(variant: str, world: Toy, steps: int) -> None:
    config: Rl2PpoConfig = dataclasses.replace(GUESSING, **VARIANTS[variant])
    rl2 = config.build(world.spaces)
    after, gain = held_out_returns(rl2, trained(rl2, world, steps), world, trials=30)
    assert gain.low > 0.1, (after, gain)
