"""What every distribution promises, shown on each of them."""

import dataclasses
import json
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from metarl import envs
from metarl.envs import EnvDistribution
from metarl.tasks import SPLITS, Split, Task, Uniform

# Meta-World's many distributions differ in their tasks alone, so two of them stand for all.
CHECKED = [id for id in envs.list() if not id.startswith("metaworld")] + ["metaworld-ml1-reach-v3", "metaworld-ml10"]


@pytest.fixture(params=CHECKED)
def dist(request: pytest.FixtureRequest) -> EnvDistribution:
    return envs.make(request.param)


def overlap(dist: EnvDistribution, draws: int) -> set[Task]:
    """Tasks that stand in more than one split, among those listed and those drawn for training."""
    train = {*dist.sample("train", draws, np.random.default_rng(0)), *dist.tasks("train")}
    validation, test = set(dist.tasks("validation")), set(dist.tasks("test"))
    return (train & validation) | (train & test) | (validation & test)


def test_splits_share_no_task_unless_they_say_so(dist: EnvDistribution) -> None:
    assert bool(overlap(dist, 5000)) != dist.held_out
    if not dist.held_out:
        assert dist.tasks("train") == dist.tasks("validation") == dist.tasks("test")


def test_an_overlap_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.tasks.space._draw_outside", lambda family, reserved, rng: family.draw(rng))
    assert overlap(envs.make("cheetah-velocity"), 5000)


@pytest.mark.parametrize("split", SPLITS)
def test_lists_are_frozen(dist: EnvDistribution, split: Split) -> None:
    listed = dist.tasks(split)
    assert listed == envs.make(dist.id).tasks(split)
    assert len(set(listed)) == len(listed) > 0
    if dist.held_out and split != "train":
        assert set(dist.sample(split, len(listed), np.random.default_rng(7))) == set(listed)


