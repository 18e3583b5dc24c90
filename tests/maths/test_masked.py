"""Masked statistics against NumPy's masked arrays."""

import numpy as np
import pytest
import torch

from metarl.maths.masked import Axes, masked_mean, sequence_mask, standardise

X = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MASK = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.6
SPOILED = torch.where(MASK, X, torch.nan)


@pytest.mark.parametrize("axes", [None, -1, 1, (1, 2), (0, 1, 2)])
def test_they_are_numpys_masked_statistics_whatever_the_padding_holds(axes: Axes) -> None:
    array = np.ma.masked_array(X.numpy(), ~MASK.numpy())
    mean = np.ma.filled(array.mean(axis=axes), 0)
    np.testing.assert_allclose(masked_mean(SPOILED, MASK, axes), mean, rtol=1e-12, atol=1e-12)
    centred = array - array.mean(axis=axes, keepdims=True)
    expected = np.ma.filled(centred / array.std(axis=axes, keepdims=True), 0)
    np.testing.assert_allclose(standardise(SPOILED, MASK, axes), expected, rtol=1e-6, atol=1e-9)


def test_where_nothing_is_unmasked_they_are_zero() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert masked_mean(torch.full((2, 3), torch.nan), nothing, -1).tolist() == [0.0, 0.0]
    assert not standardise(torch.full((2, 3), torch.nan), nothing, -1).any()


def test_a_constant_is_standardised_to_zero() -> None:
    assert not standardise(torch.full((2, 3), 7.0), torch.ones(2, 3, dtype=torch.bool)).any()


def test_the_first_steps_of_a_sequence_are_taken() -> None:
    assert sequence_mask(torch.tensor([0, 2]), 3).tolist() == [[False, False, False], [True, True, False]]
