"""How a trained learner's accuracy falls when something is wrong with a task: one curve for each kind of fault.

    label-noise     a share of the support's labels is wrong
    noise           Gaussian noise on all images, of this standard deviation where black is 0 and white 1; on vectors,
                    in standard deviations of a feature
    blur            a Gaussian blur of all images, px
    fgsm-query      the queries attacked within ±ε (in units as noise), knowing the learner and the right answers
    pgd-query       the same in several steps
    fgsm-support    the support attacked within ±ε so that the queries, untouched, are answered wrong; labels stay right
    pgd-support     the same in several steps
    imbalance       as many support examples in all, the classes' numbers rising linearly: 1 − x to 1 + x of the shots

All conditions have the same tasks with the same examples, and what is drawn for a task follows from the evaluation's
seed and the task's number: differences are paired.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal, final, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.evaluation.judge import EvaluationSettings, OnProgress
from metarl.fewshot import attacks, corruptions, judging, losses
from metarl.fewshot.attacks import Box
from metarl.fewshot.benchmarks import ClassificationBenchmark
from metarl.fewshot.class_tasks import ClassTasks
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.examples import Examples
from metarl.fewshot.learner import AdaptedPredictor, DifferentiablePredictor, FewShotLearner
from metarl.fewshot.sampler import inputs
from metarl.learning.protocols import State
from metarl.tasks import Task

Kind = Literal["label-noise", "noise", "blur", "fgsm-query", "pgd-query", "fgsm-support", "pgd-support", "imbalance"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEVELS_OF: Mapping[Kind, str] = {
    "label-noise": "label_noise",
    "noise": "noise",
    "blur": "blur",
    "fgsm-query": "epsilon",
    "pgd-query": "epsilon",
    "fgsm-support": "epsilon",
    "pgd-support": "epsilon",
    "imbalance": "imbalance",
}
"""The option of `FaultLevels` that says how much there is of a fault."""
PGD: tuple[Kind, ...] = ("pgd-query", "pgd-support")
"""The faults that `FaultLevels.attack_steps` is about."""
_ATTACKED_AT_ONCE = 4  # tasks; graphs through adaptation are large


@final
@dataclasses.dataclass(frozen=True)
class FaultLevels:
    """How much of each fault; 0, nothing, is always measured too."""

    label_noise: tuple[float, ...] = (0.1, 0.2, 0.5)
    """Shares of the support's labels that are wrong."""
    noise: tuple[float, ...] = (0.1, 0.2, 0.4)
    """Standard deviations of the noise: of images in [0, 1], or in standard deviations of a feature."""
    blur: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Standard deviations of the blur, px."""
    epsilon: tuple[float, ...] = (0.02, 0.05, 0.1)
    """How far attacks move a pixel (in [0, 1]), or a feature in its standard deviations."""
    imbalance: tuple[float, ...] = (0.4, 0.8)
    """Spread of the classes' numbers of support examples: of 5 shots, 0.4 is 3 to 7 and 0.8 is 1 to 9."""
    attack_steps: int = 10
    """Steps of PGD."""

    def __post_init__(self) -> None:
        for name, most in (("label_noise", 0.5), ("imbalance", 1.0), ("noise", 1e6), ("blur", 1e3), ("epsilon", 1e6)):
            for level in getattr(self, name):
                if not 0 < level <= most:
                    raise ValueError(f"--{name.replace('_', '-')} must be above 0 and at most {most:g}, got {level}")
        checks.count(attack_steps=self.attack_steps)

    def of(self, kind: Kind) -> tuple[float, ...]:
        """The levels of one fault, from 0 on."""
        return (0.0, *sorted(getattr(self, LEVELS_OF[kind])))