def test_samples_follow_from_the_generator(dist: EnvDistribution) -> None:
    draws = [dist.sample("train", 50, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_wrong_samples_are_refused(dist: EnvDistribution) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="-1 tasks"):
        dist.sample("train", -1, rng)
    if dist.held_out:
        with pytest.raises(ValueError, match="100000 were asked for"):
            dist.sample("test", 100000, rng)


def test_tasks_survive_json_and_pickle(dist: EnvDistribution) -> None:
    for task in dist.tasks("test"):
        assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
        assert pickle.loads(pickle.dumps(task)) == task
        assert Task.from_json(task.to_json()).id == task.id
    assert pickle.loads(pickle.dumps(dist)).hash == dist.hash


def test_every_parameter_has_a_unit(dist: EnvDistribution) -> None:
    used = {name for split in SPLITS for task in dist.tasks(split) for name, _ in task.parameters}
    assert dist.units.keys() == used
    assert all(dist.units.values())


def test_hash_tells_specs_apart(dist: EnvDistribution) -> None:
    assert dist.hash == envs.make(dist.id).hash
    spec = json.loads(json.dumps(dist.spec()))
    assert spec == dist.spec()
    longer = dataclasses.replace(dist, horizon=dist.horizon + 1)
    other_physics = dataclasses.replace(dist, physics={**dist.physics, "reward": "another"})
    family = dist.space.train[0]
    wider = dataclasses.replace(family, parameters={**family.parameters, "extra": Uniform(0.0, 1.0, 0.1, "m")})
    other_tasks = dataclasses.replace(dist, space=dataclasses.replace(dist.space, train=(wider,)))
    assert len({other.hash for other in (dist, longer, other_physics, other_tasks)}) == 4


def test_hashes_of_distributions_differ() -> None:
    assert len({envs.make(id).hash for id in envs.list()}) == len(envs.list())


def random_actions(dist: EnvDistribution, steps: int, num_envs: int, seed: int = 0) -> np.ndarray:
    space = dist.action_space
    return np.random.default_rng(seed).uniform(space.low, space.high, (steps, num_envs, *space.shape)).astype("f4")


def play(dist: EnvDistribution, tasks: tuple[Task, ...], steps: int, seed: int, threads: int = 1) -> list[np.ndarray]:
    """Everything that happens, one array a kind with the axes [step, env, ...]."""
    venv = dist.vector_env(len(tasks), threads)
    venv.set_tasks(tasks)
    first, _ = venv.reset(seed=seed)
    records = []
    for actions in random_actions(dist, steps, len(tasks)):
        *outputs, infos = venv.step(actions)
        records.append((*outputs, *(infos[name] for name in sorted(infos))))
    venv.close()
    return [first, *(np.stack(column) for column in zip(*records, strict=True))]


def some_tasks(dist: EnvDistribution) -> tuple[Task, ...]:
    """One task of each family, the held-out ones too."""
    by_family = {task.family: task for split in SPLITS for task in dist.tasks(split)}
    return tuple(by_family.values())


def equal(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_seeds_decide_everything(dist: EnvDistribution) -> None:
    tasks = some_tasks(dist)
    first, again, other = (play(dist, tasks, 5, seed) for seed in (3, 3, 4))
    assert equal(first, again)
    if not dist.id.startswith(("point", "metaworld")):  # these start where their task says
        assert not np.array_equal(first[0], other[0])


def test_threads_change_nothing(dist: EnvDistribution) -> None:
    tasks = some_tasks(dist) * 3
    one, more = (play(dist, tasks, 20, 0, threads) for threads in (1, 3))
    assert equal(one, more)


def test_neighbours_change_nothing(dist: EnvDistribution) -> None:
    tasks = some_tasks(dist)
    together = play(dist, tasks, 20, 5)
    actions = random_actions(dist, 20, len(tasks))
    for index, task in enumerate(tasks):
        venv = dist.vector_env(1)
        venv.set_tasks([task])
        first, _ = venv.reset(seed=5 + index)
        alone = [venv.step(actions[step, index : index + 1]) for step in range(20)]
        assert np.array_equal(first[0], together[0][index])
        assert np.array_equal([step[0][0] for step in alone], together[1][:, index])
        assert np.array_equal([step[1][0] for step in alone], together[2][:, index])


def test_single_env_is_the_vector_env(dist: EnvDistribution) -> None:
    tasks = some_tasks(dist)[-6:]
    together = play(dist, tasks, dist.horizon, 5)
    actions = random_actions(dist, dist.horizon, len(tasks))
    for index, task in enumerate(tasks):
        env = dist.env(task)
        first, _ = env.reset(seed=5 + index)
        steps = [env.step(action) for action in actions[:, index]]
        assert np.array_equal(first, together[0][index])
        assert np.array_equal([step[0] for step in steps], together[1][:, index])
        assert [step[1] for step in steps] == together[2][:, index].tolist()
        assert [step[2] for step in steps] == together[3][:, index].tolist()
        assert [step[3] for step in steps] == together[4][:, index].tolist()
        env.close()


def test_shapes_and_types(dist: EnvDistribution) -> None:
    venv = dist.vector_env(3)
    assert venv.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert venv.single_observation_space == dist.observation_space
    assert venv.single_action_space == dist.action_space
    observations, infos = venv.reset(seed=0)
    assert observations in venv.observation_space
    assert observations.dtype == np.float64
    assert venv.action_space.sample() in venv.action_space
    observations, rewards, terminated, truncated, infos = venv.step(random_actions(dist, 1, 3)[0])
    assert observations.shape == (3, *dist.observation_space.shape)
    for flags in (terminated, truncated, infos["diverged"]):
        assert flags.shape == (3,)
        assert flags.dtype == np.bool_
    for figures in (rewards, *(value for name, value in infos.items() if name != "diverged")):
        assert figures.shape == (3,)
        assert figures.dtype == np.float64


def test_outputs_are_never_overwritten(dist: EnvDistribution) -> None:
    venv = dist.vector_env(2)
    outputs = [venv.reset(seed=0)[0]]
    copies = [outputs[0].copy()]
    for actions in random_actions(dist, 3, 2):
        step = venv.step(actions)
        outputs += [*step[:4], *step[4].values()]
        copies += [value.copy() for value in (*step[:4], *step[4].values())]
    venv.reset()
    assert equal(outputs, copies)


def test_horizon_truncates_and_then_nothing_moves(dist: EnvDistribution) -> None:
    venv = dist.vector_env(2)
    last, _ = venv.reset(seed=0)
    ended = np.zeros(2, bool)
    for step, actions in enumerate(random_actions(dist, dist.horizon + 3, 2), 1):
        observations, rewards, terminated, truncated, infos = venv.step(actions)
        assert np.array_equal(truncated, ~terminated & (step >= dist.horizon))
        assert np.array_equal(observations[ended], last[ended])
        assert not rewards[ended].any()
        assert not any(value[ended].any() for value in infos.values())
        ended, last = terminated | truncated, observations
    assert ended.all()


def test_reset_mask_leaves_the_others_alone(dist: EnvDistribution) -> None:
    actions = random_actions(dist, 30, 2)
    venv, undisturbed, fresh = dist.vector_env(2), dist.vector_env(2), dist.vector_env(2)
    venv.reset(seed=0)
    undisturbed.reset(seed=0)
    for step in range(10):
        assert equal(list(venv.step(actions[step])[:4]), list(undisturbed.step(actions[step])[:4]))
    venv.reset(seed=[None, 9], options={"reset_mask": np.array([False, True])})
    fresh.reset(seed=[0, 9])
    for step in range(10, 30):
        mixed, old, new = (each.step(actions[step])[:4] for each in (venv, undisturbed, fresh))
        assert equal([kind[0] for kind in mixed], [kind[0] for kind in old])
        assert equal([kind[1] for kind in mixed], [kind[1] for kind in new])
        assert not np.array_equal(mixed[0][1], old[0][1])


def test_streams_go_on_without_a_seed(dist: EnvDistribution) -> None:
    left, right = dist.vector_env(2), dist.vector_env(2)
    starts = [[venv.reset(seed=seed)[0] for seed in (1, None, None)] for venv in (left, right)]
    assert equal(starts[0], starts[1])
    assert np.array_equal(left.reset(seed=1)[0], starts[0][0])


def test_tasks_take_effect_at_the_reset(dist: EnvDistribution) -> None:
    one, other = dist.tasks("train")[:2]
    actions = random_actions(dist, 10, 1)
    changed, kept = dist.vector_env(1), dist.vector_env(1)
    for venv in (changed, kept):
        venv.set_tasks([one])
        venv.reset(seed=0)
    changed.set_tasks([other])
    for step in range(5):
        assert np.array_equal(changed.step(actions[step])[1], kept.step(actions[step])[1])
    changed.reset(seed=0)
    fresh = dist.vector_env(1)
    fresh.set_tasks([other])
    fresh.reset(seed=0)
    kept.reset(seed=0)
    new, old = [], []
    for step in range(10):
        new.append(changed.step(actions[step])[1][0])
        old.append(kept.step(actions[step])[1][0])
        assert new[-1] == fresh.step(actions[step])[1][0]
    assert new != old or dist.id == "point-navigation-sparse"


def test_wrong_tasks_are_refused(dist: EnvDistribution) -> None:
    venv = dist.vector_env(3)
    task = dist.tasks("train")[0]
    with pytest.raises(ValueError, match="needs 3 tasks, one for each sub-environment, got 2"):
        venv.set_tasks([task, task])
    with pytest.raises(ValueError, match="unknown families moon"):
        venv.set_tasks([task, task, Task.of("moon", gravity=1.6)])
    with pytest.raises(ValueError, match=r"has the parameters .* got \['gravity'\]"):
        venv.set_tasks([task, task, Task.of(task.family, gravity=1.6)])


def test_wrong_calls_are_refused(dist: EnvDistribution) -> None:
    for arguments in ((0, 1), (-2, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be at least 1, got"):
            dist.vector_env(*arguments)
    venv = dist.vector_env(2)
    actions = random_actions(dist, 1, 2)[0]
    with pytest.raises(gymnasium.error.ResetNeeded):
        venv.step(actions)
    venv.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions must have the shape \(2, "):
        venv.step(actions[:1])
    with pytest.raises(ValueError, match="one seed for each of the 2"):
        venv.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask must be bool"):
        venv.reset(options={"reset_mask": np.array([True])})
    with pytest.raises(ValueError, match="knows the option reset_mask only"):
        venv.reset(options={"mask": np.array([True, False])})
    with pytest.raises(ValueError, match="unknown render_mode"):
        dist.env(render_mode="human")


def test_actions_that_are_no_numbers_end_one_episode(dist: EnvDistribution) -> None:
    venv, healthy = dist.vector_env(3), dist.vector_env(3)
    last, _ = venv.reset(seed=0)
    healthy.reset(seed=0)
    ends = {1: 2, 2: 4}  # sub-environment: the step with the bad action
    for step, actions in enumerate(random_actions(dist, 6, 3)):
        poisoned = actions.copy()
        if step in ends.values():
            poisoned[1 if step == 2 else 2, 0] = np.nan if step == 2 else np.inf
        observations, rewards, terminated, truncated, infos = venv.step(poisoned)
        expected = healthy.step(actions)
        assert not truncated.any()
        for index in range(3):
            ended = index in ends and step >= ends[index]
            assert terminated[index] == infos["diverged"][index] == ended
            assert np.array_equal(observations[index], last[index] if ended else expected[0][index])
            assert rewards[index] == (0 if ended else expected[1][index])
        last = observations
    venv.reset(seed=0)
    observations, _, terminated, _, infos = venv.step(random_actions(dist, 1, 3)[0])
    assert np.isfinite(observations).all()
    assert not terminated.any()
    assert not infos["diverged"].any()


# The spaces are HalfCheetah-v5's and Meta-World's own (a hidden goal is three zeros); Gymnasium warns of them.
@pytest.mark.filterwarnings("ignore:.*A Box observation space maximum and minimum values are equal.*")
@pytest.mark.filterwarnings("ignore:.*A Box observation space (m..imum) value is -?infinity.*")
def test_gymnasium_checks_the_single_env(dist: EnvDistribution) -> None:
    check_env(dist.env(), skip_render_check=True)


def test_draws_pictures(dist: EnvDistribution, drawing: str) -> None:
    for task in some_tasks(dist)[-6:]:
        env = dist.env(task, render_mode="rgb_array", width=160, height=120)
        env.reset(seed=0)
        first = env.render()
        for action in random_actions(dist, 20, 1)[:, 0]:
            env.step(action)
        last = env.render()
        env.close()
        assert first is not None
        assert last is not None
        assert last.shape == (120, 160, 3)
        assert last.dtype == np.uint8
        assert not np.array_equal(first, last)
    silent = dist.env()
    silent.reset(seed=0)
    assert silent.render() is None


def test_gymnasium_makes_it(dist: EnvDistribution) -> None:
    name = envs.gymnasium_id(dist.id)
    task = dist.tasks("test")[-1]
    made = gymnasium.make(name, task=task, disable_env_checker=True)
    direct = dist.env(task)
    assert np.array_equal(made.reset(seed=4)[0], direct.reset(seed=4)[0])
    action = random_actions(dist, 1, 1)[0, 0]
    assert made.step(action)[1] == direct.step(action)[1]


def test_unknown_ids_name_the_near_ones() -> None:
    with pytest.raises(ValueError, match="did you mean cheetah-terrain"):
        envs.make("cheeta-terrain")
    with pytest.raises(ValueError, match="there are cheetah-direction, "):
        envs.make("xyz")
