"""Policies from elsewhere: that they act as they do at home, each task apart from the others, and what is refused."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy import ndarray
from sb3_contrib import TQC, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy

import metarl
from metarl import envs
from metarl.envs import EnvDistribution
from metarl.errors import RunError, UsageError
from metarl.evaluation.guests import Model, guest, load_model
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.references import reference
from metarl.evaluation.trials import TrialJudge
from metarl.learning.collect import Collector
from metarl.learning.spaces import Spaces, flatten_batch, row, unflatten_batch
from metarl.testing.agents import check_policy

PENDULUM = dataclasses.replace(envs.make("pendulum-physics"), horizon=10)
CARTPOLE = dataclasses.replace(envs.make("cartpole-physics"), horizon=10)


def small(**options: int) -> dict[str, Any]:
    return {"device": "cpu", "seed": 1, "policy_kwargs": {"net_arch": [8], **options}}


def swing(observation: ndarray) -> ndarray:
    """Pushes the way the pendulum turns."""
    return 2 * np.sign(observation[2:])


def sac() -> SAC:
    return SAC("MlpPolicy", PENDULUM.sb3_env(num_envs=1), buffer_size=1, **small())


def recurrent(dist: EnvDistribution = CARTPOLE) -> RecurrentPPO:
    model = RecurrentPPO(
        "MlpLstmPolicy", dist.sb3_env(num_envs=2), n_steps=8, batch_size=16, **small(lstm_hidden_size=6)
    )
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(4.0)  # so that what it remembers decides
    return model


def predicted(model: Model, *arguments: Any) -> tuple[ndarray, tuple[ndarray, ...] | None]:
    return model.predict(*arguments, deterministic=True)


def test_a_model_gets_the_return_that_stable_baselines_gives_it() -> None:
    """Without noise, on the same tasks and resets."""
    model, tasks = sac(), PENDULUM.tasks("test")[:3]
    agent = guest(model, PENDULUM.spaces, "mine")
    collector = Collector(PENDULUM)
    episodes = collector.collect_episodes(agent.start(agent.init(0), 3), tasks, 1, [4, 5, 6], noise=False)
    for index, task in enumerate(tasks):
        env = PENDULUM.env(task)
        world, _ = np.random.SeedSequence([4, 5, 6][index]).spawn(2)
        observation, _ = env.reset(seed=int(world.generate_state(1)[0]))
        total = 0.0
        for _ in range(10):
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, *_ = env.step(action)
            total += float(reward)
        assert float(episodes.returns[index, 0]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", ["sac", "recurrent", "function"])
def test_they_keep_the_contract_of_policies(name: str) -> None:
    """Above all: a task's trial is the same whatever plays beside it, noise included, and nothing global is touched."""
    policies: dict[str, tuple[Any, EnvDistribution]] = {
        "sac": (sac(), PENDULUM),
        "recurrent": (recurrent(), CARTPOLE),
        "function": (swing, PENDULUM),
    }
    policy, dist = policies[name]
    agent = guest(policy, dist.spaces, name)
    before = torch.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    check_policy(lambda num_tasks: agent.start(agent.init(0), num_tasks), dist, agent.protocol)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == pickle.dumps(np.random.get_state())  # noqa: NPY002


def test_one_with_memory_remembers_within_an_episode_and_no_longer() -> None:
    model = recurrent()
    policy = guest(model, CARTPOLE.spaces, "recurrent").start(guest(model, CARTPOLE.spaces, "recurrent").init(0), 2)
    observations = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (6, 2, 3, 4)).astype(np.float32))
    carry = policy.initial_carry(3, None)
    acted = []
    for each in observations:
        actions, carry = policy.act(each, carry, None)
        acted.append(actions)
    for task in range(2):
        state, starts = None, np.ones(3, bool)
        for step, each in enumerate(observations):
            wanted, state = predicted(model, each[task].numpy(), state, starts)
            starts = np.zeros(3, bool)
            assert acted[step][task].tolist() == wanted.tolist()
    forgetful = torch.stack([policy.act(each, policy.initial_carry(3, None), None)[0] for each in observations])
    assert not torch.equal(forgetful, torch.stack(acted))


def test_functions_and_models_are_evaluated_by_one_call() -> None:
    judged = metarl.evaluate(swing, PENDULUM, num_tasks=4)
    assert judged.sources[0].learner == "swing" and judged.config.split == "test"
    with pytest.raises(ValueError, match="is evaluated on a task distribution"):
        metarl.evaluate(swing)  # pyright: ignore[reportArgumentType]
    model = DQN("MlpPolicy", CARTPOLE.sb3_env(num_envs=1), buffer_size=1, **small())
    settings = EvaluationSettings(num_tasks=2, actions="mean")
    score = metarl.evaluate(model, CARTPOLE, settings=settings).curve()[0].mean.value
    theirs = evaluate_policy(model, CARTPOLE.sb3_env(CARTPOLE.tasks("test")[:2], num_envs=2), 2)[0]
    assert isinstance(theirs, float) and 1 <= score <= 10 and 1 <= theirs <= 10


