"""Prints speed ratios against peers, all measured in this run: machines differ and drift, ratios carry over.

The peers of the sampling are Gymnasium's own vector environment and EnvPool (`pip install envpool`), each stepping
HalfCheetah-v5 with a new random action at every step and the same 1000 steps an episode, on the same number of threads
or processes; the other robots have EnvPool alone. Beside them stands what a plain loop over MuJoCo's steps does on
each thread. For Meta-World the peers are its own vector environment and EnvPool; what Stable-Baselines3's PPO collects
is compared with its own processes. Rounds of all of them alternate; the ratio is taken round by round, and its median
is printed with its range. MAML's meta-update has learn2learn as its peer, or a task loop that does the same
(`benchmark_fewshot`).

How long it takes: with `--quick` two minutes on a machine alone.
"""

import dataclasses
import importlib.util
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from metarl import checks, envs
from metarl.commands import benchmark_fewshot, benchmark_trpo
from metarl.commands.benchmark_physics import AGENTS, shares
from metarl.commands.benchmark_steppers import envpool_pool, gymnasium_async, ours, physics_alone
from metarl.commands.options import ComputeOptions, available_cores, check_output, parse
from metarl.commands.speed_ratios import GUARDED, Ratios, markdown, ratios, shortfalls, summary
from metarl.commands.timing import in_turns, line, ratio
from metarl.errors import RunError, UsageError
from metarl.runs import provenance
from metarl.runs.files import encode_json, write_atomically
from metarl.tasks import Json

_OURS, _GYMNASIUM, _ENVPOOL, _PHYSICS = "metarl", "gymnasium async", "envpool", "mj_step alone"
_ROBOTS = {
    "Ant-v5": "ant-direction",
    "Hopper-v5": "hopper-dynamics",
    "Walker2d-v5": "walker-dynamics",
    "Humanoid-v5": "humanoid-dynamics",
}
"""Of EnvPool, and whose body it is here."""
_NO_RAY = "  Ray's workers            not measured: it is not installed (pip install 'metarl-suite[ray]')"
_SIMULATED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)  # workers
_SIMULATED_TASKS = 40  # of an outer step, the default of MAML-TRPO
_MISSING = "  envpool                  not measured: it is not installed (pip install envpool)"

Subject = Literal["cheetah", "robots", "sb3", "steps", "recurrent", "trpo", "metaworld", "fewshot", "scaling", "memory",
                  "cluster", "cluster-memory", "processor"]  # fmt: skip
