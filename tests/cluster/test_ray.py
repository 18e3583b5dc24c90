"""On a Ray cluster of several nodes trials come out as in one process, whoever is killed on the way.

A worker takes seconds of processor time to start, so the tests share three; they come after those that start their own.
"""

import atexit
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from metarl import envs
from metarl.agents import MamlTrpoConfig
from metarl.errors import RunError, UsageError
from metarl.learning.collect import Collector, InProcess
from metarl.learning.episodes import Trials
from metarl.learning.protocols import AdaptedPolicy
from metarl.learning.random_streams import task_seeds

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'metarl-suite[ray]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.timeout(1800),  # on a machine that is busy otherwise a node takes a minute to start
]

from ray.cluster_utils import Cluster  # noqa: E402

from metarl.cluster import ray_workers  # noqa: E402
from metarl.cluster.collector import ClusterCollectors  # noqa: E402
from metarl.cluster.dispatch import Dispatcher, Patience  # noqa: E402
from metarl.cluster.ray_workers import RayWorkers, ray_collectors  # noqa: E402
from metarl.cluster.worker import PlayEpisodes, Player, Share, identity  # noqa: E402

SLOW = """
import dataclasses
import time
from metarl import envs


class Slow:
    def __init__(self, simulator):
        self._simulator = simulator

    def __getattr__(self, name):
        return getattr(self._simulator, name)

    def step(self, actions, active):
        time.sleep(0.01)
        return self._simulator.step(actions, active)


def slow_point():
    dist = envs.make("point-navigation")
    space = dataclasses.replace(dist.space, id="slow-point")
    slow = lambda count, threads: Slow(dist.make_simulator(count, threads))
    return dataclasses.replace(dist, space=space, make_simulator=slow)
"""
"""A world whose episodes take a second, so that there is time to kill whoever plays them."""
AGENT = MamlTrpoConfig(hidden=(8,), meta_batch=6, episodes_per_adaptation=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, and two nodes; no three workers fit on one of them."""
    system = {"worker_niceness": 0, "prestart_worker_first_driver": False, "enable_worker_prestart": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": system})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def collectors(cluster: Cluster) -> Iterator[ClusterCollectors[Any, Any]]:
    """Three workers, some on each node."""
    with ray_collectors("auto", 3, 1) as opened:
        yield opened
    assert ray.is_initialized()  # it was somebody else's connection


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("world") / "slow.py"
    path.write_text(SLOW)
    return f"{path}:slow_point"


def request(id: str) -> tuple[Any, AdaptedPolicy, tuple[Any, ...], tuple[int, ...]]:
    dist = envs.make(id)
    agent = AGENT.build(dist.spaces)
    tasks = dist.sample("train", 6, np.random.default_rng(0))
    return dist, agent.start(agent.init(0), 6), tasks, task_seeds(3, num_tasks=6)


def need_equal(one: Trials, other: Trials) -> None:
    assert one.tasks == other.tasks
    for here, there in zip(one.episodes, other.episodes, strict=True):
        assert all(torch.equal(part, there.tensors()[name]) for name, part in here.tensors().items())


def expected(id: str) -> Trials:
    dist, policy, tasks, seeds = request(id)
    return Collector(dist).collect_trials(policy, tasks, AGENT.build(dist.spaces).protocol, seeds)


def played(id: str, collectors: ClusterCollectors[Any, Any]) -> Trials:
    dist, policy, tasks, seeds = request(id)
    return collectors.open(dist).collect_trials(policy, tasks, AGENT.build(dist.spaces).protocol, seeds)


def test_a_few_shot_evaluation_on_workers_is_that_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    from metarl.commands import evaluate, fewshot

    images = np.random.default_rng(0).integers(256, size=(60, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", images=images, labels=np.arange(60) % 10)
    sizes = ("--ways", "2", "--shots", "1", "--queries", "2", "--tasks", "9", "--validation-tasks", "2", "--steps", "1")
    data = ("--data", str(tmp_path / "photos.npz"), "--train-ways", "2", "--train-queries", "2")
    fewshot.program(["prototypical", *data, *sizes, "--run", str(tmp_path / "run")], "fewshot")
    found = list[bytes]()
    for name, options in (("one", ()), ("many", ("--workers", "2", "--cluster", "auto"))):
        output = tmp_path / f"{name}.json"
        evaluate.program([str(tmp_path / "run"), "--num-tasks", "70", "--output", str(output), *options], "evaluate")
        found.append(output.read_bytes())
    assert found[0] == found[1]


def test_a_sweep_runs_as_tasks_of_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    from metarl.commands.sweep import program
    from metarl.runs.trained import load

    options = ("maml", "--env", "point-navigation", "--hidden", "8", "--meta-batch", "2", "--validation-tasks", "2")
    runs = ("--runs", str(tmp_path / "runs"), "--seeds", "0", "1", "--jobs", "2", "--cluster", "auto")
    program([*runs, "--", *options, "--episodes-per-adaptation", "2", "--steps", "1"], "sweep")
    for seed in (0, 1):
        assert load(tmp_path / "runs" / f"seed={seed}").ref.step == 1


@pytest.mark.parametrize(
    "agent",
    [
        ("maml", "--hidden", "8", "--episodes-per-adaptation", "2", "--gradient-parts", "3"),
        ("ppo", "--hidden", "8", "--overlap"),
    ],
)
def test_training_killed_and_resumed_on_other_numbers_of_workers_ends_alike(
    cluster: Cluster, tmp_path: Path, agent: tuple[str, ...]
) -> None:
    from metarl.commands.train import program
    from metarl.runs.trained import TrainedAgent, load

    options = (*agent, "--env", "point-navigation", "--meta-batch", "3", "--validation-tasks", "3", "--threads", "1")

    def trained(run: Path) -> TrainedAgent:
        found = load(run)
        assert isinstance(found, TrainedAgent)
        return found

    program([*options, "--run", str(tmp_path / "one"), "--steps", "2"], "train")
    for step, workers in enumerate((1, 2)):
        cluster_options = ("--workers", str(workers), "--cluster", "auto")
        program([*options, "--run", str(tmp_path / "many"), "--steps", str(step + 1), *cluster_options], "train")
    one, many = (trained(tmp_path / name).state for name in ("one", "many"))
    assert all(torch.equal(value, many.parameters[name]) for name, value in one.parameters.items())
    assert all(torch.equal(value, many.optimizer[name]) for name, value in one.optimizer.items())


def test_trials_are_those_of_one_process(collectors: ClusterCollectors[Any, Any]) -> None:
    dist, policy, tasks, seeds = request("point-navigation")
    need_equal(played("point-navigation", collectors), expected("point-navigation"))
    silent = collectors.open(dist).collect_episodes(policy, tasks, 2, seeds, noise=False)
    here = Collector(dist).collect_episodes(policy, tasks, 2, seeds, noise=False)
    assert all(torch.equal(part, here.tensors()[name]) for name, part in silent.tensors().items())


def test_killed_workers_shares_are_played_again(
    collectors: ClusterCollectors[Any, Any], world: str, capsys: pytest.CaptureFixture[str]
) -> None:
    need_equal(played(world, collectors), expected(world))  # all are there
    players = _players(collectors)
    timer = threading.Timer(0.4, os.kill, (players[0], signal.SIGKILL))
    timer.start()
    need_equal(played(world, collectors), expected(world))
    timer.join()
    assert "its share is played again by another" in capsys.readouterr().err
    assert players[0] not in _players(collectors)


def _dispatcher(collectors: ClusterCollectors[Any, Any]) -> Dispatcher[Any, Any, Any, Any]:
    return collectors._dispatcher  # pyright: ignore[reportPrivateUsage]


def _players(collectors: ClusterCollectors[Any, Any]) -> list[int]:
    """The process ids of a factory's workers that have started."""
    slots = _dispatcher(collectors)._slots  # pyright: ignore[reportPrivateUsage]
    return ray.get([slot.worker.pid.remote() for slot in slots if slot.ready and slot.answer is None])


def test_another_distribution_is_refused(collectors: ClusterCollectors[Any, Any]) -> None:
    dist, policy, tasks, seeds = request("point-navigation")
    protocol = AGENT.build(dist.spaces).protocol
    share = Share("point-navigation", "0" * 8, policy, tasks, seeds, protocol)
    with pytest.raises(RunError, match=r"the worker on .* is refused: point-navigation is another distribution there"):
        _dispatcher(collectors).play([share])
    with pytest.raises(RunError, match=r"is refused: nowhere\.py:x cannot be made there: there is no Python file"):
        Player(1).play(dataclasses.replace(share, distribution="nowhere.py:x"))


class Faulty:
    """A policy whose code has a bug."""

    def shard(self, tasks: slice) -> "Faulty":
        return self

    def adapt(self, support: object) -> "Faulty":
        return self

    def initial_carry(self, num_episodes: int, random: object) -> object:
        return self.no_such_method()  # pyright: ignore[reportAttributeAccessIssue]

    def act(self, observations: object, carry: object, random: object) -> object: ...

    def observe(self, carry: object, transition: object) -> object: ...


def test_a_bug_in_somebodys_policy_is_told_as_that_bug(collectors: ClusterCollectors[Any, Any]) -> None:
    dist, _, tasks, seeds = request("point-navigation")
    share = Share("point-navigation", dist.hash, cast(AdaptedPolicy, Faulty()), tasks, seeds, PlayEpisodes(1, True))
    with pytest.raises(AttributeError, match="'Faulty' object has no attribute 'no_such_method'") as raised:
        _dispatcher(collectors).play([share])
    assert "in initial_carry" in str(raised.value.__cause__)  # the worker's traceback


def test_a_worker_that_cannot_load_what_it_is_sent_is_refused(
    collectors: ClusterCollectors[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here_alone = types.ModuleType("here_alone")
    monkeypatch.setitem(sys.modules, "here_alone", here_alone)
    policy = type("Policy", (Faulty,), {"__module__": "here_alone"})
    here_alone.Policy = policy  # pyright: ignore[reportAttributeAccessIssue]
    dist, _, tasks, seeds = request("point-navigation")
    share = Share("point-navigation", dist.hash, cast(AdaptedPolicy, policy()), tasks, seeds, PlayEpisodes(1, True))
    with pytest.raises(RunError, match=r"a worker is refused: it cannot load .* No module named 'here_alone'"):
        _dispatcher(collectors).play([share])


def test_a_worker_whose_simulators_do_not_load_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    dist, policy, tasks, seeds = request("point-navigation")
    share = Share("point-navigation", dist.hash, policy, tasks, seeds, AGENT.build(dist.spaces).protocol)
    for error in (ModuleNotFoundError("No module named 'mujoco'"), OSError("libmujoco.so: cannot open")):
        monkeypatch.setattr(envs, "make", _raising(error))
        with pytest.raises(RunError, match=rf"^the worker on .* is refused: .* cannot be made there: {error}$"):
            Player(1).play(share)


def _raising(error: Exception) -> Callable[..., Any]:
    def call(*arguments: object, **options: object) -> object:
        raise error

    return call


def test_a_worker_without_metarl_is_refused_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    traceback = "ray::Player.__init__() (pid=275, ip=10.0.0.2)\nModuleNotFoundError: No module named 'metarl'"
    cause = ray.exceptions.RayTaskError("Player.__init__", traceback, ImportError())
    monkeypatch.setattr(ray, "get", _raising(ray.exceptions.ActorDiedError(cause)))
    with pytest.raises(RunError, match=r"^the worker on 10.0.0.2 is refused: .*No module named 'metarl'$"):
        RayWorkers(1).first(None)


FULL = ray.exceptions.ObjectStoreFullError("no room"), ray.exceptions.OutOfDiskError("no room either")


@pytest.mark.parametrize("error", FULL)
def test_a_full_object_store_is_one_line(error: Exception, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    dist, policy, tasks, seeds = request("point-navigation")
    share = Share("point-navigation", dist.hash, policy, tasks, seeds, AGENT.build(dist.spaces).protocol)
    workers, line = RayWorkers(1), r"^the cluster's object store is full"
    full = types.SimpleNamespace(play=types.SimpleNamespace(remote=_raising(error)))
    with pytest.raises(RunError, match=line):  # there is no room for what is sent
        workers.play(full, share)
    answer = ray.exceptions.RayTaskError("play", "a traceback", error)
    for raised in (answer, answer.as_instanceof_cause()):  # there is none for what comes back
        monkeypatch.setattr(ray, "get", _raising(raised))
        with pytest.raises(RunError, match=line):
            workers.result(None)


def test_other_versions_code_or_arithmetic_are_refused() -> None:
    here = identity()
    here.need_like(here)
    dataclasses.replace(here, host="b").need_like(here)
    older = dataclasses.replace(here, host="b", versions={**here.versions, "mujoco": "none"})
    with pytest.raises(RunError, match=r"^the worker on b is refused: mujoco is none there, \d.* here$"):
        older.need_like(here)
    with pytest.raises(RunError, match=r"^the worker on b is refused: metarl has other code there, 123; here "):
        dataclasses.replace(here, host="b", code="123").need_like(here)
    with pytest.raises(RunError, match=r"^the worker on b is refused: its processor rounds otherwise"):
        dataclasses.replace(here, host="b", arithmetic="123").need_like(here)


def test_workers_that_fit_nowhere_are_named(cluster: Cluster) -> None:
    patience = Patience(start=3.0)
    with (
        ray_collectors("auto", 2, 64, patience=patience) as collectors,
        pytest.raises(RunError, match=r"none of 2 workers has started within 3 s: each takes 64 CPUs"),
    ):
        played("point-navigation", collectors)


def test_a_distribution_that_no_id_makes_is_refused(cluster: Cluster) -> None:
    dist = dataclasses.replace(envs.make("point-navigation"), horizon=7)
    with ray_collectors("auto", 2, 1) as collectors:
        with pytest.raises(UsageError, match=r"point-navigation .* is not what its id makes"):
            collectors.open(dist)
        with pytest.raises(UsageError, match=r"workers play on the CPU: --device cuda"):
            collectors.open(envs.make("point-navigation"), "cuda")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"--cluster 127.0.0.1:1: no Ray cluster answers there"),
        ("ray://somewhere:10001", r"--cluster is auto, local or HOST:PORT"),
        ("nonsense", r"--cluster is auto, local or HOST:PORT, got 'nonsense'"),
    ],
)
def test_an_address_where_nobody_answers_is_one_line(address: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match=message):
        ray_workers._need_answer(address)  # pyright: ignore[reportPrivateUsage]
    assert time.monotonic() - began < 10


def test_a_cluster_that_will_not_have_this_program_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def token(address: str) -> None:
        os.write(2, b"a page of a log")
        raise ray.exceptions.RayError("a token is missing")

    monkeypatch.setattr(ray_workers, "GcsClient", token)
    join = ray_workers._join  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(UsageError, match=r"^--cluster a:1: it cannot be joined: a token is missing$"):
        join("a:1")
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(ray_workers, "GcsClient", _raising(ray.exceptions.RpcError("Method not found!")))
    with pytest.raises(UsageError, match=r"^--cluster a:1: no head of a Ray cluster answers there: .* its port is"):
        join("a:1")
    monkeypatch.setattr(ray_workers, "GcsClient", lambda address: None)
    monkeypatch.setattr(ray, "init", _raising(RuntimeError("Version mismatch: there:\n    Ray: 2.59")))
    ended: list[None] = []
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(None))
    with pytest.raises(UsageError, match=r"^--cluster a:1: it cannot be joined: Version mismatch: there:\n +Ray: 2.59"):
        join("a:1")
    alone = ConnectionError("Failed to connect")
    alone.__cause__ = RuntimeError("No node info found.")
    monkeypatch.setattr(ray, "init", _raising(alone))
    with pytest.raises(UsageError, match=r"No node info found\. Is this machine part of it\? `ray start --addr"):
        join("a:1")
    assert ended == [None, None]


