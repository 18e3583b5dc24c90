"""The training loop on the smallest learner there is, and the store."""

import dataclasses

import numpy as np
import pytest
import torch

from metarl.agents import PpoConfig
from metarl.errors import RunError
from metarl.learning.collect import Collector
from metarl.learning.protocols import Metrics, State
from metarl.learning.random_streams import TaskRandom, task_seeds
from metarl.learning.sources import TrialSource
from metarl.learning.store import Store
from metarl.learning.training import outer_steps
from tests.agents.toys import Toy, box


@dataclasses.dataclass(frozen=True)
class Number:
    """One number as experience."""

    value: float

    def metrics(self) -> Metrics:
        return {"value": self.value}


@dataclasses.dataclass(frozen=True)
class Adder:
    """Adds what it is given, times a number of its own drawing; keeps everything in its store."""

    meta_batch: int = 1
    progress_keys = ("value",)
    adaptation_name = "nothing"

    def init(self, seed: int) -> State:
        return State({"sum": torch.zeros(1)}, {})

    def start(self, state: State, num_tasks: int) -> None:
        return None

    def meta_step(self, state: State, experience: Number, rng: np.random.Generator) -> tuple[State, Metrics]:
        store = state.store.append({"value": torch.tensor([experience.value])}, capacity=2)
        total = state.parameters["sum"] + experience.value * float(rng.uniform(1, 2))
        return State({"sum": total}, {}, store), {"sum": float(total)}


@dataclasses.dataclass(frozen=True)
class Numbers:
    """(seed, step) as one number; another from a step on."""

    other_from: int = 100
    other: float = 0.0

    def collect(self, learner: object, state: State, seed: int, step: int) -> Number:
        return Number(self.other if step >= self.other_from else 10.0 * seed + step)


def test_a_run_that_goes_on_is_the_run_that_never_stopped() -> None:
    learner = Adder()
    whole = list(outer_steps(learner, Numbers(), learner.init(0), seed=3, start=0, stop=6))
    first = list(outer_steps(learner, Numbers(), learner.init(0), seed=3, start=0, stop=4))
    rest = list(outer_steps(learner, Numbers(), first[-1].state, seed=3, start=4, stop=6))
    assert [step.step for step in (*first, *rest)] == [1, 2, 3, 4, 5, 6]
    assert [step.metrics for step in (*first, *rest)] == [step.metrics for step in whole]
    assert torch.equal(rest[-1].state.parameters["sum"], whole[-1].state.parameters["sum"])
    other = list(outer_steps(learner, Numbers(), learner.init(0), seed=4, start=0, stop=6))
    assert other[-1].metrics["sum"] != whole[-1].metrics["sum"]


def test_a_parameter_that_is_no_longer_finite_stops_the_run() -> None:
    learner = Adder()
    steps = outer_steps(learner, Numbers(2, 3.4e38), learner.init(0), seed=0, start=0, stop=5)
    assert [next(steps).step, next(steps).step] == [1, 2]
    with pytest.raises(RunError, match="parameter sum is no longer finite after step 3"):
        next(steps)


def test_experience_that_is_not_finite_is_not_blamed_on_the_learning_rate() -> None:
    learner = Adder()
    steps = outer_steps(learner, Numbers(0, float("inf")), learner.init(0), seed=0, start=0, stop=5)
    with pytest.raises(RunError, match="value is infinite in the experience of step 1: its source is at fault"):
        next(steps)


def test_a_store_counts_what_it_dropped_and_leaves_its_forerunner_alone() -> None:
    stores = [Store()]
    for number in range(4):
        stores.append(stores[-1].append({"x": torch.tensor([number])}, capacity=2))
    assert [store.total for store in stores] == [0, 1, 2, 3, 4]
    assert [store.dropped for store in stores] == [0, 0, 0, 1, 2]
    assert [int(chunk["x"]) for chunk in stores[4].chunks] == [2, 3]
    assert [int(chunk["x"]) for chunk in stores[2].chunks] == [0, 1]
    assert stores[4].chunks[0] is stores[3].chunks[1]
    with pytest.raises(ValueError, match="at least 1 chunk, got 0"):
        Store().append({}, capacity=0)


def test_a_tasks_noise_follows_from_its_seed_alone() -> None:
    seeds = task_seeds(0, 7, num_tasks=3)
    assert len({*seeds, *task_seeds(0, 8, num_tasks=3), *task_seeds(0, num_tasks=3)}) == 9
    assert task_seeds(0, 7, num_tasks=5)[:3] == seeds
    together, alone = TaskRandom(seeds, 2), TaskRandom(seeds[1:2], 2)
    for step in range(70):  # over the ends of blocks
        draw = "normal" if step % 3 else "uniform"
        ours, its = getattr(together, draw)(4), getattr(alone, draw)(4)
        assert torch.equal(ours[1:2], its)
    draws = torch.cat([together.normal(4).flatten() for _ in range(200)])
    assert abs(float(draws.mean())) < 0.1 and abs(float(draws.std()) - 1) < 0.1
    assert len(draws.unique()) > 0.99 * len(draws)


def test_every_outer_step_of_a_run_has_tasks_and_noise_of_its_own() -> None:
    toy = Toy(box(1), horizon=3)
    ppo = PpoConfig(meta_batch=4, hidden=(4,)).build(toy.spaces)
    source, state = TrialSource(toy, Collector(toy)), ppo.init(0)
    trials = [source.collect(ppo, state, seed, step) for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert len({each.tasks for each in trials}) == 3 and trials[0].tasks == trials[3].tasks
    noises = [each.query.actions for each in trials]
    assert torch.equal(noises[0], noises[3])
    assert not any(torch.isclose(noises[i], noises[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))
