"""The contract of an agent, as a test for everybody's.

    from metarl import envs
    from metarl.testing import check_agent
    check_agent(MyConfig(meta_batch=4), envs.make("point-navigation"))

checks what the training loop, checkpoints, evaluation, videos and other machines rely on. It says nothing of whether
the agent learns. `check_policy` is the part about policies alone, for those that nobody trains.
"""

import dataclasses
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from metarl.agents import AgentConfig
from metarl.learning.collect import Collector, EnvSource
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import (
    AdaptationProtocol,
    AdaptedPolicy,
    Agent,
    OffPolicyLearner,
    State,
    Transition,
)
from metarl.learning.random_streams import TaskRandom, task_seeds
from metarl.learning.sharding import ShardablePolicy
from metarl.learning.sources import SampledTasks
from metarl.learning.spaces import Spaces
from metarl.tasks import Task
from metarl.testing.contract import require

Start = Callable[[int], AdaptedPolicy]
"""A number of tasks -> a policy that has seen nothing of them yet."""


@runtime_checkable
class World(EnvSource, SampledTasks, Protocol):
    """The part of a distribution that agents meet."""


def check_agent(config: AgentConfig, dist: World, *, device: torch.device | str = "cpu") -> None:
    """Checks the whole contract; takes a few outer steps, so options that make them small are best.

    Args:
        config: the agent's options.
        dist: what it is to act in.
        device: where it computes. On other devices than the CPU results are not compared bit for bit.

    Raises:
        ContractError: a promise is not kept; the message says which.
    """
    require(dataclasses.is_dataclass(config), f"{type(config).__name__} is not a dataclass")
    require(
        (type(config).__doc__ or "").strip(), f"{type(config).__name__} has no docstring to show on the command line"
    )
    exact = torch.device(device).type == "cpu"
    agent = config.build(dist.spaces, device)
    require(_follows(agent, Agent), f"{type(agent).__name__} lacks a part of the protocol `Agent`")
    check_init(agent, config.build(dist.spaces, device), torch.device(device))
    state = check_meta_step(agent, config.build(dist.spaces, device), dist, torch.device(device))
    check_policy(lambda num_tasks: agent.start(state, num_tasks), dist, agent.protocol, device=device, exact=exact)


def check_init(agent: Agent, again: Agent, device: torch.device) -> None:
    """The first state follows from the seed alone, is finite and on the agent's device, and can be written down."""
    name = type(agent).__name__
    torch_random, numpy_random = torch.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    state, same = agent.init(0), again.init(0)
    require(_equal(_tensors(state), _tensors(same)), f"{name}.init(0) gives another state each time")
    untouched = torch.equal(torch_random, torch.get_rng_state())
    untouched = untouched and numpy_random == pickle.dumps(np.random.get_state())  # noqa: NPY002
    require(untouched, f"{name}.init draws from a global random generator")
    _check_state(name, "init", state, device)


def check_meta_step(agent: Agent, again: Agent, dist: World, device: torch.device) -> State:
    """An outer step is a pure function that changes no names, shapes or types; gives the state after two of them."""
    name, state, metric_names = type(agent).__name__, agent.init(0), None
    collector = Collector(dist, device=device)
    for step in range(2):
        trials = _collect(agent, state, dist, collector, step)
        before, seen = _copies(_tensors(state)), _copies(_trial_tensors(trials))
        after, metrics = agent.meta_step(state, trials, np.random.default_rng(step))
        require(_equal(before, _tensors(state)), f"{name}.meta_step writes into the state that it is given")
        require(_equal(seen, _trial_tensors(trials)), f"{name}.meta_step writes into the trials that it is given")
        repeated, metrics_again = again.meta_step(_loaded(state), trials, np.random.default_rng(step))
        if device.type == "cpu":
            same = _equal(_tensors(after), _tensors(repeated)) and dict(metrics) == dict(metrics_again)
            require(
                same or any(math.isnan(value) for value in metrics.values()),
                f"{name}.meta_step of the same state, loaded from a checkpoint, gives another result",
            )
        if isinstance(agent, OffPolicyLearner):
            lagging, _ = agent.off_policy_meta_step(state, state.parameters, trials, np.random.default_rng(step))
            require(
                _equal(_tensors(after), _tensors(lagging)) or any(math.isnan(value) for value in metrics.values()),
                f"{name}.off_policy_meta_step, told that the state's own parameters played, is not meta_step",
            )
        _check_state(name, "meta_step", after, device)
        for part, old, new in (
            ("parameters", state.parameters, after.parameters),
            ("optimizer", state.optimizer, after.optimizer),
        ):
            forms = [{key: (value.shape, value.dtype) for key, value in each.items()} for each in (old, new)]
            require(forms[0] == forms[1], f"{name}.meta_step changes names, shapes or types of the state's {part}")
        require(
            after.store.total >= state.store.total, f"{name}.meta_step takes away what its store held: append to it"
        )
        shown = {**trials.metrics(), **metrics}
        for key, value in shown.items():
            require(not math.isinf(value), f"{name}.meta_step gives the metric {key} = {value}")
        require(
            metric_names is None or metric_names == metrics.keys(), f"{name}.meta_step gives other metrics each time"
        )
        told = {key for key in agent.progress_keys if not key.startswith("success")}
        require(told <= shown.keys(), f"{name}.progress_keys names metrics that there are not: {told - shown.keys()}")
        metric_names, state = metrics.keys(), after
    collector.close()
    return state


