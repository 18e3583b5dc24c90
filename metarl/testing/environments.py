"""The part of a distribution's contract that its environments keep."""

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import create_empty_array
from jaxtyping import Shaped
from numpy import ndarray

from metarl.envs.distribution import EnvDistribution
from metarl.envs.observations import Observations
from metarl.tasks import SPLITS, Task
from metarl.testing.contract import ContractError, require

_STEPS = 20
_TASKS = 8  # at most; each is played alone, too


class Play(NamedTuple):
    """All that happened, one array a kind with the axes [step, env, ...]."""

    observations: tuple[ndarray, ...]
    """Those of the start among them."""
    rewards: ndarray
    terminated: ndarray
    truncated: ndarray
    infos: tuple[ndarray, ...]

    def of(self, index: int) -> "Play":
        """What happened in one sub-environment."""
        observations, infos = (tuple(part[:, index] for part in parts) for parts in (self.observations, self.infos))
        rewards, terminated, truncated = (part[:, index] for part in self[1:4])
        return Play(observations, rewards, terminated, truncated, infos)

    def equals(self, other: "Play") -> bool:
        """Whether the same happened, bit for bit."""
        pairs = zip(self.arrays(), other.arrays(), strict=True)
        return all(np.array_equal(one, another) for one, another in pairs)

    def arrays(self) -> tuple[ndarray, ...]:
        return (*self.observations, *self[1:4], *self.infos)


def some_tasks(dist: EnvDistribution) -> tuple[Task, ...]:
    """Tasks of several families, the held-out ones too."""
    by_family = {task.family: task for split in SPLITS for task in dist.tasks(split)}
    return tuple(by_family.values())[-_TASKS:]


def random_actions(dist: EnvDistribution, steps: int, num_envs: int, seed: int = 0) -> Shaped[ndarray, "step env ..."]:
    """Actions over the whole range: float32, or integers for Discrete."""
    space, rng = dist.action_space, np.random.default_rng(seed)
    if isinstance(space, Discrete):
        return space.start + rng.integers(space.n, size=(steps, num_envs))
    assert isinstance(space, Box)
    low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
    return rng.uniform(low, high, (steps, num_envs, *space.shape)).astype(np.float32)


def play(
    dist: EnvDistribution,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    actions: Shaped[ndarray, "step env ..."],
    *,
    num_envs: int | None = None,
    threads: int = 1,
) -> Play:
    """Plays the tasks side by side, in the first of `num_envs` sub-environments."""
    count = len(tasks)
    venv = dist.vector_env(num_envs or count, threads)
    idle = np.repeat(actions[:, :1], venv.num_envs - count, axis=1)
    observations, _ = venv.start_episodes(tasks, seeds)
    seen, records = [_leaves(observations)], []
    for row in np.concatenate([actions, idle], axis=1):
        observations, rewards, terminated, truncated, infos = venv.step(row)
        seen.append(_leaves(observations))
        records.append((rewards, terminated, truncated, *(infos[name] for name in sorted(infos))))
    venv.close()
    stacked = [np.stack(column)[:, :count] for column in zip(*records, strict=True)]
    leaves = tuple(np.stack(column)[:, :count] for column in zip(*seen, strict=True))
    return Play(leaves, stacked[0], stacked[1], stacked[2], tuple(stacked[3:]))


