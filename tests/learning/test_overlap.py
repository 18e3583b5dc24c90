"""Training that collects the next step's experience while it learns from this one's."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents import AgentConfig, PpoConfig, Rl2PpoConfig, VaribadConfig
from metarl.agents.ppo import Ppo
from metarl.learning.collect import Collector
from metarl.learning.episodes import Trials
from metarl.learning.overlap import overlapping_steps
from metarl.learning.protocols import Learner, Metrics, OffPolicyLearner, Parameters, State
from metarl.learning.sources import TrialSource
from metarl.learning.training import OuterStep
from tests.agents.toys import Toy, box
from tests.agents.worlds import collect, lively

PATIENCE = 30.0  # seconds until a thread that should come is given up
SMALL = [
    PpoConfig(meta_batch=4, hidden=(8,), epochs=1, minibatches=1),
    Rl2PpoConfig(meta_batch=4, hidden=8, epochs=1, minibatches=1),
    Rl2PpoConfig(meta_batch=4, hidden=8, epochs=1, minibatches=1, reward_scale="family", critic="separate"),
    VaribadConfig(meta_batch=4, hidden=(8,), encoder_hidden=8, latent=2, epochs=1, minibatches=1, elbo_updates=1),
]


@dataclasses.dataclass(frozen=True)
class Played:
    """An experience that says which parameters it was collected with."""

    by: float
    step: int

    def metrics(self) -> Metrics:
        return {"by": self.by}


@dataclasses.dataclass(frozen=True)
class Source:
    """Collects it."""

    on_collect: Callable[[int], object] = lambda step: None

    def collect(self, learner: object, state: State, seed: int, step: int) -> Played:
        self.on_collect(step)
        return Played(float(state.parameters["steps"]), step)


@dataclasses.dataclass(frozen=True)
class Counter:
    """Counts its steps, and says what it was given to learn from."""

    meta_batch: int = 1
    progress_keys: tuple[str, ...] = ()
    on_step: Callable[[int], object] = lambda step: None

    def init(self, seed: int) -> State:
        return State({"steps": torch.zeros(1)}, {})

    def start(self, state: State, num_tasks: int) -> None:
        return None

    def meta_step(self, state: State, experience: Played, rng: np.random.Generator) -> tuple[State, Metrics]:
        raise AssertionError("it is never told which parameters played")

    def off_policy_meta_step(
        self, state: State, behaviour: Parameters, experience: Played, rng: np.random.Generator
    ) -> tuple[State, Metrics]:
        self.on_step(experience.step)
        told = {"told": float(behaviour["steps"]), "step": experience.step, "drawn": float(rng.random())}
        return State({"steps": state.parameters["steps"] + 1}, {}), told


def run(
    state: State, start: int, stop: int, learner: Counter | None = None, source: Source | None = None
) -> list[OuterStep]:
    return list(overlapping_steps(learner or Counter(), source or Source(), state, seed=3, start=start, stop=stop))


def acted(step: OuterStep) -> Parameters:
    """The parameters that play the next step's experience."""
    assert step.state.behaviour is not None
    return step.state.behaviour


def test_experience_lags_one_step_behind_and_the_learner_is_told_whose_it_is() -> None:
    steps = run(Counter().init(0), 0, 5)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5]
    assert [step.metrics["step"] for step in steps] == [0, 1, 2, 3, 4]
    assert [step.metrics["by"] for step in steps] == [0, 0, 1, 2, 3]
    assert [step.metrics["told"] for step in steps] == [0, 0, 1, 2, 3]
    assert [float(step.state.parameters["steps"]) for step in steps] == [1, 2, 3, 4, 5]
    assert [float(acted(step)["steps"]) for step in steps] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stopped", [1, 2, 4])
def test_a_run_that_goes_on_is_the_run_that_never_stopped(stopped: int) -> None:
    whole = run(Counter().init(0), 0, 5)
    first = run(Counter().init(0), 0, stopped)
    rest = run(first[-1].state, stopped, 5)
    assert [step.metrics for step in (*first, *rest)] == [step.metrics for step in whole]
    assert acted(rest[-1]) == acted(whole[-1])


def test_the_next_step_is_collected_while_this_one_is_learned_from() -> None:
    collecting, learning = ([threading.Event() for _ in range(4)] for _ in range(2))

    def on_step(step: int) -> None:
        learning[step].set()
        if step < 3:
            assert collecting[step + 1].wait(PATIENCE), f"step {step + 1} is not collected while {step} is learned from"

    def on_collect(step: int) -> None:
        collecting[step].set()
        if step > 0:
            assert learning[step - 1].wait(PATIENCE), f"step {step - 1} is not learned from while {step} is collected"

    run(Counter().init(0), 0, 4, Counter(on_step=on_step), Source(on_collect))