@pytest.mark.parametrize("algorithm", [PPO, A2C, SAC, TD3, DDPG, DQN, TQC, RecurrentPPO])
def test_a_file_of_each_algorithm_is_read_when_it_is_trusted(algorithm: type[BaseAlgorithm], tmp_path: Path) -> None:
    dist = CARTPOLE if algorithm in (DQN, RecurrentPPO) else PENDULUM
    options = small(lstm_hidden_size=6) if algorithm is RecurrentPPO else small()
    alias = "MlpLstmPolicy" if algorithm is RecurrentPPO else "MlpPolicy"
    model = algorithm(alias, dist.sb3_env(num_envs=2), **options)
    model.save(tmp_path / "mine.zip")
    with pytest.raises(UsageError, match="mine.zip holds pickled Python objects, .* add --trust-pickle"):
        load_model(tmp_path / "mine.zip", trusted=False)
    loaded = load_model(tmp_path / "mine.zip", trusted=True)
    observations = np.random.default_rng(0).normal(0, 1, (5, *(dist.observation_space.shape or ()))).astype(np.float32)
    wanted, _ = model.predict(observations, deterministic=True)
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], wanted)
    _, candidate = reference(str(tmp_path / "mine.zip"), dist, (), trusted=True)
    judge = TrialJudge(dist, Collector(dist))
    settings = EvaluationSettings(num_tasks=1)
    measured = judge.measure(candidate.learner, candidate.state, judge.tasks(settings), settings, 0, lambda share: None)
    assert np.isfinite(measured.metrics["return"]).all()


def test_broken_files_are_refused_in_one_line(tmp_path: Path) -> None:
    empty = b"PK\x05\x06" + bytes(18)
    cases = (("text.zip", b"hello", "is no zip file"), ("empty.zip", empty, "cannot be read as a model"))
    for name, content, message in cases:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name} {message}"):
            load_model(tmp_path / name, trusted=True)


@dataclasses.dataclass
class Foreign:
    """A model for other spaces."""

    observation_space: gym.Space[Any] = dataclasses.field(default_factory=lambda: PENDULUM.observation_space)
    action_space: gym.Space[Any] = dataclasses.field(default_factory=lambda: PENDULUM.action_space)

    def predict(
        self,
        observation: Any,
        state: tuple[ndarray, ...] | None = None,
        episode_start: ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[ndarray, tuple[ndarray, ...] | None]:
        return np.zeros((len(observation), 1), np.float32), None


def test_a_model_for_other_spaces_is_refused_naming_both() -> None:
    wide = spaces.Box(-np.inf, np.inf, (7,))
    for model, message in (
        (Foreign(observation_space=wide), r"mine observes Box\(-inf, inf, \(7,\).*, and here that would be Box\("),
        (Foreign(action_space=spaces.Box(-1, 1, (1,))), r"mine acts in Box\(-1.0, 1.0, .* would be Box\(-2.0, 2.0"),
        (Foreign(action_space=spaces.Discrete(2)), r"mine acts in Discrete\(2\), and here"),
    ):
        assert isinstance(model, Model)
        with pytest.raises(ValueError, match=message):
            guest(model, PENDULUM.spaces, "mine")
    unbounded = spaces.Box(-np.inf, np.inf, (3,), np.float64)  # another way of saying the same
    assert guest(Foreign(observation_space=unbounded), PENDULUM.spaces, "mine")


def test_functions_that_fail_or_act_outside_are_named() -> None:
    for function, kind, message in (
        (lambda observation: observation[9], RunError, "mine failed on an observation of Box.*IndexError"),
        (lambda observation: np.zeros(3), ValueError, r"mine gives actions that are none of Box\(-2.0.*shape \(3,\)"),
        (lambda observation: "left", ValueError, "mine gives actions that are none of Box"),
    ):
        policy = guest(function, PENDULUM.spaces, "mine")
        with pytest.raises(kind, match=message):
            policy.act(torch.zeros(1, 1, 3), (), None)
    for action in (5, 0.5, -1):
        policy = guest(lambda observation, action=action: action, CARTPOLE.spaces, "mine")
        with pytest.raises(ValueError, match=r"mine gives actions that are none of Discrete\(2\)"):
            policy.act(torch.zeros(1, 1, 4), (), None)


def test_actions_and_observations_come_back_from_their_units() -> None:
    box = Spaces(spaces.Discrete(3), spaces.Box(np.array([-2, 0], np.float32), np.array([4, 1], np.float32)))
    actions = np.array([[-2.0, 0.25], [4.0, 1.0], [1.0, 0.5]])
    np.testing.assert_allclose(box.to_action_space(box.from_action_space(actions)), actions)
    assert box.from_action_space(actions)[1].tolist() == [1.0, 1.0]
    space = spaces.Dict(
        a=spaces.Box(-1, 1, (2, 2)), b=spaces.Tuple((spaces.Discrete(3, start=5), spaces.MultiDiscrete([2, 4]))),
        c=spaces.MultiBinary(3),
    )  # fmt: skip
    space.seed(0)
    batch: Any = gym.vector.utils.create_empty_array(space, 4)
    gym.vector.utils.concatenate(space, [space.sample() for _ in range(4)], batch)
    again = unflatten_batch(space, flatten_batch(space, batch))
    assert np.array_equal(flatten_batch(space, again), flatten_batch(space, batch))
    assert isinstance(again, dict) and isinstance(again["b"], tuple)
    assert [space.contains(row(again, index)) for index in range(4)] == [True] * 4
