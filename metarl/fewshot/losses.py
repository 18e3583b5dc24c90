"""What a prediction is worth: the mean squared error of a regression, the cross-entropy of a classification."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.fewshot.examples import Examples


def per_task_loss(predicted: Float[Tensor, "*task example output"], examples: Examples) -> Float[Tensor, "*task"]:
    """The mean over a task's examples: of −log softmax(f)[y] where targets are ways, of (f − y)² where they are values.

    Nothing is summed over tasks, so that a gradient of the sum over tasks is each task's own.
    """
    if not examples.targets.is_floating_point():
        log_p = torch.log_softmax(predicted, -1)
        return -log_p.gather(-1, examples.targets[..., None]).mean((-2, -1))
    return torch.nn.functional.mse_loss(predicted, examples.targets, reduction="none").mean((-2, -1))


def accuracy(logits: Float[Tensor, "*task query way"], targets: Int[Tensor, "*task query"]) -> float:
    """The share of the queries whose largest logit is the right one."""
    return float((logits.argmax(-1) == targets).float().mean())