def check_policy(
    start: Start, dist: World, protocol: AdaptationProtocol, *, device: torch.device | str = "cpu", exact: bool = True
) -> None:
    """Actions and carries have their shapes; adapting leaves a policy as it was; it pickles; tasks keep apart.

    Args:
        start: gives the policies.
        dist: what they act in.
        protocol: how a trial is spent.
        device: where they compute.
        exact: whether a task's trial must be the same bit for bit whatever the other tasks are.

    Raises:
        ContractError: a promise is not kept; the message says which.
    """
    name, num_tasks = type(start(1)).__name__, 5
    tasks = dist.sample("train", num_tasks, np.random.default_rng(0))
    seeds = task_seeds(0, num_tasks=num_tasks)
    _check_acting(name, start(num_tasks), dist.spaces, torch.device(device))
    collector = Collector(dist, device=device)
    whole = collector.collect_trials(start(num_tasks), tasks, protocol, seeds)
    require(all(bool(x.isfinite().all()) for x in _trial_tensors(whole).values()), f"{name} acts in numbers not finite")
    support = collector.collect_episodes(start(num_tasks), tasks, protocol.episodes_per_adaptation, seeds)
    _check_adapting(name, start(num_tasks), support, exact)
    if exact:
        _check_sharding(name, start, collector, tasks, protocol, seeds, whole)
    collector.close()


def _check_acting(name: str, policy: AdaptedPolicy, spaces: Spaces, device: torch.device) -> None:
    require(_follows(policy, AdaptedPolicy), f"{name} lacks a part of the protocol `AdaptedPolicy`")
    shape = (5, 2)  # task, episode
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(*shape, spaces.observation_size, generator=generator).to(device)
    rewards, done = torch.zeros(shape, device=device), torch.zeros(shape, dtype=torch.bool, device=device)
    expected = (shape, torch.int64) if spaces.discrete else ((*shape, spaces.action_size), torch.float32)
    for random in (TaskRandom(range(5), 2, device), None):
        carry = policy.initial_carry(2, random)
        _check_carry(name, "initial_carry", carry, shape)
        with torch.no_grad():
            actions, after = policy.act(observations, carry, random)
        found = (tuple(actions.shape), actions.dtype)
        require(found == expected, f"{name}.act gives actions of {found}; expected {expected}")
        if spaces.discrete:
            inside = bool(((actions >= 0) & (actions < spaces.action_size)).all())
            require(inside, f"{name}.act gives actions outside 0 … {spaces.action_size - 1}")
        _check_carry(name, "act", after, shape)
        executed = actions if spaces.discrete else actions.clamp(-1, 1)
        _check_carry(name, "observe", policy.observe(after, Transition(executed, rewards, done, observations)), shape)
    one, two = (_acted(policy, observations) for _ in range(2))
    require(torch.equal(one, two), f"{name}.act without noise gives other actions each time")
    sent = pickle.loads(pickle.dumps(policy))
    require(torch.equal(one, _acted(sent, observations)), f"{name} acts otherwise after it was pickled")


def _check_carry(name: str, method: str, carry: object, shape: tuple[int, int]) -> None:
    if not isinstance(carry, tuple) or not all(isinstance(part, Tensor) for part in carry):
        require(False, f"{name}.{method} gives a carry that is no tuple of tensors: {type(carry).__name__}")
        return
    shapes = [tuple(part.shape) for part in carry]
    require(
        all(each[:2] == shape for each in shapes),
        f"{name}.{method}: a carry's tensors have the leading axes task and episode, {shape}; got {shapes}",
    )