def impossible(benchmark: ClassificationBenchmark) -> dict[Kind, str]:
    """The faults that no task of a benchmark can have, and why."""
    reasons = dict[Kind, str]()
    if not benchmark.data.images:
        reasons["blur"] = "vectors cannot be blurred"
    if benchmark.shots == 1:
        reasons["imbalance"] = "with one shot no class can have fewer (--shots 5 gives more)"
    return reasons


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Faults:
    """Tasks of a benchmark with every fault."""

    benchmark: ClassificationBenchmark
    levels: FaultLevels = FaultLevels()
    kinds: tuple[Kind, ...] = KINDS

    def __post_init__(self) -> None:
        for kind, reason in impossible(self.benchmark).items():
            if kind in self.kinds:
                raise ValueError(f"{reason}: leave {kind} out of --kinds")
        self.draws.check("test")

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        """The tasks, those of the benchmark's evaluations."""
        return self.benchmark.tasks(settings)

    def measure(
        self, learner: FewShotLearner, state: State, settings: EvaluationSettings, on_progress: OnProgress
    ) -> Mapping[Kind, Float[np.ndarray, "level task"]]:
        """Each task's accuracy after adaptation, for every kind and level.

        Raises:
            ValueError: the learner cannot be attacked: its predictions have no gradients.
        """
        mode = judging.batch_norm_of(learner, settings)
        predictor = learner.start(state, 1)
        attacked = [kind for kind in self.kinds if _is_attack(kind)]
        if attacked and not isinstance(predictor, DifferentiablePredictor):
            raise ValueError(f"this learner gives no gradients, which {attacked[0]} needs: leave it out of --kinds")
        tasks = self.tasks(settings)
        found: dict[Kind, list[list[Float[np.ndarray, " task"]]]] = {
            kind: [[] for _ in self.levels.of(kind)] for kind in self.kinds
        }
        size = min(_ATTACKED_AT_ONCE, len(tasks)) if attacked else judging.chunk_size(self._numbers)
        for number, chunk in enumerate(judging.chunks(len(tasks), size)):
            kept = min(size, len(tasks) - number * size)
            part = _Part(self, learner, state, mode, tuple(tasks[index] for index in chunk), settings.seed)
            clean = part.accuracy(None, 0.0)[:kept]
            for kind, columns in found.items():
                for column, level in zip(columns, self.levels.of(kind), strict=True):
                    column.append(part.accuracy(kind, level)[:kept] if level else clean)
            on_progress((number * size + kept) / len(tasks))
        return {
            kind: np.stack([np.concatenate(column) for column in columns]).astype(np.float64)
            for kind, columns in found.items()
        }

    @functools.cached_property
    def draws(self) -> ClassTasks:
        """Tasks with as many support examples of a class as the greatest imbalance needs."""
        spreads = self.levels.imbalance if "imbalance" in self.kinds else ()
        most = max(max(self.shots(spread)) for spread in (0.0, *spreads))
        queries = self.benchmark.options.evaluated.queries
        return ClassTasks(self.benchmark.data, self.benchmark.ways, most, queries)

    def shots(self, spread: float) -> tuple[int, ...]:
        """Support examples of each class."""
        return corruptions.linear_shots(self.benchmark.ways, self.benchmark.shots, spread)

    @property
    def _numbers(self) -> int:
        examples = self.benchmark.ways * (self.benchmark.shots + self.benchmark.options.evaluated.queries)
        return examples * int(np.prod(self.benchmark.data.shape))


