"""`metarl.fewshot.load`: the trained few-shot learner of a run's folder, to be shown examples of anything."""

import dataclasses
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot import learners
from metarl.fewshot.benchmarks import Problem
from metarl.fewshot.dataset import as_examples, normalised
from metarl.fewshot.examples import Examples, TaskSignature
from metarl.fewshot.learner import BatchNorm, FewShotLearner, Predictor
from metarl.learning.protocols import State
from metarl.runs import checkpoints, run_folder
from metarl.runs.trained import Which

LEARNER = "fewshot-"
"""What the names of few-shot learners begin with in a run's config."""


@final
@dataclasses.dataclass(frozen=True)
class TaskRecord:
    """What a run's config says of the tasks, so that no data are needed to use the learner."""

    signature: TaskSignature
    mean: tuple[float, ...]
    std: tuple[float, ...]


def described(problem: Problem) -> dict[str, object]:
    """The record of a problem's tasks, for a run's config."""
    mean, std = problem.normalisation
    return dataclasses.asdict(TaskRecord(problem.signature, mean, std))


@final
@dataclasses.dataclass(frozen=True)
class TrainedFewShot:
    """A few-shot learner as a run left it."""

    run: run_folder.Run
    """The run's folder and its config."""
    learner: FewShotLearner
    state: State
    """What it has learned."""
    tasks: TaskRecord
    """What it was trained for."""
    device: str

    def adapt(
        self,
        examples: Shaped[np.ndarray, "example ..."],
        targets: Shaped[np.ndarray, "target ..."],
        batch_norm: BatchNorm | None = None,
    ) -> "AdaptedFewShot":
        """The learner after it has seen a few examples; it changes nothing here.

        Args:
            examples: uint8 images [example, height, width] or [example, height, width, channel], or vectors
                [example, feature]: such as it was trained on.
            targets: the class of each, 0, 1, ..., every one at least once; or the values of a regression.
            batch_norm: one of `learner.batch_norms`; the first, if not given.

        Raises:
            ValueError: examples or targets of another kind than it was trained on.
        """
        signature = self.tasks.signature
        if len(targets) != len(examples):
            raise ValueError(f"{len(examples)} examples but {len(targets)} targets")
        if signature.kind == "classification":
            wanted = torch.from_numpy(_ways(targets, signature, any_ways=self.learner.training.any_ways))
        else:
            wanted = torch.from_numpy(targets.astype(np.float32).reshape(len(targets), signature.outputs))
        support = Examples(self.inputs(examples), wanted[None].to(self.device))
        kind = self.learner.batch_norms[0] if batch_norm is None else batch_norm
        return AdaptedFewShot(self, self.learner.adapt(self.state, support, kind))

    def inputs(self, examples: Shaped[np.ndarray, "example ..."]) -> Float[Tensor, "1 example ..."]:
        """Examples as the learner takes them, as those of one task."""
        found = as_examples(examples)
        if tuple(found.shape[1:]) != self.tasks.signature.shape:
            raise ValueError(
                f"trained on examples of {_size(self.tasks.signature.shape)}, got {_size(tuple(found.shape[1:]))}"
            )
        return normalised(found.to(self.device), self.tasks.mean, self.tasks.std)[None]


@final
@dataclasses.dataclass(frozen=True)
class AdaptedFewShot:
    """A few-shot learner that has seen the examples of one task."""

    trained: TrainedFewShot
    predictor: Predictor

    def predict(self, examples: Shaped[np.ndarray, "query ..."]) -> Float[np.ndarray, "query output"]:
        """The probability of each class, or the values of a regression."""
        values = self.predictor.predict(self.trained.inputs(examples)).detach()[0]
        if self.trained.tasks.signature.kind == "classification":
            values = torch.softmax(values, dim=-1)
        return values.cpu().numpy()


def load(folder: Path | str, which: Which = "last", device: str = "cpu") -> TrainedFewShot:
    """The trained few-shot learner of a run.

    Raises:
        UsageError: no run there, no checkpoint yet, or not of a few-shot learner.
        RunError: every checkpoint is damaged, or the config is not one of this version.
    """
    run = run_folder.read(Path(folder))
    experiment = run.config.experiment
    name = experiment.learner.removeprefix(LEARNER)
    if not experiment.learner.startswith(LEARNER) or name not in learners.CONFIGS:
        raise UsageError(f"{folder} is a run of {experiment.learner}, not of a few-shot learner; see metarl.load")
    config = run_folder.options_from_json(learners.CONFIGS[name], experiment.options.get("agent"), run.folder)
    tasks = run_folder.options_from_json(TaskRecord, experiment.options.get("tasks"), run.folder)
    find = checkpoints.latest if which == "last" else checkpoints.best
    saved = find(run.checkpoints)
    if saved is None:
        raise UsageError(f"{folder} has no {'' if which == 'last' else 'validated '}checkpoint yet; train it first")
    learner = learners.make(config, tasks.signature, device)
    return TrainedFewShot(run, learner, saved.state.to(device), tasks, device)


def _ways(
    targets: Shaped[np.ndarray, "example ..."], signature: TaskSignature, *, any_ways: bool
) -> Shaped[np.ndarray, " example"]:
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(
            f"targets must be one integer an example, got {targets.dtype} with shape {list(targets.shape)}"
        )
    there = sorted({int(target) for target in targets})
    if there != list(range(len(there))) or len(there) < 2:
        raise ValueError(f"targets must be 0, 1, ... with every one there, and at least two; got {there}")
    if len(there) != signature.ways and not any_ways:
        raise ValueError(f"this learner has an output for each of its {signature.ways} ways, got {len(there)} classes")
    return targets.astype(np.int64)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
