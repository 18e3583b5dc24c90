"""Prints speed ratios against peers, all measured in this run: machines differ and drift, ratios carry over.

The peers of the sampling are Gymnasium's own vector environment and EnvPool (`pip install envpool`), each stepping
HalfCheetah-v5 with a new random action at every step and the same 1000 steps an episode, on the same number of threads
or processes; the other robots have EnvPool alone. For Meta-World they are its own vector environment, EnvPool, and
MuJoCo alone; what Stable-Baselines3's PPO collects is compared with its own processes. Rounds of all of them
alternate; the ratio is taken round by round, and its median is printed with its range. MAML's meta-update has
learn2learn as its peer, or a task loop that does the same (`benchmark_fewshot`).
"""

import contextlib
import dataclasses
import importlib.util
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, final

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl import checks, envs
from metarl.agents import MamlTrpoConfig
from metarl.commands import benchmark_fewshot
from metarl.commands.options import ComputeOptions, check_output, parse
from metarl.commands.timing import Stepper, in_turns, line, random_steps
from metarl.envs import Outcome, Simulator
from metarl.learning.collect import Collector
from metarl.learning.sources import TrialSource
from metarl.learning.training import outer_steps
from metarl.runs import provenance
from metarl.runs.files import encode_json, write_atomically
from metarl.tasks import Json, Task

_OURS, _GYMNASIUM, _ENVPOOL = "metarl", "gymnasium async", "envpool"
_ROBOTS = {"Ant-v5": "ant-direction", "Hopper-v5": "hopper-dynamics", "Walker2d-v5": "walker-dynamics"}
"""Of EnvPool, and whose body it is here."""
_MISSING = "  envpool                  not measured: it is not installed (pip install envpool)"


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure, and how thoroughly."""

    subjects: tuple[Literal["cheetah", "robots", "sb3", "maml", "metaworld", "fewshot"], ...] = (
        "cheetah",
        "robots",
        "sb3",
        "maml",
        "metaworld",
        "fewshot",
    )
    """Sampling of HalfCheetah-v5, of Ant-v5, Hopper-v5 and Walker2d-v5, what Stable-Baselines3's PPO collects, the
    share of physics in MAML-TRPO's steps, sampling of Meta-World's ML10, and few-shot MAML's meta-updates."""
    num_envs: int = 256
    """Sub-environments of ours, of the robots."""
    rounds: int = 5
    """Rounds; each measures every peer once."""
    seconds: float = 2.0
    """Least time that a peer is stepped in a round, s."""
    output: Path | None = None
    """Also write the raw numbers to this JSON file."""
    compute: ComputeOptions = ComputeOptions()

    def __post_init__(self) -> None:
        checks.between(1, 100_000, num_envs=self.num_envs, rounds=self.rounds)
        checks.positive(seconds=self.seconds)
        if self.output is not None:
            check_output(self.output)


def program(arguments: Sequence[str], name: str) -> None:
    """Measures and prints."""
    options = parse(BenchmarkOptions, arguments, name, __doc__)
    options.compute.use()
    threads = options.compute.threads
    raw: dict[str, Json] = {
        "command": (
            f"benchmark.py --subjects {' '.join(options.subjects)} --num-envs {options.num_envs} "
            f"--rounds {options.rounds} --seconds {options.seconds:g} --threads {threads}"
        ),
        "environment": provenance.environment(threads).to_json(),
        "machine": platform.machine(),
    }
    if "cheetah" in options.subjects:
        raw["steps_per_second"] = _cheetah(options)
    if "robots" in options.subjects:
        raw["robots_steps_per_second"] = _robots(options)
    if "sb3" in options.subjects:
        raw["sb3_ppo_steps_per_second"] = _sb3(options)
    if "maml" in options.subjects:
        share, seconds = physics_share(threads)
        print(f"MAML-TRPO on cheetah-direction: {100 * share:.0f} % of an outer step's {seconds:.2f} s is physics")
        raw["maml_trpo"] = {"physics_share": share, "outer_step_seconds": seconds}
    if "metaworld" in options.subjects:
        raw["metaworld_steps_per_second"] = _metaworld(options)
        raw["metaworld_ml45_startup_seconds"] = _ml45_startup(options)
    if "fewshot" in options.subjects:
        raw["meta_update_seconds"] = benchmark_fewshot.measure(options.rounds)
        raw["sampler_images_per_second"] = benchmark_fewshot.measure_sampler(options.rounds, options.seconds)
    if options.output is not None:
        write_atomically(options.output, encode_json(raw))
        print(f"written to {options.output}")


def _cheetah(options: BenchmarkOptions) -> dict[str, Json]:
    threads = options.compute.threads
    peers = {_OURS: _ours("cheetah-direction", options.num_envs, threads), _GYMNASIUM: _gymnasium(threads)}
    if importlib.util.find_spec("envpool") is not None:
        peers[_ENVPOOL] = _envpool("HalfCheetah-v5", 6, threads)
    rates = in_turns(peers, options.rounds, options.seconds)
    print(f"HalfCheetah-v5, {threads} threads or processes, environment steps/s, median of {options.rounds} rounds")
    print("\n".join(line(peer, rates, _OURS) for peer in rates))
    if _ENVPOOL not in rates:
        print(_MISSING)
    return {peer: list(values) for peer, values in rates.items()}


