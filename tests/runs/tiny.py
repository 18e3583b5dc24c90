"""A learner that takes no time and has all that a run must keep: parameters, optimiser, store, random numbers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.learning.protocols import Metrics, State
from metarl.learning.store import Store
from metarl.runs.provenance import Environment
from metarl.runs.run_folder import Config, Experiment, Run
from metarl.runs.session import RunRequest, TrainingOptions

HERE = Environment(1, {"python": "3.11.7", "torch": "2.13.0"}, "abc123", dirty=False)


class Noise(NamedTuple):
    """An experience: numbers that were drawn."""

    values: Tensor

    def metrics(self) -> Metrics:
        return {"env_steps": 10}


@dataclasses.dataclass(frozen=True)
class Source:
    """Draws them."""

    on_collect: Callable[[int], object] = lambda step: None
    """Called with the number of outer steps done."""

    def collect(self, learner: "Tiny", state: State, seed: int, step: int) -> Noise:
        self.on_collect(step)
        generator = np.random.default_rng([seed, step, 1])
        return Noise(torch.from_numpy(generator.normal(size=learner.width)))


@dataclasses.dataclass(frozen=True)
class Tiny:
    """Moves towards what it has stored, with momentum."""

    width: int = 3
    capacity: int | None = 5
    """Chunks of its store; None for all; 0 for no store."""
    meta_batch: int = 1
    progress_keys: tuple[str, ...] = ("distance",)

    def init(self, seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(self.width, generator=generator, dtype=torch.float64)
        return State({"w": weights, "a.count": torch.tensor(0)}, {"momentum": torch.zeros(self.width)})

    def start(self, state: State, num_tasks: int) -> object:
        return self

    def meta_step(self, state: State, experience: Noise, rng: np.random.Generator) -> tuple[State, Metrics]:
        store = state.store
        if self.capacity != 0:
            store = store.append({"values": experience.values, "age": torch.tensor(store.total)}, self.capacity)
        target = experience.values if not store.chunks else store.chunks[int(rng.integers(len(store.chunks)))]["values"]
        difference = target - state.parameters["w"]
        momentum = 0.9 * state.optimizer["momentum"] + difference.float()
        weights = state.parameters["w"] + 0.1 * momentum.double() + 0.01 * float(rng.normal())
        parameters = {"w": weights, "a.count": state.parameters["a.count"] + 1}
        return State(parameters, {"momentum": momentum}, store), {"distance": float(difference.norm())}


def validate(state: State) -> Metrics:
    """Best where the weights are small."""
    return {"validation": -float(state.parameters["w"].norm()), "validation_before": 0.0}


EXPERIMENT = Experiment(
    "agent", "maml", {"learner": {"inner_lr": 0.1, "policy": {"hidden": [64, 64]}}}, "point-navigation", "0123", seed=3
)


def make_run(folder: Path, experiment: Experiment = EXPERIMENT, steps: int = 100) -> Run:
    """A run whose folder is there, without a `config.json`."""
    folder.mkdir(exist_ok=True, parents=True)
    return Run(folder, Config(experiment, steps, (HERE,)))


def make_state(seed: int = 0, chunks: int = 0) -> State:
    """Tensors of many kinds."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(20, generator=generator)
    store = Store()
    for number in range(chunks):
        store = store.append({"z": torch.full((2,), float(number)), "a": torch.tensor([number])})
    return State(
        {"z.weight": flat[:12].view(3, 4), "a.bias": flat[12:], "count": torch.tensor(3), "none": torch.empty(0, 2)},
        {"moment": torch.randn(5, generator=generator, dtype=torch.float64), "mask": torch.tensor([True, False])},
        store,
    )


def check_equal(left: State, right: State) -> None:
    """The same tensors in the same order, chunks too."""
    pairs = [(left.parameters, right.parameters), (left.optimizer, right.optimizer)]
    pairs += zip(left.store.chunks, right.store.chunks, strict=True)
    assert left.store.dropped == right.store.dropped
    for one, other in pairs:
        assert list(one) == list(other)
        for name, tensor in one.items():
            assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name])


def request(folder: Path, steps: int, *, seed: int = 5, **training: int) -> RunRequest:
    """What a program would ask for, to train `Tiny`."""
    options = TrainingOptions(**({"steps": steps, "checkpoint_every": 4, "validate_every": 5} | training))
    return RunRequest(folder, "agent", "tiny", {"learner": {"width": 3}}, "noise", "0123", options, seed=seed)
