"""Prints speed ratios against peers, all measured in this run: machines differ and drift, ratios carry over.

The peers of the sampling are Gymnasium's own vector environment and EnvPool (`pip install envpool`), each stepping
HalfCheetah-v5 with random actions on the same number of threads or processes. Rounds of all of them alternate; the
ratio is taken round by round, and its median is printed with its range. MAML's meta-update has learn2learn as its peer,
or a task loop that does the same (`benchmark_fewshot`).
"""

import contextlib
import dataclasses
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl import agents, envs, provenance
from metarl.agents import MamlTrpoConfig
from metarl.commands import benchmark_fewshot
from metarl.commands.options import Machine, parse
from metarl.envs import Outcome, Simulator
from metarl.files import encode_json, write_atomically
from metarl.tasks import Json, Task

_OURS, _GYMNASIUM, _ENVPOOL = "metarl", "gymnasium async", "envpool"
Stepper = Callable[[int], float]
"""Takes so many vector steps; gives environment steps a second."""


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """How thoroughly to measure."""

    num_envs: int = 256
    """Sub-environments of ours."""
    rounds: int = 5
    """Rounds; each measures every peer once."""
    seconds: float = 2.0
    """Least time that a peer is stepped in a round, s."""
    output: Path | None = None
    """Also write the raw numbers to this JSON file."""
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        if self.num_envs < 1 or self.rounds < 1 or not self.seconds > 0:
            raise ValueError(
                f"need num_envs >= 1, rounds >= 1 and seconds > 0, got {self.num_envs}, {self.rounds}, {self.seconds}"
            )


def program(arguments: Sequence[str], name: str) -> None:
    """Measures and prints."""
    options = parse(BenchmarkOptions, arguments, name, __doc__)
    options.machine.use()
    threads = options.machine.threads
    updates = benchmark_fewshot.measure(options.rounds)
    rates = sampling_rates(options)
    print(f"HalfCheetah-v5, {threads} threads or processes, environment steps/s, median of {options.rounds} rounds")
    for peer, values in rates.items():
        print(f"  {peer:16} {statistics.median(values):10,.0f}" + _against(peer, rates))
    if _ENVPOOL not in rates:
        print("  envpool          not measured: it is not installed (pip install envpool)")
    share, seconds = physics_share(threads)
    print(f"MAML-TRPO on cheetah-direction: {100 * share:.0f} % of an outer step's {seconds:.2f} s is physics")
    if options.output is not None:
        raw: dict[str, Json] = {
            "command": f"benchmark.py --num-envs {options.num_envs} --rounds {options.rounds} --threads {threads}",
            "environment": provenance.environment(threads).to_json(),
            "machine": platform.machine(),
            "steps_per_second": {peer: list(values) for peer, values in rates.items()},
            "meta_update_seconds": updates,
            "maml_trpo": {"physics_share": share, "outer_step_seconds": seconds},
        }
        write_atomically(options.output, encode_json(raw))
        print(f"written to {options.output}")


def _against(peer: str, rates: dict[str, list[float]]) -> str:
    """How many times faster ours is, round by round."""
    if peer == _OURS:
        return ""
    ratios = [ours / theirs for ours, theirs in zip(rates[_OURS], rates[peer], strict=True)]
    return f"   ours is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"


def sampling_rates(options: BenchmarkOptions) -> dict[str, list[float]]:
    """Environment steps a second of each peer in each round."""
    threads = options.machine.threads
    peers = {_OURS: _ours(options.num_envs, threads), _GYMNASIUM: _gymnasium(threads)}
    if importlib.util.find_spec("envpool") is not None:
        peers[_ENVPOOL] = _envpool(threads)
    rates: dict[str, list[float]] = {peer: [] for peer in peers}
    with contextlib.ExitStack() as stack:
        steppers = {peer: stack.enter_context(opened) for peer, opened in peers.items()}
        for step in steppers.values():
            step(10)  # warm up
        for _ in range(options.rounds):
            for peer, step in steppers.items():
                rates[peer].append(_rate(step, options.seconds))
    return rates


