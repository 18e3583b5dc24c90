# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""The check of physics finds cheats, and finds none where there are none.

Two policies in `exploiters/` were trained by `train_exploiter` to get on where nothing can: one on frictionless ground
under HalfCheetah-v5's integrator, one under terrain's.
"""

import dataclasses
import functools
import itertools
from importlib import resources
from pathlib import Path
from typing import final

import mujoco
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl import envs
from metarl.envs import EnvDistribution, MujocoSimulator, Outcome
from metarl.envs.integration import Integration
from metarl.envs.mujoco_pool import MujocoPool
from metarl.envs.planar import HALF_CHEETAH
from metarl.envs.terrain import INTEGRATION, cheetah_terrain
from metarl.tasks import Choice, Family, Task, TaskSpace
from metarl.testing import (
    MlpPolicy,
    PhysicsBounds,
    PhysicsError,
    check_physics,
    frictionless,
    mechanics,
    train_exploiter,
)
from metarl.testing.exploit import SEARCHING
from tests.envs.test_terrain import gait

FOLDER = Path(__file__).parent / "exploiters"
EULER, RK4 = (MlpPolicy.load(FOLDER / f"cheetah-{name}.safetensors") for name in ("euler", "rk4"))
EXPLOITERS = {"trained against Euler": EULER, "trained against RK4": RK4}
FLAT, ICE = Task.of("flat", direction=1.0, friction=0.4), Task.of("ice", direction=1.0, friction=0.04)
ANYTHING = PhysicsBounds(friction=1e9, energy=1e9)
COMPARABLE = {"cheetah-direction", "cheetah-faults", "cheetah-velocity", "cheetah-velocity-2"}
"""Bit-equal to Gymnasium's body, its integrator's faults included: their docstring says so."""


def mujoco_ids() -> list[str]:
    """The distributions on a `MujocoPool`. Meta-World's arms stand fast."""
    ids = [id for id in envs.list() if not id.startswith("metaworld")]
    return [id for id in ids if isinstance(envs.make(id).make_simulator(1, 1), MujocoSimulator)]


@pytest.mark.parametrize("id", [id for id in mujoco_ids() if id not in COMPARABLE])
def test_nothing_comes_from_nothing(id: str) -> None:
    dist = envs.make(id)
    trained = {"trained against RK4": RK4} if id.startswith("cheetah") else {}
    report = check_physics(dist, trained, episodes=1)
    assert report.seconds == pytest.approx(dist.horizon * dist.control_period)
    assert 0 < report.friction < PhysicsBounds().friction
    assert report.speed < 0.25 and report.distance < 1.2
    assert 0 < report.impulse_ratio < 1


@pytest.mark.parametrize("id", sorted(COMPARABLE))
def test_half_cheetahs_integrator_makes_momentum(id: str) -> None:
    with pytest.raises(PhysicsError, match=f"{id}: on frictionless level ground trained .* as if friction were 0.[12]"):
        check_physics(envs.make(id), EXPLOITERS, tasks=envs.make(id).tasks("test")[:1])


def test_every_law_that_is_broken_is_named() -> None:
    """On ice, with HalfCheetah-v5's integrator: momentum, Coulomb's bound, and energy."""
    with pytest.raises(PhysicsError) as caught:
        check_physics(cheetah_terrain(HALF_CHEETAH.integration), EXPLOITERS, tasks=[ICE])
    for words in (
        "on frictionless level ground trained against Euler on ice(direction=1, friction=0.04) gains",
        "the horizontal impulse exceeds friction's bound μ ∫N dt",
        "energy grows by",
        "try another integrator or a smaller time step",
    ):
        assert words in str(caught.value)


def test_bounds_are_the_callers() -> None:
    report = check_physics(cheetah_terrain(), tasks=[FLAT], episodes=1)
    for bounds, words in (
        (PhysicsBounds(friction=0.9 * report.friction), "as if friction were"),
        (PhysicsBounds(energy=0.9 * report.energy_growth), "energy grows by"),
    ):
        with pytest.raises(PhysicsError, match=f"cheetah-terrain: [^;]*{words}[^;]*; the bound is [^;]*; try"):
            check_physics(cheetah_terrain(), tasks=[FLAT], bounds=bounds, episodes=1)
    with pytest.raises(ValueError, match="friction must be positive, got 0"):
        PhysicsBounds(friction=0.0)
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        check_physics(cheetah_terrain(), episodes=0)


