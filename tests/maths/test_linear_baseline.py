"""The linear feature baseline."""

import numpy as np
import pytest
import torch

from metarl.maths import linear_baseline


def test_features_by_hand() -> None:
    observations = torch.tensor([[[2.0], [30.0]]])
    expected = torch.tensor(
        [[[2.0, 4.0, 0.0, 0.0, 0.0, 1.0], [10.0, 100.0, 0.01, 1e-4, 1e-6, 1.0]]]  # 30 is clipped to 10
    )
    torch.testing.assert_close(linear_baseline.features(observations), expected)


def test_it_recovers_returns_that_are_linear_in_the_features() -> None:
    observations = torch.randn(2, 5, 40, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.linspace(-1, 1, 10)[None].repeat(2, 1) * torch.tensor([[1.0], [3.0]])  # another one for each task
    returns = torch.einsum("tesf,tf->tes", linear_baseline.features(observations), weights)
    mask = torch.ones(2, 5, 40, dtype=torch.bool)
    torch.testing.assert_close(linear_baseline.fit(observations, returns, mask), returns, atol=1e-3, rtol=1e-3)


def test_it_equals_the_ridge_solution_by_least_squares() -> None:
    generator = torch.Generator().manual_seed(1)
    observations, returns = torch.randn(1, 4, 20, 2, generator=generator), torch.randn(1, 4, 20, generator=generator)
    mask = torch.ones(1, 4, 20, dtype=torch.bool)
    x = linear_baseline.features(observations).double().reshape(80, -1).numpy()
    stacked = np.vstack([x, np.sqrt(1e-5) * np.eye(x.shape[1])])
    target = np.concatenate([returns.double().reshape(80).numpy(), np.zeros(x.shape[1])])
    weights, *_ = np.linalg.lstsq(stacked, target)
    np.testing.assert_allclose(linear_baseline.fit(observations, returns, mask).reshape(80), x @ weights, atol=1e-5)


def test_steps_past_the_end_do_not_count() -> None:
    generator = torch.Generator().manual_seed(2)
    observations, returns = torch.randn(1, 6, 30, 2, generator=generator), torch.randn(1, 6, 30, generator=generator)
    mask = (torch.arange(30) < torch.tensor([30, 10, 5, 30, 20, 30])[:, None])[None]
    spoiled = torch.where(mask, returns, torch.full_like(returns, 1e4))
    one, other = (linear_baseline.fit(observations, target, mask) for target in (returns, spoiled))
    torch.testing.assert_close(one[mask], other[mask])


def test_a_degenerate_fit_is_solved_by_the_ridge() -> None:
    constant = torch.zeros(1, 2, 10, 3)
    returns = torch.full((1, 2, 10), 5.0)
    values = linear_baseline.fit(constant, returns, torch.ones(1, 2, 10, dtype=torch.bool))
    torch.testing.assert_close(values, returns, atol=1e-2, rtol=1e-2)


def test_what_cannot_be_fitted_is_an_error() -> None:
    returns = torch.full((1, 2, 10), float("nan"))
    with pytest.raises(ValueError, match="ridges up to"):
        linear_baseline.fit(torch.zeros(1, 2, 10, 3), returns, torch.ones(1, 2, 10, dtype=torch.bool))