def _check_adapting(name: str, policy: AdaptedPolicy, support: Episodes, exact: bool) -> None:
    observations, seen = support.observations[:, :, 0], _copies(support.tensors())
    before = _acted(policy, observations)
    adapted = policy.adapt(support)
    require(torch.equal(before, _acted(policy, observations)), f"{name}.adapt changes the policy that it is called on")
    require(_equal(seen, support.tensors()), f"{name}.adapt writes into the episodes that it is given")
    require(_follows(adapted, AdaptedPolicy), f"{name}.adapt gives no `AdaptedPolicy`")
    after = _acted(adapted, observations)
    require(bool(after.isfinite().all()), f"{name} acts in numbers not finite after adapting")
    sent = pickle.loads(pickle.dumps(adapted))
    require(torch.equal(after, _acted(sent, observations)), f"{name} acts otherwise after it adapted and was pickled")
    if exact and isinstance(adapted, ShardablePolicy):
        for tasks in (slice(0, 1), slice(1, 5)):
            part = _acted(adapted.shard(tasks), observations[tasks])
            require(torch.equal(part, after[tasks]), f"{name}.shard gives policies that act otherwise than in company")


def _check_sharding(
    name: str,
    start: Start,
    collector: Collector,
    tasks: Sequence[Task],
    protocol: AdaptationProtocol,
    seeds: Sequence[int],
    whole: Trials,
) -> None:
    """Each task's part of a collection follows from that task and its seed alone, and noise from the seed."""
    for shard in ([3], [4, 0], [2, 1]):
        trials = collector.collect_trials(
            start(len(shard)), [tasks[index] for index in shard], protocol, [seeds[index] for index in shard]
        )
        expected = {key: value[shard] for key, value in _trial_tensors(whole).items()}
        require(
            _equal(_trial_tensors(trials), expected),
            f"{name}: a task's trial depends on the tasks beside it, here in a batch of {len(shard)} instead of "
            f"{len(tasks)}; see metarl/agents/batching.py",
        )


def _follows(value: object, protocol: type) -> bool:
    return isinstance(value, protocol)


def _acted(policy: AdaptedPolicy, observations: Tensor) -> Tensor:
    """Actions without noise at the start of an episode."""
    with torch.no_grad():
        return policy.act(observations, policy.initial_carry(observations.shape[1], None), None)[0]


def _collect(agent: Agent, state: State, dist: World, collector: Collector, step: int) -> Trials:
    tasks = dist.sample("train", agent.meta_batch, np.random.default_rng(step))
    seeds = task_seeds(0, step, num_tasks=len(tasks))
    return collector.collect_trials(agent.start(state, len(tasks)), tasks, agent.protocol, seeds)


def _check_state(name: str, method: str, state: State, device: torch.device) -> None:
    for key, value in _tensors(state).items():
        place = device if not key.startswith("store") else torch.device("cpu")
        require(value.device.type == place.type, f"{name}.{method} puts {key} on {value.device}, not on {place}")
        require(not value.requires_grad, f"{name}.{method} gives {key} with a graph behind it: detach it")
        require(value.is_contiguous(), f"{name}.{method} gives {key} as a view that is not contiguous")
        finite = not value.is_floating_point() or bool(value.isfinite().all())
        require(finite, f"{name}.{method} gives {key} with numbers that are not finite")
    addresses = [value.untyped_storage().data_ptr() for value in _tensors(state).values() if value.numel()]
    require(len(set(addresses)) == len(addresses), f"{name}.{method} gives two tensors that share their memory")


def _tensors(state: State) -> dict[str, Tensor]:
    """Everything that a state holds, by name."""
    chunks = {
        f"store.{state.store.dropped + index}.{key}": value
        for index, chunk in enumerate(state.store.chunks)
        for key, value in chunk.items()
    }
    parameters = {f"parameters.{key}": value for key, value in state.parameters.items()}
    return {**parameters, **{f"optimizer.{key}": value for key, value in state.optimizer.items()}, **chunks}


def _trial_tensors(trials: Trials) -> dict[str, Tensor]:
    return {
        f"{point}.{key}": value
        for point, episodes in enumerate(trials.episodes)
        for key, value in episodes.tensors().items()
    }


def _loaded(state: State) -> State:
    """A copy with its tensors in another order, as a checkpoint may hold them."""
    parameters, optimizer = (
        {key: value.clone() for key, value in reversed(list(part.items()))}
        for part in (state.parameters, state.optimizer)
    )
    return State(parameters, optimizer, state.store)


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in tensors.items()}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors are the same bit for bit; a NaN is one with itself."""
    return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    equal = one == other
    return bool((equal | ((one != one) & (other != other))).all())
