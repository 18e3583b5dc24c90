"""The inner loop: one function adapts a cheetah's policy and a sinusoid's regressor.

    θ⁰ = θ,   θ^{i+1} = θ^i − α ∇ L(θ^i; support_i),   i = 0 … n−1           (Finn et al. 2017, eq. 1)

Parameters are a dict of tensors in and a new dict of tensors out; no module is written to. The rates α may be one
number or one tensor a parameter, which are then learned like any other (Meta-SGD, Li et al. 2017).
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]
Rates = float | Parameters
Support = TypeVar("Support")
Batch = TypeVar("Batch", bound=tuple[Tensor, ...])
Strategy = Literal["vmap", "loop"]


def adapt(
    loss: Callable[[Parameters, Support], Tensor],
    parameters: Parameters,
    supports: Sequence[Support],
    rates: Rates,
    *,
    first_order: bool = False,
    only: Collection[str] | None = None,
    eager: bool = False,
) -> dict[str, Tensor]:
    """Takes one gradient step for each support, in order.

    Args:
        loss: the task's loss, a scalar, of parameters and a support.
        parameters: θ, by name.
        supports: the experience of each step: the same one repeated for supervised tasks, fresh episodes for a policy.
        rates: α, one number for all or a tensor (of the parameter's shape, or a scalar) by name.
        first_order: take the inner gradients as constants (first-order MAML): no second derivatives are built.
        only: the names that adapt, the others stay (ANIL, Raghu et al. 2020: the last layer); None adapts all.
        eager: take the inner gradients by `torch.autograd`, not by `torch.func`. For small networks that is a quarter
            quicker, but it cannot run inside the transforms of `torch.func`.

    Returns:
        The adapted parameters: differentiable with respect to `parameters` and `rates`, and, unless `first_order`,
        through the inner gradients.

    Raises:
        ValueError: `only` or `rates` does not match the parameters' names.
    """
    names = _adapted_names(parameters, rates, only)
    adapted = dict(parameters)
    for support in supports:
        # A gradient at constants is one: nothing is recorded that a second derivative would need.
        here = {name: value.detach() for name, value in adapted.items()} if first_order else adapted

        def inner(subset: Parameters, support: Support = support, rest: Parameters = here) -> Tensor:
            return loss({**rest, **subset}, support)

        subset = {name: here[name] for name in names}
        gradients = _eager_gradients(inner, subset, first_order) if eager else torch.func.grad(inner)(subset)
        for name, gradient in gradients.items():
            if isinstance(rates, Mapping):
                adapted[name] = adapted[name] - rates[name] * gradient
            else:
                adapted[name] = torch.sub(adapted[name], gradient, alpha=rates)
    return adapted


def adapt_tasks(
    loss: Callable[[Parameters, Batch], Tensor],
    parameters: Parameters,
    supports: Sequence[Batch],
    rates: Rates,
    *,
    first_order: bool = False,
    only: Collection[str] | None = None,
    shared: bool = True,
    strategy: Strategy = "vmap",
) -> dict[str, Tensor]:
    """`adapt` for every task of a meta-batch. A support is a named tuple of tensors with a leading task axis.

    The result has a leading task axis too.

    Args:
        shared: whether all tasks start from the same parameters (no task axis), or each from its own.
        strategy: `vmap` runs the tasks as one batched program: best for small dense networks and on GPUs. `loop`
            runs one after the other: best for convolutions on CPUs. Both give the same numbers up to rounding.
    """
    if not supports:
        raise ValueError("adapting needs at least one support")
    step = functools.partial(adapt, loss, first_order=first_order, only=only)

    def one_task(own: Parameters, *batches: Batch) -> dict[str, Tensor]:
        return step(own, batches, rates)

    if strategy == "vmap":
        in_dims = (None if shared else 0, *(0 for _ in supports))
        return torch.func.vmap(one_task, in_dims=in_dims)(parameters, *supports)
    results = [
        one_task(
            parameters if shared else {name: value[task] for name, value in parameters.items()},
            *(_of_task(support, task) for support in supports),
        )
        for task in range(len(supports[0][0]))
    ]
    return {name: torch.stack([result[name] for result in results]) for name in parameters}


def _eager_gradients(
    loss: Callable[[Parameters], Tensor], parameters: Parameters, first_order: bool
) -> dict[str, Tensor]:
    """`torch.func.grad` without its transforms: differentiable where anybody outside keeps a graph."""
    second = torch.is_grad_enabled() and not first_order
    with torch.enable_grad():
        at = {
            name: value if second and value.requires_grad else value.detach().requires_grad_()
            for name, value in parameters.items()
        }
        found = torch.autograd.grad(
            loss(at), list(at.values()), create_graph=second, allow_unused=True, materialize_grads=True
        )
    return dict(zip(at, found, strict=True))


def _of_task(batch: Batch, task: int) -> Batch:
    """One task's part of a named tuple of tensors."""
    return type(batch)(*(tensor[task] for tensor in batch))


def _adapted_names(parameters: Parameters, rates: Rates, only: Collection[str] | None) -> list[str]:
    names = [name for name in parameters if only is None or name in only]
    if only is not None and (unknown := sorted(set(only) - set(parameters))):
        raise ValueError(f"cannot adapt {unknown}: the parameters are {sorted(parameters)}")
    if isinstance(rates, Mapping) and (missing := sorted(set(names) - set(rates))):
        raise ValueError(f"no inner rate for {missing}: rates are given for {sorted(rates)}")
    return names