def check_spaces(dist: EnvDistribution) -> None:
    """Observations are of the space, actions of the space are taken, and all else has its shape and type."""
    venv = dist.vector_env(3)
    require(venv.single_observation_space == dist.observation_space, f"{dist.id}: the simulator observes otherwise")
    require(venv.single_action_space == dist.action_space, f"{dist.id}: the simulator acts otherwise")
    require(venv.metadata["autoreset_mode"] == AutoresetMode.DISABLED, f"{dist.id}: resets by itself")
    observations, infos = venv.reset(seed=0)
    for actions in random_actions(dist, _STEPS, 3):
        require(
            venv.observation_space.contains(observations),
            f"{dist.id}: {observations} is not in {dist.observation_space}",
        )
        observations, rewards, terminated, truncated, infos = venv.step(actions)
        flags = {"terminated": terminated, "truncated": truncated, "diverged": infos["diverged"]}
        for name, array in flags.items():
            require(array.shape == (3,) and array.dtype == np.bool_, f"{dist.id}: {name} must be bool [env]")
        for name, array in {"rewards": rewards, **infos}.items():
            numbers = name == "diverged" or array.dtype == np.float64
            require(array.shape == (3,) and numbers, f"{dist.id}: {name} must be float64 [env], got {array.dtype}")
    require(dist.score != "success" or "success" in infos, f"{dist.id} is judged by success, which infos do not tell")
    venv.close()


def check_observe(dist: EnvDistribution) -> None:
    """The simulator writes every entry of the arrays it is given, looking changes nothing, and the idle stay idle."""
    simulator = dist.make_simulator(2, 1)
    for index, task in enumerate(itertools.islice(itertools.cycle(dist.tasks("train")), 2)):
        simulator.set_task(index, task)
        simulator.reset(index, np.random.default_rng(index))
    outs = [create_empty_array(dist.observation_space, 2, fill) for fill in (np.zeros, np.ones)]
    for out in outs:
        returned = simulator.observe(out)
        require(returned is None, f"{dist.id}: {type(simulator).__name__}.observe must fill `out` and return nothing")
    same = all(np.array_equal(one, other) for one, other in zip(*map(_leaves, outs), strict=True))
    require(
        same, f"{dist.id}: {type(simulator).__name__}.observe leaves entries unwritten, or changes what it looks at"
    )
    simulator.step(random_actions(dist, 1, 2)[0], np.array([True, False]))
    simulator.observe(outs[1])
    same = all(np.array_equal(one[1], other[1]) for one, other in zip(*map(_leaves, outs), strict=True))
    require(same, f"{dist.id}: {type(simulator).__name__}.step moves a sub-simulation that is not active")
    simulator.close()


def check_seeds(dist: EnvDistribution) -> None:
    """The same seeds and actions give the same episodes, also in an environment that has played others."""
    tasks = some_tasks(dist)
    actions, seeds = random_actions(dist, _STEPS, len(tasks)), range(3, 3 + len(tasks))
    first, again = (play(dist, tasks, seeds, actions) for _ in range(2))
    require(first.equals(again), f"{dist.id}: the same seeds give other episodes")
    venv = dist.vector_env(len(tasks))
    venv.set_tasks(tasks)
    venv.reset(seed=100)
    for row in actions[::-1]:
        venv.step(row)
    observations, _ = venv.reset(seed=3)
    for number, row in enumerate((*actions, None)):
        same = zip(_leaves(observations), first.observations, strict=True)
        require(
            all(np.array_equal(now, before[number]) for now, before in same),
            f"{dist.id}: an episode depends on what was played before it (differs at step {number})",
        )
        if row is not None:
            observations, *_ = venv.step(row)
    venv.close()


