"""Encoding the examples of several tasks one task after the other."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.encoders.encoder import Encoded, Statistics
from metarl.learning.protocols import Parameters

EncodeOne = Callable[[Parameters, Tensor, Statistics | None], Encoded]
"""Encodes one batch of examples, by parameters and statistics without a task axis."""


def encode_task_by_task(
    encode: EncodeOne,
    axes: Mapping[str, int],
    parameters: Parameters,
    inputs: Float[Tensor, "task example ..."],
    statistics: Statistics | None,
    *,
    normalises: bool = True,
) -> Encoded:
    """Each task's examples, normalised by themselves; all in one batch where no task has anything of its own.

    Args:
        encode: encodes one batch.
        axes: how many axes each parameter has where tasks share it; it has one more where they have their own.
        parameters: of the encoder.
        inputs: the examples of every task.
        statistics: what normalises them, shared or by task; None for each task's own.
        normalises: whether the encoder has batch norm.
    """
    shared = all(value.ndim == axes[name] for name, value in parameters.items())
    alike = not normalises or (statistics is not None and all(mean.ndim == 1 for mean, _ in statistics.values()))
    if shared and alike:
        features, taken = encode(parameters, inputs.flatten(0, 1), statistics)
        return Encoded(features.unflatten(0, inputs.shape[:2]), taken)
    tasks: list[Encoded] = []
    for task, examples in enumerate(inputs):
        own = {name: _of(task, value, axes[name]) for name, value in parameters.items()}
        given = statistics
        if statistics is not None:
            given = {name: (_of(task, mean, 1), _of(task, var, 1)) for name, (mean, var) in statistics.items()}
        tasks.append(encode(own, examples, given))
    taken = statistics or {
        name: (
            torch.stack([encoded.statistics[name][0] for encoded in tasks]),
            torch.stack([encoded.statistics[name][1] for encoded in tasks]),
        )
        for name in tasks[0].statistics
    }
    return Encoded(torch.stack([encoded.features for encoded in tasks]), taken)


def _of(task: int, value: Tensor, axes: int) -> Tensor:
    """What the task has, its own where there is an axis of tasks in front of so many."""
    return value[task] if value.ndim > axes else value
