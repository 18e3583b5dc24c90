"""Noise of its own for every task, so that a task's trial does not depend on the tasks beside it."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK = 32  # steps whose noise is drawn at once


def task_seeds(*path: int, num_tasks: int) -> tuple[int, ...]:
    """A seed for each task of a batch, from what leads to it: the run's seed and the outer step, for example.

    >>> task_seeds(0, 7, num_tasks=2) == task_seeds(0, 7, num_tasks=3)[:2]
    True
    """
    # From 1: to NumPy a sequence and the same one with a zero at its end are one seed.
    sequences = (np.random.SeedSequence([*path, number]) for number in range(1, num_tasks + 1))
    return tuple(int(sequence.generate_state(1, np.uint64)[0]) for sequence in sequences)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds the global generators of PyTorch and NumPy, which other people's code draws from, and puts them back."""
    before = np.random.get_state()  # noqa: NPY002
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


@final
class TaskRandom:
    """Streams of random numbers, one for each task of a batch, drawn side by side.

    A task's numbers follow from its seed and from how many were asked for before, whatever the other tasks are. They
    are drawn on the CPU in blocks of many steps: a generator a task and step would cost more than a small policy.
    """

    def __init__(self, seeds: Sequence[int], num_episodes: int, device: torch.device | str = "cpu") -> None:
        """`seeds` holds one for each task; numbers come for `num_episodes` episodes a task, on `device`."""
        self._generators = [np.random.default_rng(seed) for seed in seeds]
        self._num_episodes = num_episodes
        self._device = device
        self._blocks: dict[tuple[str, int], tuple[Tensor, int]] = {}

    def normal(self, size: int) -> Float[Tensor, "task episode {size}"]:
        """Independent numbers of N(0, 1)."""
        return self._next("normal", size)

    def uniform(self, size: int) -> Float[Tensor, "task episode {size}"]:
        """Independent numbers of U[0, 1)."""
        return self._next("uniform", size)

    def _next(self, kind: Literal["normal", "uniform"], size: int) -> Tensor:
        block, used = self._blocks.get((kind, size), (None, _BLOCK))
        if block is None or used == _BLOCK:
            block, used = self._draw(kind, size), 0
        self._blocks[kind, size] = block, used + 1
        return block[used]

    def _draw(self, kind: Literal["normal", "uniform"], size: int) -> Tensor:
        numbers = np.empty((_BLOCK, len(self._generators), self._num_episodes, size), dtype=np.float32)
        for task, generator in enumerate(self._generators):
            shape = (_BLOCK, self._num_episodes, size)
            draw = generator.standard_normal if kind == "normal" else generator.random
            numbers[:, task] = draw(shape, dtype=np.float32)
        return torch.from_numpy(numbers).to(self._device)
