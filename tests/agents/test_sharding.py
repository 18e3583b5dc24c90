"""A task's trial is the same bit for bit whatever runs beside it, in whatever order, on however many threads."""

import dataclasses
import functools
import pickle
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import envs
from metarl.agents import AgentConfig, MamlTrpoConfig, PpoConfig, PrompConfig, Rl2PpoConfig, VaribadConfig
from metarl.agents.batching import pad_rows, pad_tasks
from metarl.agents.fixed import FixedPolicy, random_policy
from metarl.agents.policies import Linear
from metarl.errors import UsageError
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy, Agent, Carry, Memoryless, State
from metarl.learning.random_streams import TaskRandom, task_seeds
from metarl.learning.sharding import need_shardable, rows_of
from metarl.learning.spaces import Spaces
from metarl.tasks import Task
from metarl.testing.agents import World
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, lively

CONFIGS: dict[str, AgentConfig | None] = {
    "maml": MamlTrpoConfig(hidden=(32, 32)),
    "maml-normalised": MamlTrpoConfig(hidden=(9,), normalise_observations=True, anil=True),
    "promp": PrompConfig(hidden=(32,), squash_mean=False),
    "rl2-gru": Rl2PpoConfig(hidden=33),
    "rl2-lstm": Rl2PpoConfig(hidden=32, cell="lstm"),
    "rl2-transformer": Rl2PpoConfig(hidden=20, cell="transformer"),
    "rl2-heads": Rl2PpoConfig(hidden=32, head_layers=(9, 1), hypernetwork=True, critic="separate"),
    "varibad": VaribadConfig(encoder_hidden=33, latent=1, hidden=(20,)),
    "ppo": PpoConfig(hidden=(32, 5)),
    "random": None,
}
NUM_TASKS = 7
SHARDS = ([5], [2, 0], [6, 1, 3, 4])


@functools.cache
def world(name: str) -> World:
    toys = {"one action": Toy(box(1), ragged=True), "discrete": Toy(discrete(3), ragged=True, horizon=9)}
    return toys[name] if name in toys else dataclasses.replace(envs.make(name), horizon=15)


def build(name: str, spaces: Spaces) -> Agent | FixedPolicy:
    config = CONFIGS[name]
    return random_policy(spaces) if config is None else config.build(spaces)


@functools.cache
def products_depend_on_threads() -> bool:
    """Whether a matrix product comes out otherwise on two threads here: seen on AMD's processors, for 20 columns."""
    rng = torch.Generator().manual_seed(0)
    x, weights = torch.randn(16, 20, generator=rng), torch.randn(20, 20, generator=rng)
    found: list[Tensor] = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(torch.nn.functional.linear(x, weights))
    torch.set_num_threads(1)
    return not torch.equal(*found)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Of PyTorch, and of the simulators."""
    if request.param > 1 and products_depend_on_threads():
        pytest.skip("on this processor a matrix product depends on PyTorch's threads; the programs keep to one")
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@functools.cache
def first_state(name: str, place: str) -> State:
    """Made once: LAPACK's orthogonal matrices differ in the last bit from one number of threads to another."""
    return lively(build(name, world(place).spaces).init(0))


@functools.cache
def whole_collection(name: str, place: str) -> tuple[AdaptedPolicy, Trials, AdaptedPolicy]:
    """All tasks at once, on one thread; and the policies after adapting once more."""
    dist = world(place)
    agent = build(name, dist.spaces)
    policy = agent.start(first_state(name, place), NUM_TASKS)
    trials = Collector(dist).collect_trials(policy, tasks(dist), protocol(name), task_seeds(3, num_tasks=NUM_TASKS))
    return policy, trials, policy.adapt(trials.query)


def tasks(dist: World) -> Sequence[Task]:
    return dist.sample("train", NUM_TASKS, np.random.default_rng(0))


def protocol(name: str) -> AdaptationProtocol:
    return AdaptationProtocol(2, 3 if name.startswith(("maml", "promp")) else 1)


def acted(policy: AdaptedPolicy, observations: Tensor) -> Tensor:
    with torch.no_grad():
        return policy.act(observations, policy.initial_carry(observations.shape[1], None), None)[0]


@pytest.mark.parametrize("place", ["point-navigation", "cheetah-velocity", "one action", "discrete"])
@pytest.mark.parametrize("name", CONFIGS)
def test_any_share_of_a_collection_comes_out_as_in_the_whole(name: str, place: str, threads: int) -> None:
    dist = world(place)
    torch.set_num_threads(1)
    _, whole, adapted = whole_collection(name, place)
    torch.set_num_threads(threads)
    agent, drawn, seeds = build(name, dist.spaces), tasks(dist), task_seeds(3, num_tasks=NUM_TASKS)
    collector = Collector(dist, threads=threads)
    for shard in SHARDS:
        policy = agent.start(first_state(name, place), len(shard))
        sent = pickle.loads(pickle.dumps(policy))  # as to another machine
        trials = collector.collect_trials(
            sent, [drawn[index] for index in shard], protocol(name), [seeds[index] for index in shard]
        )
        for point, (episodes, expected) in enumerate(zip(trials.episodes, whole.episodes, strict=True)):
            for field, tensor in episodes.tensors().items():
                assert torch.equal(tensor, expected.tensors()[field][shard]), (shard, point, field)
        observations = whole.query.observations[:, :, 0]
        after = acted(policy.adapt(trials.query), observations[shard])
        assert torch.equal(after, acted(adapted, observations)[shard]), shard
    collector.close()