def _robots(options: BenchmarkOptions) -> dict[str, Json]:
    """Of other robots, against EnvPool alone."""
    threads, found = options.compute.threads, dict[str, Json]()
    for robot, id in _ROBOTS.items():
        size = envs.make(id).spaces.action_size
        peers = {_OURS: _ours(id, options.num_envs, threads)}
        if importlib.util.find_spec("envpool") is not None:
            peers[_ENVPOOL] = _envpool(robot, size, threads)
        rates = in_turns(peers, options.rounds, options.seconds)
        print(f"{robot}, {threads} threads, environment steps/s, median of {options.rounds} rounds")
        print("\n".join(line(peer, rates, _OURS) for peer in rates))
        if _ENVPOOL not in rates:
            print(_MISSING)
        found[robot] = {peer: list(values) for peer, values in rates.items()}
    return found


def _sb3(options: BenchmarkOptions) -> dict[str, Json]:
    if importlib.util.find_spec("stable_baselines3") is None:
        print("Stable-Baselines3's PPO: not measured, it is not installed (pip install stable-baselines3)")
        return {}
    from metarl.commands import benchmark_sb3 as peers

    threads = options.compute.threads
    rates = peers.rates(threads, options.rounds, options.seconds)
    count = peers.ENVS * threads
    print(
        f"What Stable-Baselines3's PPO collects of HalfCheetah, {count} sub-environments, {threads} threads or {count} "
        f"processes, environment steps/s, median of {options.rounds} rounds"
    )
    print("\n".join(line(peer, rates, peers.OURS) for peer in rates))
    return {peer: list(values) for peer, values in rates.items()}


def _metaworld(options: BenchmarkOptions) -> dict[str, Json]:
    from metarl.commands import benchmark_metaworld as peers

    threads = options.compute.threads
    rates = peers.metaworld_rates(threads, options.rounds, options.seconds)
    print(f"Meta-World ML10, {threads} threads or processes, environment steps/s, median of {options.rounds} rounds")
    print(
        "\n".join(line(peer, rates, peers.OURS) for peer in (peers.OURS, peers.STOCK, peers.ENVPOOL) if peer in rates)
    )
    if peers.ENVPOOL not in rates:
        print(_MISSING)
    print("\n".join(line(peer, rates, peers.ONE) for peer in (peers.ONE, peers.PHYSICS)))
    return {peer: list(values) for peer, values in rates.items()}


def _ml45_startup(options: BenchmarkOptions) -> list[Json]:
    from metarl.commands import benchmark_metaworld as peers

    seconds = [peers.startup_seconds("ml45", options.compute.threads) for _ in range(options.rounds)]
    print(f"Meta-World ML45, all 45 training classes built and reset: {statistics.median(seconds):.1f} s")
    return list(seconds)


@contextlib.contextmanager
def _ours(id: str, num_envs: int, threads: int) -> Iterator[Stepper]:
    dist = dataclasses.replace(envs.make(id), horizon=1000)
    venv = dist.vector_env(num_envs, threads)
    venv.reset(seed=0)

    def step(actions: ndarray) -> None:
        _, _, terminated, truncated, _ = venv.step(actions)
        ended = terminated | truncated
        if ended.any():
            venv.reset(options={"reset_mask": ended})

    with contextlib.closing(venv):
        yield random_steps(step, num_envs, dist.spaces.action_size, np.float64)


@contextlib.contextmanager
def _gymnasium(processes: int) -> Iterator[Stepper]:
    venv = gym.vector.AsyncVectorEnv([lambda: gym.make("HalfCheetah-v5") for _ in range(processes)])
    venv.reset(seed=0)
    with contextlib.closing(venv):
        yield random_steps(venv.step, processes, 6)


@contextlib.contextmanager
def _envpool(robot: str, actions: int, threads: int) -> Iterator[Stepper]:
    import envpool  # pyright: ignore[reportMissingImports]  # a peer, not a dependency

    num_envs = 8 * threads
    pool = envpool.make(robot, env_type="gymnasium", num_envs=num_envs, num_threads=threads, seed=0)
    pool.reset()
    with contextlib.closing(pool):
        yield random_steps(pool.step, num_envs, actions, np.float64)


def physics_share(threads: int, steps: int = 3) -> tuple[float, float]:
    """The share of a MAML-TRPO outer step that the simulator takes, and the outer step's seconds."""
    clock = _Clock()
    dist = envs.make("cheetah-direction")
    timed = dataclasses.replace(dist, make_simulator=lambda count, n: _Timed(dist.make_simulator(count, n), clock))
    agent = MamlTrpoConfig().build(timed.spaces)
    total = 0.0
    with contextlib.closing(Collector(timed, threads)) as collector:
        source = TrialSource(timed, collector)
        for done in outer_steps(agent, source, agent.init(0), seed=0, start=0, stop=steps + 1):
            if done.step == 1:  # the first one builds simulators and traces
                clock.seconds = 0.0
            else:
                total += done.seconds
    return clock.seconds / total, total / steps


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
    def observation_space(self) -> gym.Space[object]:
        return self._simulator.observation_space

    @property
    def action_space(self) -> gym.Space[object]:
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
