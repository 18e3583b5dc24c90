"""Small networks, used functionally: `call(network, parameters, inputs)`.

A policy's network ends in a head for the kind of action space: Box gives a `Gaussian`, Discrete a `Categorical`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.learning.protocols import Parameters
from metarl.learning.spaces import Spaces
from metarl.maths.distributions import Categorical, Distribution, Gaussian
from metarl.maths.limits import Limits, limit, unlimit

Initialise = Callable[[Tensor], object]
"""Fills a weight in place."""
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def uninitialised(make: Callable[[], AnyModule]) -> AnyModule:
    """A module with memory but without values: PyTorch's own would be drawn from the global generator."""
    with torch.device("meta"):
        module = make()
    return module.to_empty(device="cpu")


def architecture(module: AnyModule) -> AnyModule:
    """The module without memory: to be called with parameters given to it."""
    return module.to("meta")


def call(module: nn.Module, parameters: Parameters, *inputs: object) -> Any:  # noqa: ANN401  # as modules are called
    """What the module makes of the inputs under the given parameters: `torch.func.functional_call` for small ones.

    That looks up each parameter's place again whenever it is called: a quarter of the time of a policy's step. No two
    parameters may be one tensor, and buffers are the module's own.

    Raises:
        KeyError: a parameter is missing.
    """
    places = module.__dict__.get(_PLACES)
    if places is None:
        places = module.__dict__[_PLACES] = tuple(_places(module))
    before = [held[name] for held, name, _ in places]
    try:
        for held, name, path in places:
            held[name] = parameters[path]
        return module(*inputs)
    finally:
        for (held, name, _), value in zip(places, before, strict=True):
            held[name] = value


_PLACES = "_metarl_places"
"""Where a module keeps where its parameters are; so a copy of it has its own."""


