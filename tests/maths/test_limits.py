"""Limits that a learned number cannot leave, nor get stuck at."""

import pytest
import torch

from metarl.maths.limits import Limits, limit, unlimit

EVERY = pytest.mark.parametrize("limits", [(None, None), (-0.7, None), (None, 0.4), (-0.7, 0.4)])


@EVERY
def test_the_inverse_is_the_inverse(limits: Limits) -> None:
    y = torch.tensor([-0.69, -0.5, 0.0, 0.39])
    x = torch.tensor([unlimit(float(each), limits) for each in y])
    torch.testing.assert_close(limit(x, limits), y)


@EVERY
def test_nothing_leaves_the_limits_and_a_gradient_leads_back(limits: Limits) -> None:
    low, high = limits
    x = torch.tensor([-8.0, 0.0, 8.0], requires_grad=True)
    y = limit(x, limits)
    assert low is None or bool((y > low).all())
    assert high is None or bool((y < high).all())
    assert bool((y.diff() > 0).all())
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert bool((gradient > 0).all())


def test_a_number_outside_has_no_inverse() -> None:
    with pytest.raises(ValueError, match="1 is not between -0.7 and 0.4"):
        unlimit(1.0, (-0.7, 0.4))
    with pytest.raises(ValueError, match="-0.7 is not between -0.7 and None"):
        unlimit(-0.7, (-0.7, None))
