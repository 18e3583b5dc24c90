"""Adam as a function of values: PyTorch's implementation, with its moments passed in and out.

The moments are a flat dict of tensors (`exp_avg.<name>`, `exp_avg_sq.<name>`, `step`), so they go into a checkpoint
as they are.
"""

import torch
from torch import Tensor
from torch.optim.adam import adam

from metarl.maths.parameters import Parameters

_FIRST, _SECOND, _STEP = "exp_avg.", "exp_avg_sq.", "step"


def start(parameters: Parameters) -> dict[str, Tensor]:
    """The moments before the first step: zeros."""
    first = {_FIRST + name: torch.zeros_like(value) for name, value in parameters.items()}
    second = {_SECOND + name: torch.zeros_like(value) for name, value in parameters.items()}
    return {**first, **second, _STEP: torch.zeros(())}


def step(
    parameters: Parameters,
    gradients: Parameters,
    moments: Parameters,
    rate: float,
    epsilon: float = 1e-8,
    *,
    fused: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One step (Kingma & Ba 2015, alg. 1, β₁ = 0.9, β₂ = 0.999): the new parameters and moments.

    `fused` takes PyTorch's one kernel for everything: the same up to rounding, and faster for small parameters.
    """
    names = list(parameters)
    new = {name: parameters[name].detach().clone() for name in names}
    first = [moments[_FIRST + name].clone() for name in names]
    second = [moments[_SECOND + name].clone() for name in names]
    steps = [moments[_STEP].clone() for _ in names]
    # The kernel goes through the memory of all of them side by side, whatever their strides: they must be alike.
    alike = [torch.empty_like(new[name]).copy_(gradients[name].detach()) for name in names]
    adam(
        list(new.values()),
        alike,
        first,
        second,
        [],
        steps,
        foreach=False,
        fused=fused,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=rate,
        weight_decay=0.0,
        eps=epsilon,
        maximize=False,
    )
    new_first = {_FIRST + name: value for name, value in zip(names, first, strict=True)}
    new_second = {_SECOND + name: value for name, value in zip(names, second, strict=True)}
    return new, {**new_first, **new_second, _STEP: steps[0]}
