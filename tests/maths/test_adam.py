"""Adam as a function of values, against PyTorch's module."""

import torch

from metarl.maths import adam


def test_fused_is_the_same_up_to_rounding_and_neither_writes() -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"a": torch.randn(3, 4, generator=generator), "b": torch.randn((), generator=generator)}
    found = []
    for fused in (False, True):
        parameters, moments = start, adam.start(start)
        for step in range(3):
            gradients = {name: value + step for name, value in start.items()}
            before = {name: value.clone() for name, value in (*parameters.items(), *moments.items())}
            new = adam.step(parameters, gradients, moments, 0.1, fused=fused)
            assert all(torch.equal(value, before[name]) for name, value in (*parameters.items(), *moments.items()))
            parameters, moments = new
        found.append({**parameters, **moments})
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_the_first_step_is_the_rate_against_the_sign() -> None:
    parameters = {"w": torch.tensor([1.0, -2.0])}
    for fused in (False, True):
        new, _ = adam.step(parameters, {"w": torch.tensor([0.3, -5.0])}, adam.start(parameters), 0.1, fused=fused)
        torch.testing.assert_close(new["w"], torch.tensor([0.9, -1.9]))


def test_a_gradient_in_another_order_of_memory_is_the_same_gradient() -> None:
    parameters = {"w": torch.arange(6.0).reshape(2, 3)}
    gradient = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    transposed = gradient.T.contiguous().T
    assert torch.equal(gradient, transposed) and gradient.stride() != transposed.stride()
    for fused in (False, True):
        (one, moments), (other, others) = (
            adam.step(parameters, {"w": each}, adam.start(parameters), 0.1, fused=fused)
            for each in (gradient, transposed)
        )
        assert torch.equal(one["w"], other["w"])
        assert all(torch.equal(moments[name], others[name]) for name in moments)


def test_adam_equals_pytorchs_over_many_steps_and_through_a_pause() -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(3, 2, generator=generator), "b": torch.randn(2, generator=generator)}
    leaves = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=0.01)
    parameters, moments = dict(start), adam.start(start)
    for _ in range(20):
        gradients = {name: torch.randn(value.shape, generator=generator) for name, value in start.items()}
        for name, leaf in leaves.items():
            leaf.grad = gradients[name].clone()
        optimizer.step()
        before = {name: value.clone() for name, value in parameters.items()}
        old = parameters
        parameters, moments = adam.step(parameters, gradients, moments, rate=0.01)
        assert all(torch.equal(old[name], before[name]) for name in old)  # new values out, nothing written into
    for name, leaf in leaves.items():
        torch.testing.assert_close(parameters[name], leaf.detach(), rtol=0, atol=0)
