"""Parameters by name: vectors, and the norm of their gradients against PyTorch's."""

import pytest
import torch

from metarl.maths.parameters import clip_by_global_norm, ravel, unravel

PARAMETERS = {"w": torch.arange(6.0).view(2, 3), "b": torch.tensor([-1.0, 7.0]), "s": torch.tensor(3.0)}


def test_a_vector_and_back() -> None:
    vector = ravel(PARAMETERS)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, -1, 7, 3]
    back = unravel(vector, PARAMETERS)
    assert list(back) == list(PARAMETERS)
    assert all(torch.equal(back[name], value) for name, value in PARAMETERS.items())
    with pytest.raises(RuntimeError):
        unravel(vector[:-1], PARAMETERS)


@pytest.mark.parametrize("max_norm", [0.5, 11.0, 100.0])
def test_gradients_are_shortened_as_pytorch_shortens_them_and_never_made_longer(max_norm: float) -> None:
    leaves = [value.clone().requires_grad_() for value in PARAMETERS.values()]
    for leaf, value in zip(leaves, PARAMETERS.values(), strict=True):
        leaf.grad = value.clone()
    torch.nn.utils.clip_grad_norm_(leaves, max_norm)
    clipped = clip_by_global_norm(PARAMETERS, max_norm)
    for leaf, value in zip(leaves, clipped.values(), strict=True):
        torch.testing.assert_close(value, leaf.grad)
    norm = float(ravel(PARAMETERS).norm())
    assert float(ravel(clipped).norm()) == pytest.approx(min(norm, max_norm), rel=1e-5)
