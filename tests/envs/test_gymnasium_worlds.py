# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Any Gymnasium environment as a distribution: parameters are found, set and felt, and nothing else changes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.spaces import Box, Discrete, Text
from gymnasium.utils import seeding
from numpy import ndarray

from metarl import envs
from metarl.envs import EnvDistribution, SimulatorError, from_gymnasium
from metarl.envs.gymnasium_simulator import GymnasiumSimulator
from metarl.errors import RunError
from metarl.tasks import Choice, Task, Uniform
from metarl.testing import check_distribution
from metarl.testing.environments import check_pictures

TEN_LINES = Path(__file__).parent.parent / "external" / "ten_lines.py"
HALF_TO_TWICE = Uniform(0.5, 2.0, 0.01, "times the default")
HOPPER = {
    "body_mass*": HALF_TO_TWICE,
    "dof_damping[foot_joint]": Uniform(0.5, 2.0, 0.01, "N m s"),
    "geom_friction[foot_geom][0]": Uniform(0.5, 2.5, 0.01, "sliding coefficient"),
    "opt.gravity[2]": Uniform(-12.0, -6.0, 0.01, "m/s²"),
    "ctrl_cost_weight": Uniform(0.0, 0.5, 0.001, "1"),
    "_healthy_reward": Uniform(0.5, 1.5, 0.01, "1"),
}
DEFAULTS = {
    "body_mass*": 1.0,
    "dof_damping[foot_joint]": 1.0,
    "geom_friction[foot_geom][0]": 2.0,
    "opt.gravity[2]": -9.81,
    "ctrl_cost_weight": 0.001,
    "_healthy_reward": 1.0,
}


@pytest.fixture(scope="module")
def hopper() -> EnvDistribution:
    return from_gymnasium("Hopper-v5", id="hopper", about="Hop.", parameters=HOPPER)


def task(**parameters: float) -> Task:
    return Task.of("physics", **parameters)


def inside(dist: EnvDistribution, tasks: list[Task]) -> tuple[envs.TaskVectorEnv, list[gym.Env[Any, Any]]]:
    """A vector environment that has been reset on the tasks, and the environments in it."""
    venv = dist.vector_env(len(tasks))
    venv.set_tasks(tasks)
    venv.reset(seed=0)
    simulator = venv._simulator
    assert isinstance(simulator, GymnasiumSimulator)
    return venv, [simulator._env(index) for index in range(len(tasks))]


def test_ten_lines_are_enough(drawing: str) -> None:
    assert len(TEN_LINES.read_text().splitlines()) <= 10
    dist = envs.make(f"{TEN_LINES}:pendulum")
    assert (dist.id, dist.horizon, dist.about[:8]) == ("my-pendulum", 200, "Swing up")
    assert {float(task["l"]) >= 1.5 for task in dist.tasks("test")} == {True}
    check_distribution(dist)


def test_with_default_parameters_it_moves_bit_for_bit_as_gymnasiums(hopper: EnvDistribution) -> None:
    venv, _ = inside(hopper, [task(**DEFAULTS)] * 2)
    plain = [gym.make("Hopper-v5", disable_env_checker=True) for _ in range(2)]
    rng = np.random.default_rng(1)
    for _ in range(3):
        observations, _ = venv.reset(seed=[5, 6])
        for row, env in enumerate(plain):
            seed = int(seeding.np_random(5 + row)[0].integers(2**31))
            assert np.array_equal(observations[row], env.reset(seed=seed)[0])
        ended = np.zeros(2, bool)
        while not ended.all():
            actions = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
            observations, rewards, terminated, truncated, infos = venv.step(actions)
            for row, env in enumerate(plain):
                if not ended[row]:
                    observation, reward, fell, _, info = env.step(actions[row])
                    assert np.array_equal(observations[row], observation)
                    assert (rewards[row], terminated[row]) == (reward, fell)
                    assert infos["x_position"][row] == info["x_position"]
            ended |= terminated | truncated