@pytest.mark.parametrize("place", ["point-navigation", "discrete"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_shard_of_adapted_policies_acts_and_adapts_as_in_the_whole(name: str, place: str) -> None:
    torch.set_num_threads(1)
    fresh, whole, adapted = whole_collection(name, place)
    observations = whole.query.observations[:, :, 0]
    for shard in (slice(0, 1), slice(2, 7)):
        support = Episodes(**{field: part[shard] for field, part in whole.query.tensors().items()})
        for policy in (fresh, adapted):
            part = pickle.loads(pickle.dumps(need_shardable(policy).shard(shard)))
            assert torch.equal(acted(part, observations[shard]), acted(policy, observations)[shard])
            again = acted(part.adapt(support), observations[shard])
            assert torch.equal(again, acted(policy.adapt(whole.query), observations)[shard])


def test_a_shard_is_sent_without_the_other_tasks_numbers() -> None:
    whole = torch.arange(4000.0).view(1000, 4)
    assert len(pickle.dumps(rows_of(whole, slice(3, 5)))) < 1000
    assert torch.equal(rows_of(whole, slice(3, 5)), whole[3:5])
    one = torch.zeros(1000).expand(500, 1000)  # one value for all tasks: it goes but once
    assert len(pickle.dumps(rows_of(one, slice(0, 400)))) < 10_000


def test_what_cannot_be_divided_is_named() -> None:
    class Whole(Memoryless):
        def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
            return observations, carry

        def adapt(self, support: Episodes) -> "Whole":
            return self

    with pytest.raises(UsageError, match=r"Whole cannot be divided among workers: give it a method shard\("):
        need_shardable(Whole())


def test_policies_here_adapt_and_differ_between_tasks() -> None:
    """So that the comparison above could tell a dependence."""
    for name in ("maml", "rl2-gru", "rl2-lstm"):
        policy, trials, adapted = whole_collection(name, "one action")
        observations = trials.query.observations[:, :, 0]
        changed = (acted(adapted, observations) - acted(policy, observations)).abs().flatten(1).amax(1)
        assert bool((changed > 1e-3).all()) and len(set(changed.tolist())) == NUM_TASKS


def test_shares_are_put_together_in_their_order() -> None:
    _, whole, _ = whole_collection("ppo", "one action")
    dist = world("one action")
    agent, drawn, seeds = build("ppo", dist.spaces), tasks(dist), task_seeds(3, num_tasks=NUM_TASKS)
    state = first_state("ppo", "one action")
    parts = [
        Collector(dist).collect_trials(agent.start(state, 1), [drawn[i]], protocol("ppo"), [seeds[i]])
        for i in range(NUM_TASKS)
    ]
    together = Trials.concatenate(parts)
    assert together.tasks == whole.tasks
    for one, other in zip(together.episodes, whole.episodes, strict=True):
        assert all(torch.equal(tensor, other.tensors()[field]) for field, tensor in one.tensors().items())


def test_one_task_adapts_as_it_does_in_company(threads: int) -> None:
    """Where observations are one number, a single task's gradient takes another path through BLAS."""
    torch.set_num_threads(1)
    dist = Toy(box(1), horizon=50, observation_size=1)
    maml = MamlTrpoConfig(meta_batch=3, episodes_per_adaptation=20, hidden=(64,)).build(dist.spaces)
    state = lively(maml.init(0))
    support = collect(maml, state, dist).episodes[0]
    together = acted(maml.start(state, 3).adapt(support), support.observations[:, :, 0])
    torch.set_num_threads(threads)
    for task in range(3):
        own = Episodes(**{name: part[task : task + 1] for name, part in support.tensors().items()})
        adapted = maml.start(state, 1).adapt(own)
        assert torch.equal(acted(adapted, own.observations[:, :, 0])[0], together[task])


# The helpers.


def test_padding_adds_rows_up_to_a_multiple_of_16_and_tasks_up_to_2() -> None:
    for rows, padded in ((1, 16), (15, 16), (16, 16), (17, 32), (32, 32)):
        x = torch.randn(rows, 3)
        assert pad_rows(x).shape == (padded, 3)
        assert torch.equal(pad_rows(x)[:rows], x) and not pad_rows(x)[rows:].any()
    one, more = torch.randn(1, 3), torch.randn(5, 3)
    assert torch.equal(pad_tasks(one), torch.cat([one, one]))
    assert pad_tasks(more) is more and pad_rows(torch.zeros(16, 2, dtype=torch.int64)).dtype == torch.int64


@pytest.mark.parametrize("width_out", [1, 2, 64])
@pytest.mark.parametrize("width_in", [1, 17, 300])
def test_padded_rows_come_out_alike_in_every_batch(width_in: int, width_out: int, threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Linear(width_in, width_out)
    x = torch.randn(100, width_in, generator=generator)
    with torch.no_grad():
        whole = layer(pad_rows(x))
        for start, stop in ((0, 1), (3, 5), (10, 26), (30, 63), (99, 100)):
            assert torch.equal(layer(pad_rows(x[start:stop]))[: stop - start], whole[start:stop])


def test_a_layer_of_one_output_is_the_linear_map() -> None:
    layer, x = Linear(5, 1), torch.randn(2, 3, 5)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