@final
class _Part:
    """A few tasks, and what a learner makes of them."""

    def __init__(
        self,
        faults: Faults,
        learner: FewShotLearner,
        state: State,
        mode: str,
        tasks: tuple[Task, ...],
        seed: int,
    ) -> None:
        self.faults, self.learner, self.state, self.mode = faults, learner, state, mode
        self.numbers = [int(task.number("index")) for task in tasks]
        self.seed, self.data = seed, faults.benchmark.data
        self.draw = faults.draws.draw(tasks, seed, 0)
        self.query = inputs(self.data, self.draw.query)

    def accuracy(self, kind: Kind | None, level: float) -> Float[np.ndarray, " task"]:
        """The share of each task's queries that are answered right."""
        spread = level if kind == "imbalance" else 0.0
        chosen = corruptions.first_of_each(self.draw.support_targets, self.faults.shots(spread))
        numbers, labels = (np.take_along_axis(each, chosen, axis=1) for each in self.draw[:2])
        support, query = inputs(self.data, numbers), self.query
        if kind == "label-noise":
            pairs = zip(labels, self._generators(1), strict=True)
            labels = np.stack([corruptions.exchanged_labels(row, level, rng) for row, rng in pairs])
        elif kind == "noise":
            support, query = (self._noisy(x, level, stream) for stream, x in ((2, support), (3, query)))
        elif kind == "blur":
            support, query = (_blurred(x, level) for x in (support, query))
        targets = torch.from_numpy(labels).to(support.device)
        if kind is not None and _is_attack(kind):
            support, query = self._attacked(kind, level, Examples(support, targets), query)
        logits = self._adapted(Examples(support, targets)).predict(query)
        right = logits.argmax(-1).cpu().numpy() == self.draw.query_targets
        return right.mean(axis=1)

    def _adapted(self, support: Examples, *, gradients: bool = False) -> AdaptedPredictor:
        predictor = self.learner.start(self.state, len(support.inputs)).with_batch_norm(self.mode)
        if gradients:
            assert isinstance(predictor, DifferentiablePredictor), "it was asked before"
            predictor = predictor.with_gradients()
        for _ in range(self.learner.num_adaptations):
            predictor = predictor.adapt(support)
        return predictor

    def _attacked(self, kind: Kind, level: float, support: Examples, query: Tensor) -> tuple[Tensor, Tensor]:
        """The support's inputs and the queries, one of the two moved."""
        answers = torch.from_numpy(self.draw.query_targets).to(query.device)
        shown, box = support.inputs, self._box(level)
        if kind.endswith("query"):
            adapted = self._adapted(support, gradients=True)

            def loss(x: Tensor) -> Tensor:
                return losses.per_task_loss(adapted.predict(x), Examples(x, answers)).sum()

            return shown, self._moved(kind, loss, query, box, 4)

        def loss_of_support(x: Tensor) -> Tensor:
            adapted = self._adapted(support._replace(inputs=x), gradients=True)
            return losses.per_task_loss(adapted.predict(query), Examples(query, answers)).sum()

        return self._moved(kind, loss_of_support, shown, box, 5), query

    def _moved(self, kind: Kind, loss: Callable[[Tensor], Tensor], x: Tensor, box: Box, stream: int) -> Tensor:
        if kind.startswith("fgsm"):
            return attacks.fgsm(loss, x, box)
        start = np.stack([rng.uniform(-1, 1, x.shape[1:]) for rng in self._generators(stream)])
        return attacks.pgd(loss, x, box, self.faults.levels.attack_steps, torch.from_numpy(start).to(x))

    def _box(self, level: float) -> Box:
        unit = units(self.data)
        if not self.data.images:
            return Box(level * unit)
        mean = torch.tensor(self.data.mean or (0.0,) * self.data.shape[0], device=unit.device)[:, None, None]
        return Box(level * unit, -mean * unit, (1 - mean) * unit)

    def _noisy(self, x: Tensor, level: float, stream: int) -> Tensor:
        noise = np.stack([rng.normal(size=x.shape[1:]) for rng in self._generators(stream)])
        box = dataclasses.replace(self._box(level), epsilon=torch.full_like(units(self.data), torch.inf))
        return box.project(x + level * units(self.data) * torch.from_numpy(noise).to(x), x)

    def _generators(self, stream: int) -> list[np.random.Generator]:
        """One for each task."""
        return [np.random.default_rng([self.seed, stream, number + 1]) for number in self.numbers]


def units(data: FewShotDataset) -> Float[Tensor, "..."]:
    """What 1 is to a learner: from black to white in each channel, or the standard deviation of each feature."""
    std = torch.tensor(data.std, device=data.examples.device) if data.std else None
    if data.images:
        return torch.ones(data.shape[0], 1, 1, device=data.examples.device) if std is None else 1 / std[:, None, None]
    spread = data.examples.std(0)
    return spread if std is None else spread / std


def _blurred(x: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(corruptions.blurred(x.cpu().numpy(), sigma)).to(x)


def _is_attack(kind: Kind) -> bool:
    return kind.startswith(("fgsm", "pgd"))