def test_each_kind_of_parameter_is_set_where_it_belongs(hopper: EnvDistribution) -> None:
    changed = {
        "body_mass*": 1.5,
        "dof_damping[foot_joint]": 0.7,
        "geom_friction[foot_geom][0]": 1.1,
        "opt.gravity[2]": -6.5,
        "ctrl_cost_weight": 0.2,
        "_healthy_reward": 1.25,
    }
    venv, made = inside(hopper, [task(**changed), task(**DEFAULTS)])
    plain = gym.make("Hopper-v5").unwrapped
    one, other = (env.unwrapped for env in made)
    np.testing.assert_allclose(one.model.body_mass, 1.5 * plain.model.body_mass)
    assert one.model.body_subtreemass[0] == pytest.approx(1.5 * plain.model.body_mass.sum())  # derived anew
    assert one.model.dof_damping.tolist() == [0, 0, 0, 1, 1, 0.7]
    assert one.model.geom_friction[:, 0].tolist() == [1.0, 0.9, 0.9, 0.9, 1.1]
    assert one.model.opt.gravity.tolist() == [0, 0, -6.5]
    assert (one._ctrl_cost_weight, one._healthy_reward) == (0.2, 1.25)
    for field in ("body_mass", "dof_damping", "geom_friction", "body_subtreemass", "dof_invweight0"):
        assert np.array_equal(getattr(other.model, field), getattr(plain.model, field)), field
    for factor in (0.5, 1.75, 1.0):  # of the default, not of what was there
        venv.set_tasks([task(**{**changed, "body_mass*": factor})] * 2)
        venv.reset(seed=0)
        np.testing.assert_allclose(one.model.body_mass, factor * plain.model.body_mass)


def test_mujoco_environments_keep_the_contract_and_are_drawn(hopper: EnvDistribution, drawing: str) -> None:
    check_distribution(hopper)
    assert hopper.control_period == pytest.approx(0.008)
    assert hopper.physics["mujoco"]


def test_what_is_derived_from_a_parameter_follows_it() -> None:
    dist = envs.make("cartpole-physics")
    _, (env,) = inside(dist, [task(gravity=9.8, masscart=2.0, masspole=0.4, length=0.9, force_mag=10.0)])
    cart_pole = env.unwrapped
    assert isinstance(cart_pole, CartPoleEnv)
    assert (cart_pole.total_mass, cart_pole.polemass_length) == (2.4, pytest.approx(0.36))