def test_auto_is_the_cluster_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UsageError, match=r"127.0.0.1:1: no Ray cluster answers"), ray_workers.connected("auto", 1):
        pass
    monkeypatch.delenv("RAY_ADDRESS")
    started: list[int] = []
    monkeypatch.setattr(ray_workers, "_start_here", started.append)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_workers, "_head_address", lambda: "127.0.0.1:1")
    with ray_workers.connected("auto", 3):
        assert started == [3]


def test_a_frozen_head_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that takes connections and says nothing, as of a stopped process, and Ray that waits for it."""
    thawed, unregistered = threading.Event(), list[object]()
    monkeypatch.setattr(ray_workers, "_CONNECT", 0.1)
    monkeypatch.setattr(ray_workers, "_GOODBYE", 0.1)
    monkeypatch.setattr(ray, "shutdown", thawed.wait)
    monkeypatch.setattr(ray_workers, "_shutdown_native", thawed.wait)
    monkeypatch.setattr(atexit, "unregister", unregistered.append)
    leave = ray_workers._leave  # pyright: ignore[reportPrivateUsage]
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        address, began = f"127.0.0.1:{frozen.getsockname()[1]}", time.monotonic()
        leave(address)
    assert time.monotonic() - began < 5 and len(unregistered) == 1
    thawed.set()  # a head that is gone altogether keeps nobody waiting
    leave(address)
    assert len(unregistered) == 1


def test_in_process_collectors_are_the_default() -> None:
    collector = InProcess().open(envs.make("point-navigation"))
    assert isinstance(collector, Collector)
    collector.close()


def test_a_lost_nodes_shares_are_played_elsewhere(
    cluster: Cluster, collectors: ClusterCollectors[Any, Any], world: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last test: the node does not come back."""
    while len(_players(collectors)) < 3:  # then there are some on each node
        need_equal(played(world, collectors), expected(world))
    lost = next(iter(cluster.worker_nodes))
    timer = threading.Timer(0.4, lambda: cluster.remove_node(lost, allow_graceful=False))
    timer.start()
    need_equal(played(world, collectors), expected(world))
    timer.join()
    assert "its share is played again by another" in capsys.readouterr().err