def check_independence(dist: EnvDistribution) -> None:
    """An episode depends on its own task, seed and actions: not on others, their number or order, nor on threads."""
    tasks = some_tasks(dist) * 2
    count = len(tasks)
    actions, seeds = random_actions(dist, _STEPS, count), list(range(5, 5 + count))
    together = play(dist, tasks, seeds, actions)
    threaded = play(dist, tasks, seeds, actions, threads=3)
    require(together.equals(threaded), f"{dist.id}: the number of threads changes what happens")
    backwards = play(dist, tasks[::-1], seeds[::-1], actions[:, ::-1])
    for index in range(count):
        same = together.of(index).equals(backwards.of(count - 1 - index))
        require(same, f"{dist.id}: {tasks[index]} depends on its place among others")
    for index in range(count // 2):
        own = actions[:, index : index + 1]
        alone = play(dist, tasks[index : index + 1], seeds[index : index + 1], own, num_envs=1 + index % 2)
        same = together.of(index).equals(alone.of(0))
        require(same, f"{dist.id}: {tasks[index]} depends on the tasks beside it")


def check_horizon(dist: EnvDistribution) -> None:
    """At the horizon an episode is truncated, if it did not terminate; then nothing moves."""
    horizon, tasks = 3, some_tasks(dist)
    short = dataclasses.replace(dist, horizon=horizon)
    happened = play(short, tasks, range(len(tasks)), random_actions(dist, horizon + 3, len(tasks)))
    ended = happened.terminated | happened.truncated
    require(
        not (happened.terminated & happened.truncated).any(), f"{dist.id}: an episode both terminates and is truncated"
    )
    require(not happened.truncated[: horizon - 1].any(), f"{dist.id}: an episode is truncated before the horizon")
    require(ended[horizon - 1 :].all(), f"{dist.id}: an episode goes on after the horizon")
    for kind in (happened.terminated, happened.truncated):
        require((kind[1:] >= kind[:-1]).all(), f"{dist.id}: an episode that has ended goes on")
    frozen = ended[:-1]  # ended before the step
    require(not happened.rewards[1:][frozen].any(), f"{dist.id}: there are rewards after an episode's end")
    for leaf in happened.observations:
        require(np.array_equal(leaf[2:][frozen], leaf[1:-1][frozen]), f"{dist.id}: it moves after an episode's end")


def check_bad_actions(dist: EnvDistribution) -> None:
    """A NaN ends its own episode and no other; a number out of Discrete's range is refused by its index."""
    tasks = tuple(itertools.islice(itertools.cycle(dist.tasks("train")), 3))
    actions = random_actions(dist, 6, 3)
    bad = actions.copy()
    if isinstance(dist.action_space, Discrete):
        bad[0, 1] = dist.action_space.start + dist.action_space.n
        try:
            play(dist, tasks, range(3), bad)
        except ValueError as error:
            require("1" in str(error), f"{dist.id}: a wrong action must be refused by its index, got {error}")
            return
        raise ContractError(f"{dist.id}: the action {bad[0, 1]} must be refused")
    bad[0, 1] = np.nan
    healthy, poisoned = (play(dist, tasks, range(3), each) for each in (actions, bad))
    for index in (0, 2):
        require(healthy.of(index).equals(poisoned.of(index)), f"{dist.id}: a NaN action disturbs other episodes")
    require(poisoned.terminated[:, 1].all(), f"{dist.id}: a NaN action does not end its episode")
    require(not poisoned.rewards[:, 1].any(), f"{dist.id}: a NaN action is rewarded")
    require(all(np.isfinite(leaf).all() for leaf in poisoned.observations), f"{dist.id}: a NaN action can be observed")


def check_resets(dist: EnvDistribution) -> None:
    """A reset of some leaves the others alone; a new task is taken up at the next reset, and only then."""
    tasks = tuple(itertools.islice(itertools.cycle(dist.tasks("train")[::-1]), 2))
    actions = random_actions(dist, 10, 2)
    disturbed, undisturbed = dist.vector_env(2), dist.vector_env(2)
    for venv in (disturbed, undisturbed):
        venv.set_tasks(tasks)
        venv.reset(seed=0)
    disturbed.set_tasks(dist.tasks("test")[:1] * 2)
    last: tuple[ndarray, ...] = ()
    for step, row in enumerate(actions):
        if step == 5:
            disturbed.reset(seed=[None, 9], options={"reset_mask": np.array([False, True])})
        one, other = disturbed.step(row), undisturbed.step(row)
        last = tuple(_leaves(one[0]))
        same = zip((*_leaves(one[0]), one[1]), (*_leaves(other[0]), other[1]), strict=True)
        require(
            all(np.array_equal(left[0], right[0]) for left, right in same),
            f"{dist.id}: a reset or a new task of others, or one of its own before its reset, changes an episode",
        )
    fresh = play(dist, dist.tasks("test")[:1], [9], actions[5:, 1:])
    same = zip(last, fresh.observations, strict=True)
    require(all(np.array_equal(a[1], b[-1, 0]) for a, b in same), f"{dist.id}: a new task is not taken up at its reset")


def check_outputs(dist: EnvDistribution) -> None:
    """What was returned once is never written into."""
    venv = dist.vector_env(2)
    outputs = [*_leaves(venv.reset(seed=0)[0])]
    copies = [array.copy() for array in outputs]
    for row in random_actions(dist, 3, 2):
        observations, *others, infos = venv.step(row)
        arrays = [*_leaves(observations), *others, *infos.values()]
        outputs += arrays
        copies += [array.copy() for array in arrays]
    venv.reset()
    require(all(map(np.array_equal, outputs, copies)), f"{dist.id}: arrays that were returned are written into")


def check_wrong_tasks(dist: EnvDistribution) -> None:
    """Tasks of another distribution are refused before anything moves."""
    venv = dist.vector_env(2)
    for task in (Task.of("moon", gravity=1.6), Task.of(dist.tasks("train")[0].family, **{"no such parameter": 1.0})):
        try:
            venv.set_tasks([task, task])
        except ValueError:
            continue
        raise ContractError(f"{dist.id}: the task {task} must be refused with a ValueError")
    venv.close()


def check_single(dist: EnvDistribution) -> None:
    """`dist.env(task)` is a plain Gymnasium environment that plays what the vector environment plays."""
    task, other = dist.tasks("test")[-1], dist.tasks("train")[0]
    actions = random_actions(dist, _STEPS, 1)
    wanted = play(dist, [task], [7], actions)
    env = dist.env(other)
    require(env.spec is not None and env.spec.max_episode_steps == dist.horizon, f"{dist.id}: spec lacks the horizon")
    observation, _ = env.reset(seed=7, options={"task": task})
    require(env.task == task, f"{dist.id}: the option task is not taken")
    for step, action in enumerate(actions[:, 0]):
        seen = zip(_leaves(observation), wanted.observations, strict=True)
        require(all(np.array_equal(a, b[step, 0]) for a, b in seen), f"{dist.id}: the single environment differs")
        observation, reward, terminated, truncated, _ = env.step(action)
        same = (reward, terminated, truncated) == tuple(part[step, 0] for part in wanted[1:4])
        require(same, f"{dist.id}: the single environment differs")
        if terminated or truncated:
            break
    with warnings.catch_warnings():
        # Infinite bounds and other ranges than ±1 are some bodies' own.
        warnings.filterwarnings("ignore", ".*Box (observation|action) space.*")
        check_env(dist.env(task), skip_render_check=True)
    for _ in range(2):
        env.close()


def check_pictures(dist: EnvDistribution) -> None:
    """Pictures have the size asked for, and show that something has moved."""
    env = dist.env(render_mode="rgb_array", width=160, height=120)
    env.reset(seed=0)
    first = env.render()
    for action in random_actions(dist, _STEPS, 1)[:, 0]:
        env.step(action)
    last = env.render()
    for picture in (first, last):
        right = picture is not None and picture.shape == (120, 160, 3) and picture.dtype == np.uint8
        require(right, f"{dist.id}: a picture must be uint8 of shape (120, 160, 3) [height, width, colour]")
    same = np.array_equal(np.asarray(first), np.asarray(last))
    require(not same, f"{dist.id}: the picture stays the same, whatever happens")
    for _ in range(2):
        env.close()


def _leaves(observations: Observations) -> list[ndarray]:
    """The arrays that observations are made of."""
    if isinstance(observations, dict):
        return [leaf for _, part in sorted(observations.items()) for leaf in _leaves(part)]
    if isinstance(observations, tuple):
        return [leaf for part in observations for leaf in _leaves(part)]
    return [np.asarray(observations)]


CHECKS: tuple[Callable[[EnvDistribution], None], ...] = (
    check_spaces,
    check_observe,
    check_seeds,
    check_independence,
    check_horizon,
    check_bad_actions,
    check_resets,
    check_outputs,
    check_wrong_tasks,
    check_single,
)
"""All but pictures."""
