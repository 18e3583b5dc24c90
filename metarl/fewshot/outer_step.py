"""What every few-shot learner does with a gradient: one step of Adam, at a rate that may be halved now and then.

A state's parameters hold what is learned, and, under `running.`, the running averages of batch norm's mean and
variance, which are followed, not learned.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from metarl.fewshot import networks
from metarl.fewshot.networks import Network, Statistics
from metarl.learning.protocols import Parameters, State
from metarl.maths import adam

RUNNING = "running."
_MOMENTUM = 0.1  # PyTorch's
Aux = TypeVar("Aux")


@runtime_checkable
class OuterOptions(Protocol):
    """The options of a learner's outer step."""

    @property
    def outer_rate(self) -> float: ...

    @property
    def halve_every(self) -> int: ...


def start(network: Network, learned: Parameters, device: str) -> State:
    """The state before the first outer step."""
    learned = {name: value.to(device) for name, value in learned.items()}
    running = {name: value.to(device) for name, value in _named(network.start()).items()}
    return State({**learned, **running}, adam.start(learned))


def learned(state: State) -> dict[str, Tensor]:
    """The parameters, without the running averages."""
    return {name: value for name, value in state.parameters.items() if not name.startswith(RUNNING)}


def of_features(name: str) -> bool:
    """Whether a state's parameter belongs to a network below its head."""
    return name.removeprefix(RUNNING).startswith(networks.FEATURES)


def running(state: State) -> Statistics:
    """The running averages of batch norm's statistics, by block."""
    blocks = [name.removeprefix(RUNNING).removesuffix(".mean") for name in state.parameters if name.endswith(".mean")]
    return {
        block: (state.parameters[f"{RUNNING}{block}.mean"], state.parameters[f"{RUNNING}{block}.variance"])
        for block in blocks
    }


def gradients(
    objective: Callable[[Parameters], tuple[Tensor, Aux]], parameters: Parameters
) -> tuple[dict[str, Tensor], Aux]:
    """The gradient of the objective's first value, and its second value."""
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    with torch.enable_grad():
        value, aux = objective(leaves)
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True)), aux


def step(state: State, gradients: Parameters, options: OuterOptions, statistics: Statistics | None = None) -> State:
    """One step of Adam, and of the running averages where the training batch's statistics are given."""
    rate = options.outer_rate
    if options.halve_every:
        rate *= 0.5 ** (int(state.optimizer["step"]) // options.halve_every)
    before = learned(state)
    fused = all(value.device.type == "cpu" for value in before.values())  # elsewhere the step count would have to move
    parameters, optimizer = adam.step(before, gradients, state.optimizer, rate, fused=fused)
    followed = {name: value for name, value in state.parameters.items() if name.startswith(RUNNING)}
    if statistics is None:
        return State({**parameters, **followed}, optimizer)
    after = {name: torch.lerp(followed[name], value.detach(), _MOMENTUM) for name, value in _named(statistics).items()}
    return State({**parameters, **after}, optimizer)


def _named(statistics: Statistics) -> Mapping[str, Tensor]:
    means = {f"{RUNNING}{block}.mean": mean for block, (mean, _) in statistics.items()}
    return means | {f"{RUNNING}{block}.variance": variance for block, (_, variance) in statistics.items()}