def _places(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Of each parameter what holds it, under which name, and its name in the whole module."""
    for path, _ in module.named_parameters():
        owner, _, name = path.rpartition(".")
        held = module.get_submodule(owner)._parameters  # pyright: ignore[reportPrivateUsage]  # as torch.func does
        yield held, name, path


def affine(
    x: Float[Tensor, "*batch in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"]
) -> Float[Tensor, "*batch out"]:
    """W x + b. With one output the product is summed row by row: BLAS's own depends on the number of rows."""
    if len(weight) > 1:
        return nn.functional.linear(x, weight, bias)
    return (x.contiguous() * weight[0]).sum(-1, keepdim=True) + bias


@final
class Linear(nn.Linear):
    """x ↦ W x + b, by `affine`."""

    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return affine(input, self.weight, self.bias)


def linear(width_in: int, width_out: int, initialise: Initialise) -> Linear:
    """A layer with weights filled by `initialise` and zero biases."""
    layer = uninitialised(lambda: Linear(width_in, width_out))
    initialise(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(widths: Sequence[int], initialise: Initialise) -> nn.Sequential:
    """Linear layers, each followed by tanh."""
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [linear(width_in, width_out, initialise), nn.Tanh()]
    return nn.Sequential(*layers)


def xavier(generator: torch.Generator) -> Initialise:
    """Xavier-uniform weights (Glorot & Bengio 2010)."""
    return lambda weight: nn.init.xavier_uniform_(weight, generator=generator)


def orthogonal(generator: torch.Generator, gain: float = 1.0) -> Initialise:
    """Orthogonal weights (Saxe et al. 2014)."""
    return lambda weight: nn.init.orthogonal_(weight, gain=gain, generator=generator)


def orthogonal_gates(weight: Tensor, hidden: int, generator: torch.Generator) -> Tensor:
    """Fills a recurrent cell's weight [gates · hidden, in]: orthogonal for each gate (Saxe et al. 2014)."""
    for gate in weight.split(hidden):
        nn.init.orthogonal_(gate, generator=generator)
    return weight


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """The module's parameters as detached copies by name."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


@final
class ActionHead(nn.Module):
    """Features ↦ N(f(W x + b), diag σ²) for Box, softmax(W x + b) for Discrete.

    log σ does not depend on the features. f is tanh for a `squashed` mean, else the identity. Actions are clipped to
    ±1: a mean far outside would be clipped whatever the noise, and the gradient, which comes from comparing actions,
    would be gone for good. Nor does σ fall below a minimum, if there is one, so that exploration goes on: it is clamped
    there, or kept within limits smoothly, by log σ = `limit`(θ) with a learned θ.
    """

    def __init__(
        self,
        features: int,
        spaces: Spaces,
        initialise: Initialise,
        initial_log_std: float,
        *,
        squashed: bool = False,
        minimum_std: float | None = None,
        log_std_limits: Limits = (None, None),
    ) -> None:
        super().__init__()
        self._discrete, self._squashed, self._log_std_limits = spaces.discrete, squashed, log_std_limits
        self._minimum_log_std = None if minimum_std is None else math.log(minimum_std)
        self.linear = linear(features, spaces.action_size, initialise)
        if not spaces.discrete:
            initial = unlimit(initial_log_std, log_std_limits)
            self.log_std = nn.Parameter(torch.full((spaces.action_size,), initial))

    def forward(self, features: Float[Tensor, "*batch feature"]) -> Distribution:
        outputs = self.linear(features)
        if self._discrete:
            return Categorical(outputs)
        mean = torch.tanh(outputs) if self._squashed else outputs
        log_std = limit(self.log_std, self._log_std_limits)
        if self._minimum_log_std is not None:
            log_std = log_std.clamp_min(self._minimum_log_std)
        return Gaussian(mean, log_std.expand_as(mean))


@final
class MlpPolicy(nn.Module):
    """π(a | o): a tanh MLP with an `ActionHead`."""

    first_layer = ("body.0.weight", "body.0.bias")
    """The names of the layer that sees the observations."""
    log_std = "head.log_std"
    """The name of log σ, where actions are continuous."""

    def __init__(
        self,
        spaces: Spaces,
        hidden: Sequence[int],
        initial_log_std: float,
        minimum_std: float,
        generator: torch.Generator,
        *,
        squashed: bool = True,
    ) -> None:
        super().__init__()
        initialise = xavier(generator)
        self.body = mlp([spaces.observation_size, *hidden], initialise)
        self.head = ActionHead(
            hidden[-1], spaces, initialise, initial_log_std, squashed=squashed, minimum_std=minimum_std
        )

    def forward(self, observations: Float[Tensor, "*batch observation"]) -> Distribution:
        return self.head(self.body(observations))

    @property
    def head_names(self) -> tuple[str, ...]:
        """The names of the parameters that ANIL adapts: the last layer and log σ."""
        return tuple(f"head.{name}" for name, _ in self.head.named_parameters())


class ActorCriticOutputs(NamedTuple):
    """What an actor-critic network says of each of its inputs."""

    distribution: Distribution
    """π(· | input)."""
    values: Float[Tensor, "*batch"]
    """v(input)."""


def value_layer(features: int, generator: torch.Generator) -> nn.Linear:
    """Features ↦ v, [1]; orthogonal weights."""
    layer = uninitialised(lambda: nn.Linear(features, 1))  # quicker than `Linear`, and nothing acts on a value
    nn.init.orthogonal_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


@final
class ActorCriticHeads(nn.Module):
    """Features ↦ the policy and the value; the mean actions are nearly zero before training."""

    def __init__(self, features: int, spaces: Spaces, initial_log_std: float, generator: torch.Generator) -> None:
        super().__init__()
        self.policy = ActionHead(features, spaces, orthogonal(generator, gain=0.01), initial_log_std)
        self.value = value_layer(features, generator)

    def forward(self, features: Float[Tensor, "*batch feature"]) -> ActorCriticOutputs:
        return ActorCriticOutputs(self.policy(features), self.value(features).squeeze(-1))


def apply(policy: MlpPolicy, parameters: Parameters, observations: Float[Tensor, "*batch observation"]) -> Distribution:
    """The policy's distributions under the given parameters."""
    return call(policy, parameters, observations)