def test_a_report_follows_from_its_seed() -> None:
    one, again, other = (
        check_physics(cheetah_terrain(), None, [ICE], ANYTHING, episodes=1, seed=seed) for seed in (0, 0, 1)
    )
    assert one == again != other


def test_friction_beyond_coulombs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ground that grips harder than its model says."""
    steps = itertools.count()

    def running(observations: ndarray, rng: np.random.Generator) -> ndarray:
        return np.tile(2.0 * gait(next(steps)), (len(observations), 1))

    honest = check_physics(cheetah_terrain(), {"gait": running}, [ICE], episodes=1)
    assert 0.3 < honest.impulse_ratio < 1
    monkeypatch.setattr(mechanics, "greatest_friction", lambda model: 0.5 * 0.04 * honest.impulse_ratio)
    with pytest.raises(
        PhysicsError, match=r"exceeds friction's bound .*\(1.9\d times the bound|\(2.\d* times the bound"
    ):
        check_physics(cheetah_terrain(), {"gait": running}, [ICE], episodes=1)


def test_blow_ups_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    step = MujocoPool.step

    def failing(self: MujocoPool, ctrl: ndarray, active: ndarray) -> ndarray:
        return step(self, ctrl, active) | (np.abs(ctrl).max(-1) > 0.99)

    monkeypatch.setattr(MujocoPool, "step", failing)
    with pytest.raises(PhysicsError, match=r"cheetah-terrain: \d+ simulations blew up; try"):
        check_physics(cheetah_terrain(), tasks=[FLAT])  # with several episodes: one may have started at rest


def test_other_simulators_are_refused() -> None:
    with pytest.raises(ValueError, match="point-navigation is not simulated by a MujocoPool"):
        check_physics(envs.make("point-navigation"))
    with pytest.raises(ValueError, match="PointSimulator is not simulated by a MujocoPool"):
        frictionless(envs.make("point-navigation")).vector_env(1)


# A body in three dimensions, with a free joint


@final
class Ants:
    """Gymnasium's ant, told its joints and velocities."""

    observation_space = Box(-np.inf, np.inf, (27,), np.float64)
    action_space = Box(-1.0, 1.0, (8,), np.float32)

    def __init__(self, num_envs: int, threads: int, integrator: int) -> None:
        path = resources.files("gymnasium.envs.mujoco") / "assets" / "ant.xml"
        self.num_envs, self._model = num_envs, mujoco.MjModel.from_xml_string(path.read_text())
        self._model.opt.integrator = integrator
        self._pool = MujocoPool(self._model, num_envs, 5, threads)

    @property
    def pool(self) -> MujocoPool:
        return self._pool

    def set_task(self, index: int, task: Task) -> None:
        self._pool.load(index, self._model)

    def reset(self, index: int, rng: np.random.Generator) -> None:
        noise = rng.uniform(-0.1, 0.1, self._model.nq)
        self._pool.reset(index, self._model.qpos0 + noise, 0.1 * rng.standard_normal(self._model.nv))

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        diverged = self._pool.step(actions, active)
        return Outcome(np.zeros(self.num_envs), np.zeros(self.num_envs, bool), diverged, {})

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        out[:, :13], out[:, 13:] = self._pool.qpos[:, 2:], self._pool.qvel

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        return np.zeros((height, width, 3), np.uint8)

    def close(self) -> None:
        self._pool.close()


def ants(integrator: int) -> EnvDistribution:
    families = (Family("run", {"way": Choice((1.0,), "1")}),)
    space = TaskSpace("ants", families, families, families, held_out=False)
    simulator = functools.partial(Ants, integrator=integrator)
    return EnvDistribution(space, 200, simulator, {}, Ants.observation_space, Ants.action_space)


def test_a_body_in_three_dimensions_is_checked() -> None:
    runge_kutta = check_physics(ants(1))
    assert 0 < runge_kutta.friction < PhysicsBounds().friction
    assert 0 < runge_kutta.impulse_ratio < 1
    euler = check_physics(ants(0), bounds=ANYTHING)
    assert euler.friction > 3 * runge_kutta.friction
    assert euler.energy_growth > 10 * runge_kutta.energy_growth


# Exploiters


