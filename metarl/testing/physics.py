# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Whether a distribution's physics can be cheated: momentum or energy out of nothing, friction beyond Coulomb's.

On level ground a body of mass m that starts with the momentum P(0) has, by Newton's and Coulomb's laws, at any time t

    ‖P∥(t) − P∥(0)‖ ≤ μ ∫₀ᵗ N dt,        ∫₀ᵗ N dt = P⊥(t) − P⊥(0) + m g t

(∥ along the ground, ⊥ at right angles to it, N the ground's push), whatever its motors do; without friction its centre
of mass keeps its velocity. Policies find out where a simulation does not: what they gain is no skill. So both are
measured, with random actions and with policies that were trained to exploit a simulation (`exploit.py` does that).

Any simulator on a `MujocoPool` can be checked: it has a `pool` (`metarl.envs.mujoco_pool.MujocoSimulator`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, final

import mujoco
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from metarl import checks
from metarl.envs import EnvDistribution, MujocoSimulator
from metarl.tasks import SPLITS, Task
from metarl.testing import mechanics
from metarl.testing.mechanics import Mechanics

Policy = Callable[[Float[ndarray, "env observation"], np.random.Generator], Float[ndarray, "env action"]]
"""Actions in units of the action space (±1 are its bounds, to which they are clipped) from observations."""

_FLIGHTS = 16  # a task
_FLIGHT = 1.0  # s
_FLIGHT_SPEED = 5.0  # rad/s and m/s


class PhysicsError(AssertionError):
    """A simulation breaks a law of mechanics by more than its bound."""


@final
@dataclasses.dataclass(frozen=True)
class PhysicsBounds:
    """How far a simulation may be from mechanics."""

    friction: float = 0.003
    """Greatest friction out of nothing, as a sliding coefficient: what horizontal momentum, or way of the centre of
    mass, is gained in an episode beyond what Coulomb's law allows, in units of what a coefficient of 1 could give.
    The default is a tenth of slippery ice's."""
    energy: float = 0.01
    """Greatest growth of the mechanical energy in free flight without damping, as a share of that at the start."""

    def __post_init__(self) -> None:
        checks.positive(friction=self.friction, energy=self.energy)


@final
@dataclasses.dataclass(frozen=True)
class PhysicsReport:
    """What was measured; each figure is the greatest over tasks, policies, episodes and time."""

    seconds: float
    """Simulated time of an episode, T."""
    speed: float
    """m/s gained along frictionless level ground: ‖P∥(t) − P∥(0)‖ / m."""
    distance: float
    """m gained there: the centre of mass's way, but for what its velocity at the start accounts for."""
    friction: float
    """The coefficient of friction that would account for either: max(speed / g T, 2 distance / g T²)."""
    impulse_ratio: float
    """On ground with friction, ‖P∥(T) − P∥(0)‖ / (μ ∫N dt): what of Coulomb's bound was used, 0 without friction."""
    impulse_excess: float
    """There, max over t of (‖P∥(t) − P∥(0)‖ − μ ∫N dt) / m g T, as a coefficient of friction; not below 0."""
    energy_growth: float
    """In free flight without motors and damping, max over t of E(t) / E(0) − 1, E with the springs'; not below 0."""
    diverged: int
    """Simulations that blew up; what came after is not counted."""
    worst: str
    """The policy and the task of `friction`."""


def random_actions(observations: Float[ndarray, "env observation"], rng: np.random.Generator, size: int) -> ndarray:
    """U[−1, 1] for each of `size` actions, whatever is observed."""
    return rng.uniform(-1.0, 1.0, (len(observations), size))


def check_physics(
    dist: EnvDistribution,
    policies: Mapping[str, Policy] | None = None,
    tasks: Sequence[Task] | None = None,
    bounds: PhysicsBounds = PhysicsBounds(),
    episodes: int = 4,
    seed: int = 0,
) -> PhysicsReport:
    """Measures a distribution's physics, with random actions and with `policies` by name.

    Args:
        dist: its simulator must have a `pool`; its bodies must move freely over the ground.
        policies: trained to exploit this simulation, or one like it.
        tasks: to check; the first listed of each family, of whatever split, if None.
        bounds: what may be.
        episodes: on each task with each policy.
        seed: of starts, actions and flights.

    Raises:
        PhysicsError: a bound is broken; the message has the figures.
        ValueError: the simulator or the body cannot be checked.
    """
    checks.at_least(1, episodes=episodes)
    if tasks is None:
        tasks = tuple({task.family: task for split in SPLITS for task in reversed(dist.tasks(split))}.values())
    drawn = functools.partial(random_actions, size=dist.spaces.action_size)
    kinds: list[_Episodes] = []
    for name, policy in {"random actions": drawn, **(policies or {})}.items():
        for task in tasks:
            slippery, rough = (
                _play(dist, task, policy, variation, episodes, seed) for variation in (_frictionless, _level)
            )
            kinds.append(_Episodes(f"{name} on {task}", slippery, rough))
    report = _report(kinds, max(_energy_growth(dist, task, seed) for task in tasks))
    _need(report, bounds, dist.id)
    return report


class _Motion(NamedTuple):
    """How a body's centre of mass moved in some episodes on level ground."""

    seconds: float
    weight: float  # m g, N
    mass: float  # kg
    friction: float  # the greatest coefficient of the ground's contacts
    gained: Float[ndarray, "time env"]  # ‖P∥(t) − P∥(0)‖, N s
    pushed: Float[ndarray, "time env"]  # ∫N dt, N s
    distance: Float[ndarray, "time env"]  # m
    diverged: int


class _Episodes(NamedTuple):
    title: str
    frictionless: _Motion
    level: _Motion


def _level(model: mujoco.MjModel) -> mujoco.MjModel:
    return mechanics.on_level_ground(model)


def _frictionless(model: mujoco.MjModel) -> mujoco.MjModel:
    return mechanics.without_friction(mechanics.on_level_ground(model))


def _simulator(dist: EnvDistribution, num_envs: int) -> MujocoSimulator:
    simulator = dist.make_simulator(num_envs, 1)
    if not isinstance(simulator, MujocoSimulator):
        raise ValueError(f"{dist.id} is not simulated by a MujocoPool, or its simulator does not show it as `pool`")
    return simulator


def _play(
    dist: EnvDistribution,
    task: Task,
    policy: Policy,
    variation: Callable[[mujoco.MjModel], mujoco.MjModel],
    episodes: int,
    seed: int,
) -> _Motion:
    """Whole episodes, whatever would end them, on a variation of the task's model."""
    simulator = _simulator(dist, episodes)
    rng = np.random.default_rng(seed)
    simulator.set_task(0, task)
    model = variation(simulator.pool.model(0))
    for index in range(episodes):
        simulator.set_task(index, task)
        simulator.pool.load(index, model)
        simulator.reset(index, np.random.default_rng([seed, index]))
    observer = Mechanics(model)
    observations = np.zeros((episodes, dist.spaces.observation_size))
    spaces, healthy = dist.spaces, np.ones(episodes, bool)
    states, counted = [_state(observer, simulator)], [healthy.copy()]
    for _ in range(dist.horizon):
        simulator.observe(observations)
        actions = spaces.to_action_space(spaces.clip(policy(observations, rng))).astype(dist.action_space.dtype)
        actions[~healthy] = 0.0
        healthy &= ~simulator.step(actions, healthy).diverged
        states.append(_state(observer, simulator))
        counted.append(healthy.copy())
    period = simulator.pool.control_period(0)
    simulator.close()
    return _motion(model, observer.mass, np.stack(states), np.stack(counted), period)


def _state(observer: Mechanics, simulator: MujocoSimulator) -> Float[ndarray, "6 env"]:
    """Momentum and centre of mass of every sub-simulation."""
    return np.concatenate(observer.momentum(simulator.pool.qpos, simulator.pool.qvel), axis=1).T


def _motion(
    model: mujoco.MjModel,
    mass: float,
    states: Float[ndarray, "time 6 env"],
    counted: Bool[ndarray, "time env"],
    period: float,
) -> _Motion:
    up, gravity = mechanics.up(model), float(np.linalg.norm(model.opt.gravity))
    momentum, centre = np.moveaxis(states[:, :3], 1, -1), np.moveaxis(states[:, 3:], 1, -1)  # [time, env, 3]
    time = period * np.arange(len(states))[:, None]
    gained, moved = momentum - momentum[0], centre - centre[0] - momentum[0] / mass * time[..., None]

    def along(vectors: Float[ndarray, "time env 3"]) -> Float[ndarray, "time env"]:
        return np.where(counted, np.linalg.norm(vectors - (vectors @ up)[..., None] * up, axis=-1), 0.0)

    return _Motion(
        seconds=period * (len(states) - 1),
        weight=mass * gravity,
        mass=mass,
        friction=mechanics.greatest_friction(model),
        gained=along(gained),
        pushed=np.where(counted, gained @ up + mass * gravity * time, 0.0),
        distance=along(moved),
        diverged=int((~counted[-1]).sum()),
    )


def _energy_growth(dist: EnvDistribution, task: Task, seed: int) -> float:
    """max over t of E(t) / E(0) − 1 in free flight without motors and damping, from random states."""
    simulator, rng = _simulator(dist, _FLIGHTS), np.random.default_rng(seed)
    pool = simulator.pool
    simulator.set_task(0, task)
    model = mechanics.in_free_flight(pool.model(0))
    observer = Mechanics(model)
    for index in range(_FLIGHTS):
        pool.load(index, model)
        pool.reset(index, *mechanics.random_state(model, rng, _FLIGHT_SPEED))
    energies, healthy = [], np.ones(_FLIGHTS, bool)
    for _ in range(round(_FLIGHT / pool.control_period(0)) + 1):
        energies.append(np.where(healthy, observer.energy(pool.qpos, pool.qvel), np.inf))
        healthy &= ~pool.step(np.zeros((_FLIGHTS, model.nu)), healthy)
    simulator.close()
    return float(np.max(np.array(energies) / energies[0]) - 1.0)


def _report(kinds: Sequence[_Episodes], energy_growth: float) -> PhysicsReport:
    speeds = [float(kind.frictionless.gained.max()) / kind.frictionless.mass for kind in kinds]
    distances = [float(kind.frictionless.distance.max()) for kind in kinds]
    frictions, ratios, excesses = list[float](), [0.0], [0.0]
    for kind, speed, distance in zip(kinds, speeds, distances, strict=True):
        motion, level = kind.frictionless, kind.level
        gravity = motion.weight / motion.mass
        frictions.append(max(speed / (gravity * motion.seconds), 2 * distance / (gravity * motion.seconds**2)))
        allowed = level.friction * level.pushed
        excesses.append(float((level.gained - allowed).max()) / (level.weight * level.seconds))
        if level.friction > 0:
            pushed = allowed[-1] > 0
            ratios.extend((level.gained[-1, pushed] / allowed[-1, pushed]).tolist())
    return PhysicsReport(
        seconds=kinds[0].frictionless.seconds,
        speed=max(speeds),
        distance=max(distances),
        friction=max(frictions),
        impulse_ratio=max(ratios),
        impulse_excess=max(excesses),
        energy_growth=max(0.0, energy_growth),
        diverged=sum(kind.frictionless.diverged + kind.level.diverged for kind in kinds),
        worst=kinds[int(np.argmax(frictions))].title,
    )


def _need(report: PhysicsReport, bounds: PhysicsBounds, id: str) -> None:
    """Raises PhysicsError with all that is wrong."""
    wrong = list[str]()
    if report.friction > bounds.friction:
        wrong.append(
            f"on frictionless level ground {report.worst} gains {report.speed:.3g} m/s and {report.distance:.3g} m in "
            f"{report.seconds:.3g} s, as if friction were {report.friction:.3g}; the bound is {bounds.friction:g}"
        )
    if report.impulse_excess > bounds.friction:
        wrong.append(
            f"the horizontal impulse exceeds friction's bound μ ∫N dt as if friction were {report.impulse_excess:.3g} "
            f"greater ({report.impulse_ratio:.3g} times the bound); the tolerance is {bounds.friction:g}"
        )
    if report.energy_growth > bounds.energy:
        wrong.append(
            f"energy grows by {report.energy_growth:.3g} of itself in free flight without damping; "
            f"the bound is {bounds.energy:g}"
        )
    if report.diverged:
        wrong.append(f"{report.diverged} simulations blew up")
    if wrong:
        raise PhysicsError(f"{id}: {'; '.join(wrong)}; try another integrator or a smaller time step")