ALL: tuple[Subject, ...] = get_args(Subject)
QUICK: tuple[Subject, ...] = ("cheetah", "metaworld", "fewshot")
WITH_PEERS: tuple[Subject, ...] = ("cheetah", "robots", "sb3", "recurrent", "trpo", "metaworld", "fewshot", "processor")
"""Those that a guard can compare."""


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure, and how thoroughly."""

    subjects: tuple[Subject, ...] = ()
    """Sampling of HalfCheetah-v5 (cheetah), of Ant-v5, Hopper-v5, Walker2d-v5 and Humanoid-v5 (robots), what
    Stable-Baselines3's PPO collects (sb3), processor time of physics, sampling and update in outer steps of
    MAML-TRPO and RL² (steps), whole steps of RL² and VariBAD beside sb3-contrib's RecurrentPPO (recurrent),
    MAML-TRPO's update beside a task loop (trpo), sampling of Meta-World's ML10 (metaworld), updates of few-shot MAML
    and prototypical networks (fewshot), growth of time with sub-environments and tasks (scaling), growth of memory
    with steps (memory), efficiency of workers on all cores and a simulation of a thousand (cluster), memory where
    workers play (cluster-memory), HalfCheetah-v5 and MAML's meta-updates on one thread by processor time, for a
    guard where other programs run (processor). Not given: all, or those of --quick, or those that --guard can
    compare."""
    quick: bool = False
    """About two minutes on a machine alone: cheetah, metaworld and fewshot, two rounds of half a second."""
    guard: Path | None = None
    """A JSON file of an earlier run: fail where a ratio to a peer is below 70 % of the one recorded there. A subject
    that falls short is measured a second time, since machines are noisy; the bound stays."""
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
        if self.compute.device != "cpu":
            raise ValueError("what is measured runs on the CPU: leave --device out")
        if self.output is not None:
            check_output(self.output)


def program(arguments: Sequence[str], name: str) -> None:
    """Measures and prints; fails where a guarded ratio falls short twice."""
    options = parse(BenchmarkOptions, arguments, name, __doc__)
    options.compute.use()
    recorded = {} if options.guard is None else _recorded(options.guard)
    subjects = options.subjects or (QUICK if options.quick else ALL)
    if options.quick:
        options = dataclasses.replace(options, rounds=min(options.rounds, 2), seconds=min(options.seconds, 0.5))
    if recorded and not options.subjects and not options.quick:
        subjects = WITH_PEERS
    threads = options.compute.threads
    raw: dict[str, Json] = {
        "command": (
            f"benchmark.py --subjects {' '.join(subjects)} --num-envs {options.num_envs} "
            f"--rounds {options.rounds} --seconds {options.seconds:g} --threads {threads}"
        ),
        "environment": provenance.environment(threads).to_json(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "load_before": os.getloadavg()[0],
    }
    for subject in subjects:
        measured = _MEASURES[subject](options)
        if short := shortfalls(ratios(measured), recorded):
            print("\n".join(f"  below the recorded ratio, measured once more: {each}" for each in short))
            measured = _better(measured, _MEASURES[subject](options), recorded)
        raw |= measured
    found = ratios(raw)
    if found:
        raw["ratios"] = summary(found)
        print(markdown(found))
    if options.output is not None:
        write_atomically(options.output, encode_json(raw))
        print(f"written to {options.output}")
    if short := shortfalls(found, recorded):
        raise RunError(f"slower than recorded in {options.guard}, twice: {'; '.join(map(str, short))}")
    if recorded:
        compared = sorted(found.keys() & recorded.keys())
        if not compared:
            raise RunError(f"nothing that was measured has a ratio in {options.guard}: are the peers installed?")
        print(f"{len(compared)} ratios are at least {100 * GUARDED:.0f} % of those in {options.guard}")


def _recorded(path: Path) -> Ratios:
    """The ratios of an earlier run.

    Raises:
        UsageError: there are none in the file.
    """
    try:
        found = ratios(msgspec.json.decode(path.read_bytes(), type=dict[str, object]))
    except OSError as error:
        raise UsageError(f"--guard {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--guard {path}: {error}") from error
    if not found:
        raise UsageError(f"--guard {path} holds no ratios to peers")
    return found


def _better(one: dict[str, Json], two: dict[str, Json], recorded: Ratios) -> dict[str, Json]:
    """The measurement of a subject that falls short in fewer ratios."""
    return min((two, one), key=lambda measured: len(shortfalls(ratios(measured), recorded)))


def _steps(options: BenchmarkOptions) -> dict[str, Json]:
    found = dict[str, Json]()
    for name, (id, config) in AGENTS.items():
        part = shares(id, config, options.compute.threads, options.rounds)
        print(
            f"{name}: {100 * part.of_physics:.0f} % of an outer step is physics; s of processor time: sampling "
            f"{part.sampling:.2f} (physics {part.physics:.2f}), update {part.update:.2f}"
        )
        found[name] = {"physics": part.physics, "sampling": part.sampling, "update": part.update}
    return {"outer_step_processor_seconds": found}


def _recurrent(options: BenchmarkOptions) -> dict[str, Json]:
    from metarl.commands import benchmark_training as steps

    if importlib.util.find_spec("sb3_contrib") is None:
        print("RecurrentPPO: not measured, it is not installed (pip install sb3-contrib)")
        return {}
    rates = steps.recurrent_rates(options.compute.threads, options.rounds, options.seconds)
    print(f"Whole steps of RL² on HalfCheetah, environment steps/s, median of {options.rounds} rounds")
    print("\n".join(line(peer, rates, steps.OURS) for peer in rates))
    figures: dict[str, Json] = {peer: list(values) for peer, values in rates.items()}
    return {"recurrent_steps_per_second": {"RL² on HalfCheetah, whole steps": figures}}


def _trpo(options: BenchmarkOptions) -> dict[str, Json]:
    found = benchmark_trpo.update_seconds(options.rounds)
    print(f"MAML-TRPO's update on {benchmark_trpo.WORLD}, processor time, median of {options.rounds} rounds")
    print(f"  {benchmark_trpo.NAME:32} {benchmark_fewshot.report(found)}")
    seconds: dict[str, Json] = {peer: list(values) for peer, values in found.items()}
    return {"trpo_update_seconds": {benchmark_trpo.NAME: seconds}}


def _fewshot(options: BenchmarkOptions) -> dict[str, Json]:
    return {
        "meta_update_seconds": benchmark_fewshot.measure(options.rounds),
        "fewshot_update_seconds": benchmark_fewshot.measure_prototypical(options.rounds),
        "sampler_images_per_second": benchmark_fewshot.measure_sampler(options.rounds, options.seconds),
    }


def _scaling(options: BenchmarkOptions) -> dict[str, Json]:
    from metarl.commands import benchmark_training as steps

    threads = options.compute.threads
    rates = steps.growth_with_envs(threads, options.seconds, (16, 64, 256, 1024, 4096))
    print(f"cheetah-direction by sub-environments, {threads} threads, environment steps/s")
    print("\n".join(f"  {size:6} {rate:12,.0f}" for size, rate in rates.items()))
    times = steps.growth_with_tasks(threads, (10, 40, 160, 320))
    print("MAML-TRPO on cheetah-direction by tasks, 8 episodes of 100 steps each: s of sampling and of the update")
    print("\n".join(f"  {size:6} {sampling:8.3f} {update:8.3f}" for size, (sampling, update) in times.items()))
    return {
        "steps_per_second_by_envs": {str(size): rate for size, rate in rates.items()},
        "outer_step_seconds_by_tasks": {str(size): list(pair) for size, pair in times.items()},
    }


def _cluster(options: BenchmarkOptions) -> dict[str, Json]:
    if importlib.util.find_spec("ray") is None:
        print(_NO_RAY)
        return {}
    from metarl.commands import benchmark_cluster as cluster
    from metarl.commands.cluster_model import simulate

    cores = available_cores()
    found, allowed = cluster.efficiencies(cores, options.rounds), cluster.limits(cores, options.rounds)
    print(
        f"Collecting on {cores} workers: efficiency {ratio(found)} of one worker's, median of {options.rounds} rounds; "
        f"players that exchange nothing {ratio(allowed)}"
    )
    costs = cluster.costs(options.rounds)
    rows = [
        simulate(costs, count, tasks(count))
        for tasks in (lambda count: _SIMULATED_TASKS, lambda count: 4 * count)
        for count in _SIMULATED
    ]
    print("Simulated outer steps of MAML-TRPO, s")
    print("  workers  tasks  collecting  with update")
    print("\n".join(f"  {row.workers:7} {row.tasks:6} {row.collecting:11.2f} {row.step:12.2f}" for row in rows))
    simulated: list[Json] = [dict(dataclasses.asdict(row)) for row in rows]
    return {
        "cluster_efficiency": {"workers": cores, "rounds": list(found), "without_messages": list(allowed)},
        "cluster_costs": dict(dataclasses.asdict(costs)),
        "cluster_simulated": simulated,
    }


def _memory(options: BenchmarkOptions) -> dict[str, Json]:
    from metarl.commands import benchmark_training as steps

    count = 1000
    first, last, most = steps.memory_growth(count)
    print(f"Memory over {count} outer steps of RL²: {first:.1f} MiB before, {last:.1f} after, {most:.1f} at most")
    return {"memory_mib": {"steps": count, "before": first, "after": last, "most": most}}


def _cluster_memory(options: BenchmarkOptions) -> dict[str, Json]:
    if importlib.util.find_spec("ray") is None:
        print(_NO_RAY)
        return {}
    from metarl.commands import benchmark_cluster as cluster

    count, workers = 500, max(2, available_cores())
    sizes = cluster.memory(count, workers)
    print(f"Memory over {count} outer steps of MAML-TRPO on {workers} workers, MiB before, after, at most")
    print("\n".join(f"  {name:10} {first:8.1f} {last:8.1f} {most:8.1f}" for name, (first, last, most) in sizes.items()))
    figures: dict[str, Json] = {
        name: {"before": first, "after": last, "most": most} for name, (first, last, most) in sizes.items()
    }
    return {"cluster_memory_mib": {"steps": count, **figures}}


def _processor(options: BenchmarkOptions) -> dict[str, Json]:
    from metarl.commands import benchmark_processor as processor

    rates = processor.rates(options.rounds, options.seconds)
    print(f"HalfCheetah-v5 on one thread, environment steps/s of processor time, median of {options.rounds} rounds")
    print("\n".join(line(peer, rates, processor.OURS) for peer in rates))
    updates = processor.update_seconds(options.rounds)
    print("MAML's meta-update, second order, processor time")
    print("\n".join(f"  {name:32} {benchmark_fewshot.report(found)}" for name, found in updates.items()))
    figures: dict[str, Json] = {peer: list(values) for peer, values in rates.items()}
    seconds: dict[str, Json] = {
        name: {peer: list(values) for peer, values in found.items()} for name, found in updates.items()
    }
    return {"processor_steps_per_second": {"HalfCheetah-v5, one thread": figures}, "processor_update_seconds": seconds}


def _cheetah(options: BenchmarkOptions) -> dict[str, Json]:
    threads = options.compute.threads
    peers = {_OURS: ours("cheetah-direction", options.num_envs, threads), _GYMNASIUM: gymnasium_async(threads)}
    if importlib.util.find_spec("envpool") is not None:
        peers[_ENVPOOL] = envpool_pool("HalfCheetah-v5", 6, threads)
    peers[_PHYSICS] = physics_alone("HalfCheetah-v5", threads)
    rates = in_turns(peers, options.rounds, options.seconds)
    print(f"HalfCheetah-v5, {threads} threads or processes, environment steps/s, median of {options.rounds} rounds")
    print("\n".join(line(peer, rates, _OURS) for peer in rates))
    if _ENVPOOL not in rates:
        print(_MISSING)
    return {"steps_per_second": {peer: list(values) for peer, values in rates.items()}}


def _robots(options: BenchmarkOptions) -> dict[str, Json]:
    """Of other robots, against EnvPool and the physics alone."""
    threads, found = options.compute.threads, dict[str, Json]()
    for robot, id in _ROBOTS.items():
        size = envs.make(id).spaces.action_size
        peers = {_OURS: ours(id, options.num_envs, threads)}
        if importlib.util.find_spec("envpool") is not None:
            peers[_ENVPOOL] = envpool_pool(robot, size, threads)
        peers[_PHYSICS] = physics_alone(robot, threads)
        rates = in_turns(peers, options.rounds, options.seconds)
        print(f"{robot}, {threads} threads, environment steps/s, median of {options.rounds} rounds")
        print("\n".join(line(peer, rates, _OURS) for peer in rates))
        if _ENVPOOL not in rates:
            print(_MISSING)
        found[robot] = {peer: list(values) for peer, values in rates.items()}
    return {"robots_steps_per_second": found}


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
    return {"sb3_ppo_steps_per_second": {peer: list(values) for peer, values in rates.items()}}


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
    seconds = [peers.startup_seconds("ml45", options.compute.threads) for _ in range(options.rounds)]
    print(f"Meta-World ML45, all 45 training classes built and reset: {statistics.median(seconds):.1f} s")
    figures: dict[str, Json] = {peer: list(values) for peer, values in rates.items()}
    return {"metaworld_steps_per_second": figures, "metaworld_ml45_startup_seconds": list(seconds)}


_MEASURES: Mapping[Subject, Callable[[BenchmarkOptions], dict[str, Json]]] = {
    "cheetah": _cheetah,
    "robots": _robots,
    "sb3": _sb3,
    "steps": _steps,
    "recurrent": _recurrent,
    "trpo": _trpo,
    "metaworld": _metaworld,
    "fewshot": _fewshot,
    "scaling": _scaling,
    "cluster": _cluster,
    "memory": _memory,
    "cluster-memory": _cluster_memory,
    "processor": _processor,
}