def test_the_collecting_thread_has_a_learner_of_its_own() -> None:
    """A network is one object, into which a call puts the parameters while it runs."""
    agent, given = SMALL[0].build(Toy(box(2)).spaces), list[object]()
    assert isinstance(agent, OffPolicyLearner)

    @dataclasses.dataclass(frozen=True)
    class Recording:
        inner: TrialSource

        def collect(self, learner: Learner[Trials, object], state: State, seed: int, step: int) -> Trials:
            given.append(learner)
            return self.inner.collect(learner, state, seed, step)

    with contextlib.closing(Collector(Toy(box(2)))) as collector:
        source = Recording(TrialSource(Toy(box(2)), collector))
        list(overlapping_steps(agent, source, agent.init(0), seed=0, start=0, stop=2))
    networks = [learner.network for learner in (agent, *given) if isinstance(learner, Ppo)]
    assert len(networks) == 3 and networks[0] is not networks[1] and networks[0] is not networks[2]


def test_nothing_is_collected_while_the_caller_has_the_outcome() -> None:
    """The caller validates then, with the same simulators; and nothing is collected past the last step."""
    busy, seen = threading.Lock(), list[int]()

    def on_collect(step: int) -> None:
        with busy:
            seen.append(step)

    steps = overlapping_steps(Counter(), Source(on_collect), Counter().init(0), seed=0, start=0, stop=3)
    for outcome in steps:
        assert busy.acquire(blocking=False)
        assert seen == list(range(min(outcome.step + 1, 3)))
        busy.release()


def test_what_collecting_raises_comes_out_of_the_step() -> None:
    class DroppedError(BaseException):
        pass

    def drop(step: int) -> None:
        if step == 2:
            raise DroppedError

    steps = overlapping_steps(Counter(), Source(drop), Counter().init(0), seed=0, start=0, stop=5)
    assert next(steps).step == 1
    with pytest.raises(DroppedError):
        next(steps)


def moved(state: State, by: float) -> State:
    """With other parameters of the networks; the statistics as they were."""
    generator = torch.Generator().manual_seed(3)

    def other(name: str, value: Tensor) -> Tensor:
        fixed = name.startswith("input_")
        return value if fixed else value + by * torch.randn(value.shape, generator=generator)

    return dataclasses.replace(state, parameters={name: other(name, x) for name, x in state.parameters.items()})


@pytest.mark.parametrize("config", SMALL, ids=["ppo", "rl2", "rl2, family", "varibad"])
def test_ratios_are_to_the_probabilities_of_the_parameters_that_played(config: AgentConfig) -> None:
    """One pass over all: what it measures is measured before its first step, at the state's own parameters."""
    world = Toy(box(2), noise=1.0)
    agent = config.build(world.spaces)
    assert isinstance(agent, OffPolicyLearner)
    behaviour = lively(agent.init(0))
    trials = collect(agent, behaviour, world)
    rng = np.random.default_rng(0)
    same, on_policy = agent.off_policy_meta_step(behaviour, behaviour.parameters, trials, np.random.default_rng(0))
    plain, metrics = agent.meta_step(behaviour, trials, np.random.default_rng(0))
    assert metrics == on_policy and all(torch.equal(same.parameters[name], x) for name, x in plain.parameters.items())
    assert on_policy["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    _, off_policy = agent.off_policy_meta_step(moved(behaviour, 0.05), behaviour.parameters, trials, rng)
    assert off_policy["approx_kl"] > 1e-4
    # It learns from what is there: the explained variance is of the critic that acted.
    assert off_policy["explained_variance"] == on_policy["explained_variance"]


@pytest.mark.parametrize("config", SMALL, ids=["ppo", "rl2", "rl2, family", "varibad"])
def test_an_agents_overlapping_steps_are_those_of_a_plain_loop(config: AgentConfig) -> None:
    world = Toy(box(2))
    agent = config.build(world.spaces)
    assert isinstance(agent, OffPolicyLearner)
    with contextlib.closing(Collector(world)) as collector:
        source = TrialSource(world, collector)
        steps = list(overlapping_steps(agent, source, agent.init(0), seed=4, start=0, stop=3))
        state = acted = agent.init(0)
        for step in range(3):
            trials = source.collect(agent, acted, 4, step)
            rng = np.random.default_rng([4, step])
            learned, _ = agent.off_policy_meta_step(state, acted.parameters, trials, rng)
            acted, state = state, learned
            for name, value in state.parameters.items():
                assert torch.equal(value, steps[step].state.parameters[name]), (step, name)
