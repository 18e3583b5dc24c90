"""What every few-shot learner does with a gradient: one step of Adam, with a learning rate that may have a half-life.

A state's parameters hold what is learned and, under `running.`, the running averages of batch norm's mean and
variance, which are followed, not learned.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from metarl.fewshot.encoders import STANDARD, Statistics
from metarl.fewshot.network import ENCODER, Network
from metarl.learning.protocols import Parameters, State
from metarl.maths import adam

RUNNING = "running."
_MEAN, _VARIANCE = ".mean", ".variance"
_MOMENTUM = 0.1  # PyTorch's
Aux = TypeVar("Aux")


@runtime_checkable
class OuterOptions(Protocol):
    """The options of a learner's outer step."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def learning_rate_half_life(self) -> int: ...


def initial_state(network: Network | None, learned: Parameters, device: str) -> State:
    """The state before the first outer step, with running averages where there is a network that normalises."""
    learned = {name: value.to(device) for name, value in learned.items()}
    statistics = {} if network is None else network.encoder.initial_statistics()
    running = {name: value.to(device) for name, value in _named(statistics).items()}
    return State({**learned, **running}, adam.start(learned))


def learned(state: State) -> dict[str, Tensor]:
    """The parameters, without the running averages."""
    return {name: value for name, value in state.parameters.items() if not name.startswith(RUNNING)}


def of_encoder(name: str) -> bool:
    """Whether a state's parameter belongs to the encoder alone: one that another learner's run can begin with."""
    return name.startswith((ENCODER, RUNNING)) and not name.startswith(f"{RUNNING}{STANDARD}.")


def running(state: State) -> Statistics:
    """The running averages of batch norm's statistics, by layer."""
    means = [name for name in state.parameters if name.startswith(RUNNING) and name.endswith(_MEAN)]
    layers = [name.removeprefix(RUNNING).removesuffix(_MEAN) for name in means]
    return {
        layer: (state.parameters[f"{RUNNING}{layer}{_MEAN}"], state.parameters[f"{RUNNING}{layer}{_VARIANCE}"])
        for layer in layers
    }


def gradients(
    objective: Callable[[Parameters], tuple[Tensor, Aux]], parameters: Parameters, *, differentiable: bool = False
) -> tuple[dict[str, Tensor], Aux]:
    """The gradient of the objective's first value, and its second value; itself differentiable where that is asked."""
    leaves = {
        name: value if differentiable and value.requires_grad else value.detach().requires_grad_()
        for name, value in parameters.items()
    }
    with torch.enable_grad():
        value, aux = objective(leaves)
        by_leaf = torch.autograd.grad(
            value, list(leaves.values()), create_graph=differentiable, allow_unused=True, materialize_grads=True
        )
    return dict(zip(leaves, by_leaf, strict=True)), aux


def step(state: State, gradients: Parameters, options: OuterOptions, statistics: Statistics | None = None) -> State:
    """One step of Adam, and of the running averages where the training batch's statistics are given."""
    rate = options.learning_rate
    if options.learning_rate_half_life:
        rate *= 0.5 ** (int(state.optimizer["step"]) // options.learning_rate_half_life)
    before = learned(state)
    fused = all(value.device.type == "cpu" for value in before.values())  # elsewhere the step count would have to move
    parameters, optimizer = adam.step(before, gradients, state.optimizer, rate, fused=fused)
    followed = {name: value for name, value in state.parameters.items() if name.startswith(RUNNING)}
    if statistics is None:
        return State({**parameters, **followed}, optimizer)
    after = {name: torch.lerp(followed[name], value.detach(), _MOMENTUM) for name, value in _named(statistics).items()}
    return State({**parameters, **after}, optimizer)


def _named(statistics: Statistics) -> Mapping[str, Tensor]:
    means = {f"{RUNNING}{layer}{_MEAN}": mean for layer, (mean, _) in statistics.items()}
    return means | {f"{RUNNING}{layer}{_VARIANCE}": variance for layer, (_, variance) in statistics.items()}