def test_nothing_pays_on_frictionless_ground_but_cheating() -> None:
    """There, the reward is the speed gained: of the exploiter under the integrator it was trained against, alone."""
    gains = []
    for dist in (cheetah_terrain(HALF_CHEETAH.integration), cheetah_terrain()):
        venv, rng, horizon = frictionless(dist).vector_env(3), np.random.default_rng(0), dist.horizon
        tasks = [
            FLAT,
            Task.of("slope-up", direction=1.0, slope=8.0),
            Task.of("rough", direction=1.0, amplitude=0.2, seed=1.0, wavelength=1.5),
        ]
        venv.set_tasks(tasks)
        observations, _ = venv.reset(seed=0)
        total = np.zeros(3)
        for _ in range(horizon):
            observations, rewards, terminated, *_ = venv.step(np.clip(EULER(observations, rng), -1, 1))
            assert not terminated.any()
            total += rewards
        gains.append(total / horizon)
    assert (gains[0] > 8).all(), gains
    assert (np.abs(gains[1]) < 0.1).all(), gains
    assert frictionless(dist).hash != dist.hash


def test_the_reward_is_the_way_beyond_the_first_velocity() -> None:
    """Σ r Δt = x(T) − x(0) − v(0) T, on a slope along the slope."""
    venv = frictionless(cheetah_terrain()).vector_env(1)
    simulator = cheetah_terrain().make_simulator(1, 1)
    task = Task.of("slope-up", direction=1.0, slope=8.0)
    venv.set_tasks([task])
    venv.reset(seed=3)
    total = sum(float(venv.step(np.zeros((1, 6)))[1][0]) for _ in range(20))
    assert abs(total) < 1e-2  # it keeps its velocity, whatever that is
    assert isinstance(simulator, MujocoSimulator)
    simulator.set_task(0, task)
    level = mechanics.without_friction(mechanics.on_level_ground(simulator.pool.model(0)))
    simulator.pool.load(0, level)
    simulator.pool.reset(0, np.zeros(9), np.array([1.0, *[0.0] * 8]))
    momentum, _ = mechanics.Mechanics(level).momentum(simulator.pool.qpos, simulator.pool.qvel)
    assert momentum[0, 0] == pytest.approx(14.0)


def test_a_saved_policy_is_the_trained_one(tmp_path: Path) -> None:
    """As PPO's own network says, without noise."""
    dist = cheetah_terrain()
    agent = SEARCHING.build(dist.spaces)
    state, generator = agent.init(0), torch.Generator().manual_seed(0)
    parameters = {
        name: torch.randn(value.shape, generator=generator).to(value.dtype) for name, value in state.parameters.items()
    }
    (log_std,) = (name for name in parameters if name.endswith("log_std"))
    parameters |= {log_std: torch.full((6,), -30.0), "input_variance": parameters["input_variance"].exp()}
    acting = agent.start(dataclasses.replace(state, parameters=parameters), 1)
    observations = torch.randn(1, 50, 17, generator=generator)
    wanted, _ = acting.act(observations, acting.initial_carry(50, None), None)
    MlpPolicy.of(parameters, 17).save(tmp_path / "policy.safetensors")
    policy = MlpPolicy.load(tmp_path / "policy.safetensors")
    actions = policy(observations[0].numpy().astype(np.float64), np.random.default_rng(0))
    np.testing.assert_allclose(actions, wanted[0].numpy(), atol=1e-3)
    noisy = dataclasses.replace(policy, log_std=np.full(6, -1.0))
    rng = np.random.default_rng(0)
    draws = np.stack([noisy(np.zeros((1, 17)), rng)[0] for _ in range(4000)])
    np.testing.assert_allclose(draws.std(0), np.exp(-1.0), rtol=0.05)


def test_training_an_exploiter_repeats() -> None:
    config, told = dataclasses.replace(SEARCHING, meta_batch=2, minibatches=1), []
    one, two = (train_exploiter(cheetah_terrain(), 2, config, progress=lambda *x: told.append(x)) for _ in range(2))
    assert [step for step, _ in told] == [1, 2, 1, 2]
    assert all(abs(gained) < 0.2 for _, gained in told)
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, two.weights, strict=True))


def greatest_speed(integration: Integration) -> float:
    return check_physics(cheetah_terrain(integration), EXPLOITERS, [FLAT], ANYTHING, episodes=1).speed


def test_smaller_steps_of_euler_cheat_more_slowly() -> None:
    """Momentum from nothing is of first order in the time step: no usable one is small enough."""
    steps = [Integration("Euler", 0.05 / skip, skip, "elliptic") for skip in (5, 10, 20)]
    euler, rk4 = [greatest_speed(each) for each in steps], greatest_speed(INTEGRATION)
    ratios = np.array(euler[:-1]) / euler[1:]
    assert ((ratios > 1.6) & (ratios < 2.4)).all(), euler
    assert euler[-1] > 10 * rk4