class Walk(gym.Env[ndarray, np.integer]):
    """A number that goes up and down; most of what can be wrong with an environment, by keywords."""

    def __init__(
        self,
        stride: float = 1.0,
        size: int = 1,
        truncated_at: int = 99,
        fails_at: float = 99.0,
        wrong_shape: bool = False,
        words: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
        self.stride, self.late, self.truncated_at, self.fails_at = stride, 0.0, truncated_at, fails_at
        self.wrong_shape, self.render_mode = wrong_shape, render_mode
        self.observation_space = Text(3) if words else Box(-99.0, 99.0, (size,), np.float64)
        self.action_space = Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.steps = self.np_random.normal(), 0
        return self._seen(), {}

    def step(self, action: np.integer) -> tuple[ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.x += self.stride * (int(action) - 1) + 0.1 * self.np_random.normal() + self.late * (self.steps > 70)
        if self.steps > self.fails_at:
            raise OSError("the motor is gone")
        info = {"is_success": self.x > 0, "words": "no number", "sometimes": 1} if self.steps > 1 else {"is_success": 0}
        return self._seen(), -abs(self.x), False, self.steps >= self.truncated_at, info

    def _seen(self) -> ndarray:
        numbers = np.full(self.observation_space.shape or (), self.x)
        return numbers[:1] * np.ones(()) if not self.wrong_shape else np.float64(self.x) * np.ones(())

    def render(self) -> ndarray:
        picture = np.zeros((50, 100, 3), np.uint8)
        picture[:, int(np.clip(50 + 10 * self.x, 0, 99))] = 255
        return picture


STRIDE = {"stride": Uniform(0.5, 2.0, 0.01, "m")}


def walk(parameters: Mapping[str, Uniform | Choice] = STRIDE, **options: Any) -> EnvDistribution:
    return from_gymnasium(Walk, **{"id": "walk", "about": "Walk.", "horizon": 30, "parameters": parameters, **options})


def test_somebodys_own_class_is_taken_with_its_own_pictures() -> None:
    dist = walk(score="success")
    assert dist.control_period == 0.2
    check_distribution(dist)
    check_pictures(dist)
    venv = dist.vector_env(2)
    venv.reset(seed=0)
    *_, infos = venv.step(np.array([0, 2]))
    assert set(infos) == {"diverged", "success"}  # the names that every step's info tells, as numbers


def test_a_keyword_is_given_to_the_constructor() -> None:
    class Remembers(Walk):
        def __init__(self, stride: float = 1.0) -> None:
            super().__init__()
            self.kept = {"stride": stride}  # no attribute to be set
            del self.stride

        @property
        def _stride(self) -> float:
            return self.kept["stride"]

        def step(self, action: np.integer) -> tuple[ndarray, float, bool, bool, dict[str, Any]]:
            return self._seen(), self._stride, False, False, {}

    dist = from_gymnasium(Remembers, id="keyword", parameters=STRIDE, horizon=5)
    tasks = [task(stride=0.5), task(stride=1.5)]
    venv = dist.vector_env(2)
    for order in (tasks, tasks[::-1], tasks):
        venv.set_tasks(order)
        venv.reset(seed=0)
        assert venv.step(np.array([1, 1]))[1].tolist() == [each["stride"] for each in order]
    factor = from_gymnasium(Remembers, id="factor", parameters={"stride*": HALF_TO_TWICE}, horizon=5)
    venv = factor.vector_env(1)
    venv.set_tasks([task(**{"stride*": 1.75})])
    venv.reset(seed=0)
    assert venv.step(np.array([1]))[1].tolist() == [1.75]


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        (
            "CartPole-v1",
            {"parameters": {"gravty": HALF_TO_TWICE}},
            "my: there is no 'gravty' in it; did you mean gravity?",
        ),
        ("CartPole-v1", {"parameters": {"masscart": HALF_TO_TWICE}}, "'masscart' changes nothing in CartPole-v1"),
        ("CartPole-v1", {"parameters": {"screen": HALF_TO_TWICE}}, "did you mean screen_width or screen_height"),
        ("CartPole-v1", {"parameters": {"gravity[0]": HALF_TO_TWICE}}, "there is no 'gravity"),
        ("CartPole-v1", {"parameters": {"a b": HALF_TO_TWICE}}, "is spelled like gravity"),
        ("CartPole-v1", {"parameters": {}}, "without parameters that vary all tasks are the same"),
        ("CartPole-v1", {"parameters": STRIDE, "test": {"length": HALF_TO_TWICE}}, "the test has a range for 'length'"),
        ("CartPole-v1", {"parameters": {"gravity": HALF_TO_TWICE}, "score": "success"}, "does not tell success"),
        (
            "CartPole-v1",
            {"parameters": {"gravity": HALF_TO_TWICE}, "keywords": {"bla": 1}},
            "unexpected keyword argument",
        ),
        ("CartPol-v1", {"parameters": {"gravity": HALF_TO_TWICE}}, "Did you mean: `CartPole`"),
        ("Hopper-v5", {"parameters": {"body_mass[torzo]": HALF_TO_TWICE}}, "body_mass has no 'torzo'; there is torso"),
        (
            "Hopper-v5",
            {"parameters": {"body_mass": HALF_TO_TWICE}},
            r"is 5 numbers: name one, body_mass\[world\], or a f",
        ),
        (
            "Hopper-v5",
            {"parameters": {"geom_friction[floor]": HALF_TO_TWICE}},
            r"name one, geom_friction\[floor\]\[0\]",
        ),
        ("Hopper-v5", {"parameters": {"geom_friction[9][0]": HALF_TO_TWICE}}, "must be a number from 0 to 4, got '9'"),
        ("Hopper-v5", {"parameters": {"opt.gravity[2][1]": HALF_TO_TWICE}}, "has 1 axes, 2 indices were given"),
        ("Hopper-v5", {"parameters": {"body_mass[torso]": Uniform(-1.0, 1.0, 0.1, "kg")}}, "cannot be negative"),
        # The foot's friction is 2, and MuJoCo takes the greater of the two.
        ("Hopper-v5", {"parameters": {"geom_friction[floor][0]": HALF_TO_TWICE}}, "changes nothing in Hopper-v5"),
        (
            "Hopper-v5",
            {"parameters": {"opt.timestep": Uniform(0.5, 1.0, 0.1, "s")}},
            "opt.timestep = 0.5 fails: .* blows up",
        ),
        (Walk, {"parameters": STRIDE}, "Walk has no time limit of its own; give a horizon"),
        (Walk, {"parameters": STRIDE, "horizon": 9, "rarely_felt": ("late",)}, "rarely_felt names late"),
        (Walk, {"parameters": {"late": HALF_TO_TWICE}, "horizon": 99}, "'late' changes nothing in Walk"),
        (
            Walk,
            {"parameters": STRIDE, "horizon": 99, "keywords": {"fails_at": 5.0}},
            "stride = 0.5 fails: OSError: the m",
        ),
        (
            Walk,
            {"parameters": STRIDE, "horizon": 99, "keywords": {"words": True}},
            "observations can be Box, .* got Text",
        ),
        (
            Walk,
            {"parameters": {"action_space": HALF_TO_TWICE}, "horizon": 9},
            "is a Discrete; only numbers and texts can",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(env: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_gymnasium(env, id="my", **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("my: ")


def test_what_is_felt_late_can_be_vouched_for() -> None:
    dist = walk({"late": HALF_TO_TWICE}, rarely_felt=("late",))
    assert dist.units == {"late": "times the default"}


def played(venv: envs.TaskVectorEnv, steps: int) -> None:
    venv.reset(seed=0)
    for _ in range(steps):
        venv.step(np.ones(venv.num_envs, np.int64))


def test_an_environment_that_breaks_its_word_later_is_named() -> None:
    for keywords, error, message in (
        ({"truncated_at": 20}, SimulatorError, r"Walk on physics\(stride=.* at step 20 of 30: give horizon=20"),
        ({"fails_at": 65.0}, RunError, r"Walk failed in step 66 on physics\(stride=.*\): OSError: the motor is gone"),
        ({"size": 2}, SimulatorError, r"observes \(1,\) numbers instead of \(2,\)"),
    ):
        dist = walk(keywords=keywords)
        venv = dataclasses.replace(dist, horizon=70).vector_env(1) if "fails_at" in keywords else dist.vector_env(1)
        with pytest.raises(error, match=message):
            played(venv, 70)


def test_an_own_time_limit_is_the_horizon() -> None:
    def limited() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Walk(), 12)

    dist = from_gymnasium(limited, id="limited", parameters=STRIDE, horizon=12)
    venv = dist.vector_env(1)
    venv.reset(seed=0)
    assert [bool(venv.step(np.array([1]))[3][0]) for _ in range(12)] == [False] * 11 + [True]


def test_the_hash_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    source = """
import numpy as np
import gymnasium as gym
from metarl.envs import from_gymnasium
from metarl.tasks import Uniform
class Push(gym.Env):
    observation_space = gym.spaces.Box(-9.0, 9.0, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))
    force = 1.0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = np.zeros(1, np.float32)
        return self.x.copy(), {}
    def step(self, action):
        self.x = self.x + self.force * action
        return self.x.copy(), -float(abs(self.x[0])), False, False, {}
def push():
    return from_gymnasium(Push, id="push", parameters={"force": Uniform(0.1, 0.2, 0.01, "m")}, horizon=9)
"""
    hashes = []
    for name, content in (("a", source), ("b", source), ("c", source.replace("-float(abs", "-2 * float(abs"))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "push.py").write_text(content)
        hashes.append(None)
        try:
            hashes[-1] = envs.make(f"{folder}/push.py:push").hash
        except ValueError as error:
            assert name == "c" and "calls itself 'push'" in str(error)
    assert hashes[0] == hashes[1] and hashes[2] is None  # the same elsewhere; changed, it is another one