def _rate(step: Stepper, seconds: float) -> float:
    """The mean rate over at least so many seconds."""
    began, rates = time.perf_counter(), []
    while time.perf_counter() - began < seconds:
        rates.append(step(50))
    return statistics.harmonic_mean(rates)


@contextlib.contextmanager
def _ours(num_envs: int, threads: int) -> Iterator[Stepper]:
    venv = envs.make("cheetah-direction").vector_env(num_envs, threads)
    space, rng = Box(-1.0, 1.0, (num_envs, 6)), np.random.default_rng(0)
    venv.reset(seed=0)

    def step(count: int) -> float:
        actions = rng.uniform(space.low, space.high)
        began = time.perf_counter()
        for _ in range(count):
            _, _, terminated, truncated, _ = venv.step(actions)
            ended = terminated | truncated
            if ended.any():
                venv.reset(options={"reset_mask": ended})
        return count * num_envs / (time.perf_counter() - began)

    try:
        yield step
    finally:
        venv.close()


@contextlib.contextmanager
def _gymnasium(processes: int) -> Iterator[Stepper]:
    venv = gym.vector.AsyncVectorEnv([lambda: gym.make("HalfCheetah-v5") for _ in range(processes)])
    venv.reset(seed=0)
    rng = np.random.default_rng(0)

    def step(count: int) -> float:
        actions = rng.uniform(-1.0, 1.0, (processes, 6)).astype(np.float32)
        began = time.perf_counter()
        for _ in range(count):
            venv.step(actions)
        return count * processes / (time.perf_counter() - began)

    try:
        yield step
    finally:
        venv.close()


@contextlib.contextmanager
def _envpool(threads: int) -> Iterator[Stepper]:
    import envpool  # pyright: ignore[reportMissingImports]  # a peer, not a dependency

    num_envs = 8 * threads
    pool = envpool.make("HalfCheetah-v5", env_type="gymnasium", num_envs=num_envs, num_threads=threads, seed=0)
    pool.reset()
    rng = np.random.default_rng(0)

    def step(count: int) -> float:
        actions = rng.uniform(-1.0, 1.0, (num_envs, 6))
        began = time.perf_counter()
        for _ in range(count):
            pool.step(actions)
        return count * num_envs / (time.perf_counter() - began)

    try:
        yield step
    finally:
        pool.close()


def physics_share(threads: int, outer_steps: int = 3) -> tuple[float, float]:
    """The share of a MAML-TRPO outer step that the simulator takes, and the outer step's seconds."""
    clock = _Clock()
    dist = envs.make("cheetah-direction")
    timed = dataclasses.replace(dist, make_simulator=lambda count, n: _Timed(dist.make_simulator(count, n), clock))
    agent = agents.make(MamlTrpoConfig(), timed, threads)
    state = agent.init(0)
    total = 0.0
    for step in range(outer_steps + 1):
        rng = np.random.default_rng([0, step])
        tasks = timed.sample("train", agent.meta_batch, rng)
        if step == 1:  # the first one builds simulators and traces
            clock.seconds = total = 0.0
        began = time.perf_counter()
        state, _ = agent.meta_step(state, tasks, rng)
        total += time.perf_counter() - began
    return clock.seconds / total, total / outer_steps


@dataclasses.dataclass
class _Clock:
    seconds: float = 0.0


@final
class _Timed:
    """A simulator that adds the time it takes to a clock."""

    def __init__(self, simulator: Simulator, clock: _Clock) -> None:
        self._simulator = simulator
        self._clock = clock

    @property
    def num_envs(self) -> int:
        return self._simulator.num_envs

    @property
    def observation_space(self) -> Box:
        return self._simulator.observation_space

    @property
    def action_space(self) -> Box:
        return self._simulator.action_space

    def set_task(self, index: int, task: Task) -> None:
        self._simulator.set_task(index, task)

    def reset(self, index: int, rng: np.random.Generator) -> None:
        with self._timing():
            self._simulator.reset(index, rng)

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        with self._timing():
            return self._simulator.step(actions, active)

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        self._simulator.observe(out)

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        return self._simulator.render(index, width, height)

    def close(self) -> None:
        self._simulator.close()

    @contextlib.contextmanager
    def _timing(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._clock.seconds += time.perf_counter() - began
