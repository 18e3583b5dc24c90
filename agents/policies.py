"""Small networks, used functionally: `torch.func.functional_call(network, parameters, inputs)`."""

import itertools
import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.learning.protocols import Parameters

_LOG_TWO_PI = math.log(2 * math.pi)


def mlp(sizes: Sequence[int], activation: type[nn.Module], generator: torch.Generator) -> nn.Sequential:
    """A multi-layer perceptron with Xavier-uniform weights and zero biases (Glorot & Bengio 2010)."""
    layers: list[nn.Module] = []
    for index, (width_in, width_out) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(width_in, width_out)
        nn.init.xavier_uniform_(linear.weight, generator=generator)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
        if index < len(sizes) - 2:
            layers.append(activation())
    return nn.Sequential(*layers)


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """The module's parameters as detached copies by name."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def orthogonal_gates(weight: Tensor, hidden: int, generator: torch.Generator) -> Tensor:
    """Fills a recurrent cell's weight [gates · hidden, in]: orthogonal for each gate (Saxe et al. 2014)."""
    for gate in weight.split(hidden):
        nn.init.orthogonal_(gate, generator=generator)
    return weight


@final
class GaussianPolicy(nn.Module):
    """π(a | o) = N(tanh f(o), diag σ²): f a tanh MLP, and a log σ that does not depend on the observation.

    Actions are clipped to ±1. A mean far outside would be clipped whatever the noise, and the gradient, which comes
    from comparing actions, would be gone for good: without the outer tanh, training on cheetah-direction stopped at a
    return of 140 with 60 % of all actions clipped. And σ does not fall below a minimum, so that exploration goes on.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        initial_log_std: float,
        minimum_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._minimum_log_std = math.log(minimum_std)
        self.mean = mlp([observation_size, *hidden, action_size], nn.Tanh, generator)
        self.log_std = nn.Parameter(torch.full((action_size,), initial_log_std))

    def forward(
        self, observations: Float[Tensor, "*batch observation"]
    ) -> tuple[Float[Tensor, "*batch action"], Float[Tensor, " action"]]:
        return torch.tanh(self.mean(observations)), self.log_std.clamp_min(self._minimum_log_std)

    @property
    def head(self) -> tuple[str, ...]:
        """The names of the parameters that ANIL adapts: the last layer and log σ."""
        last = len(self.mean) - 1
        return (f"mean.{last}.weight", f"mean.{last}.bias", "log_std")


def gaussian_log_prob(
    actions: Float[Tensor, "*batch action"],
    mean: Float[Tensor, "*batch action"],
    log_std: Float[Tensor, "*#batch action"],
) -> Float[Tensor, "*batch"]:
    """log N(a; μ, diag σ²) = −½ Σ [((a − μ)/σ)² + 2 log σ + log 2π]."""
    standardised = (actions - mean) * torch.exp(-log_std)
    return -0.5 * (standardised**2 + 2 * log_std + _LOG_TWO_PI).sum(-1)


def gaussian_kl(
    mean_p: Float[Tensor, "*batch action"],
    log_std_p: Float[Tensor, "*#batch action"],
    mean_q: Float[Tensor, "*batch action"],
    log_std_q: Float[Tensor, "*#batch action"],
) -> Float[Tensor, "*batch"]:
    """KL(p ‖ q) = Σ [log σ_q/σ_p + (σ_p² + (μ_p − μ_q)²) / 2σ_q² − ½] of diagonal Gaussians."""
    variance_ratio = torch.exp(2 * (log_std_p - log_std_q))
    distance = ((mean_p - mean_q) * torch.exp(-log_std_q)) ** 2
    return (log_std_q - log_std_p + 0.5 * (variance_ratio + distance) - 0.5).sum(-1)


def apply(module: nn.Module, parameters: Parameters, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The module's output under the given parameters."""
    return torch.func.functional_call(module, dict(parameters), (inputs,))
