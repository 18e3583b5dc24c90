"""Batches in which no entry's result depends on its company, bit for bit in float32 on the CPU.

Matrix products promise no such thing: BLAS picks its kernel by the shape, and kernels sum in different orders. With
MKL's, measured for widths of 1 to 400 on one and on two threads:

- The rows of x Wᵀ come out alike in every batch of at least 16 rows, and so do GRU's and LSTM's; with fewer rows, or
  where W has one row, they do not. So rows that share weights are padded to a multiple of 16 (`pad_rows`), and a layer
  of one output is summed row by row (`policies.Linear`). Inputs are contiguous: for views PyTorch adds the bias last.
- Products of a batch of matrices come out alike in every batch of at least two; one alone takes another path, and a
  reduction to a single number is split over threads. So one task with weights of its own is computed as two
  (`pad_tasks`).

On other processors than Intel's, MKL also picks kernels by a matrix's alignment, and a matrix of a batch has another
one than alone (seen on AMD's for widths of 9 and 17). `metarl/__init__.py` asks MKL for sums that do not depend on it.
There, a product of 20 columns also depends on PyTorch's number of threads; every program keeps that at one.

tests/agents/test_sharding.py holds the agents to it.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

AnyTuple = TypeVar("AnyTuple", bound=tuple[Tensor, ...])
_ROWS = 16


def map_tensors(function: Callable[[Tensor], Tensor], tensors: AnyTuple) -> AnyTuple:
    """A named tuple of the same kind, with the function applied to each of its tensors."""
    return type(tensors)(*(function(tensor) for tensor in tensors))


def pad_rows(x: Shaped[Tensor, "row *rest"]) -> Shaped[Tensor, "padded *rest"]:
    """Rows of zeros added, up to a multiple of 16."""
    missing = -len(x) % _ROWS
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def pad_tasks(x: Shaped[Tensor, "task *rest"]) -> Shaped[Tensor, "padded *rest"]:
    """One task twice over; more of them as they are."""
    return torch.cat([x, x]) if len(x) == 1 else x
