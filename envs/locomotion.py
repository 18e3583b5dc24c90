# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""A batch of robots that walk, whatever their body, on whatever ground."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import final

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from metarl.envs import markers
from metarl.envs.body import Body, State, action_space, default_model, observation_space
from metarl.envs.distribution import EnvDistribution
from metarl.envs.integration import Integration
from metarl.envs.mujoco_pool import MujocoPool
from metarl.envs.objectives import Objective
from metarl.envs.simulator import Outcome
from metarl.tasks import Json, Task, TaskSpace


@final
@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """What a task is played in."""

    model: mujoco.MjModel
    """The body and the ground under it."""
    slope: float = 0.0
    """rad, positive uphill in the direction of x; of its mean plane where the ground is rough."""


MakeWorld = Callable[[Body, Integration, Task], World]
"""Models are only read, so simulations may share them."""


def gymnasium_world(body: Body, integration: Integration, _task: Task) -> World:
    """Gymnasium's body and floor, whatever the task."""
    assert integration == body.integration
    return World(default_model(body))


@final
class LocomotionSimulator:
    """A batch of robots of one body.

    A robot starts aligned with the ground's mean plane, and its state is observed relative to it; the reward is about
    the world's x and y.
    """

    def __init__(
        self,
        num_envs: int,
        threads: int,
        body: Body,
        objective: Objective,
        world: MakeWorld = gymnasium_world,
        integration: Integration | None = None,
    ) -> None:
        """`integration` is the body's own, Gymnasium's, if None."""
        self.num_envs = num_envs
        self.observation_space, self.action_space = observation_space(body), action_space(body)
        self._body, self._objective, self._world = body, objective, world
        self._integration = body.integration if integration is None else integration
        self._pool = MujocoPool(
            default_model(body), num_envs, self._integration.frame_skip, threads, readings=body.readings
        )
        pool = self._pool
        self._state = State(pool.qpos, pool.qvel, pool.readings, pool.body_mass)
        self._targets: Float[ndarray, "env number"] = np.zeros((num_envs, 0))
        self._slopes = np.zeros(num_envs)  # rad
        self._sloped: Int[ndarray, " sloped"] = np.zeros(0, np.intp)
        self._ghost: Float[ndarray, " coordinate"] | None = None

    @property
    def pool(self) -> MujocoPool:
        return self._pool

    def set_task(self, index: int, task: Task) -> None:
        target = self._objective.target(task)
        if self._targets.shape[1] != len(target):
            self._targets = np.zeros((self.num_envs, len(target)))
        self._targets[index] = target
        world = self._world(self._body, self._integration, task)
        self._pool.load(index, world.model)
        self._slopes[index] = world.slope
        self._sloped = np.flatnonzero(self._slopes)

    def reset(self, index: int, rng: np.random.Generator) -> None:
        qpos, qvel = self._body.initial_state(rng)
        if self._slopes[index]:
            level = State(qpos[None], qvel[None], {}, self._state.body_mass[:1])
            aligned = self._body.tilt(level, self._slopes[index : index + 1])
            qpos, qvel = aligned.qpos[0], aligned.qvel[0]
        self._pool.reset(index, qpos, qvel)

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        """r = forward_reward_weight · objective + healthy_reward · healthy − Σ costs."""
        body, state = self._body, self._state
        before = body.position(state).copy()
        diverged = self._pool.step(actions, active)
        positions = state.qpos[:, : body.axes].copy()
        velocities = (body.position(state) - before) / self._integration.control_period
        healthy = body.healthy(self._relative_to_ground())
        costs = body.costs(state, actions)
        terms = {f"{axis}_position": positions[:, i] for i, axis in enumerate("xy"[: body.axes])}
        terms |= {f"{axis}_velocity": velocities[:, i] for i, axis in enumerate("xy"[: body.axes])}
        rewards = body.forward_reward_weight * self._objective.reward(positions, velocities, self._targets)
        terms["reward_task"] = rewards
        if body.healthy_reward:
            terms["reward_survive"] = body.healthy_reward * healthy
            rewards = rewards + terms["reward_survive"]
        terms |= {f"reward_{name}": -cost for name, cost in costs.items()}
        # Gymnasium's order of additions, to the last bit.
        rewards = rewards - functools.reduce(operator.add, costs.values())
        terminated = ~healthy if body.terminate_when_unhealthy else np.zeros(self.num_envs, bool)
        return Outcome(rewards, terminated, diverged, terms)

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        self._body.observe(self._relative_to_ground(), out)

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        view, position = self._body.view, np.zeros(2)
        position[: self._body.axes] = self._state.qpos[index, : self._body.axes]
        camera = mujoco.MjvCamera()
        camera.lookat[:] = (*position, view.height + position[0] * np.tan(self._slopes[index]))
        camera.distance, camera.azimuth, camera.elevation = view.distance, 90.0, view.elevation

        model, slope = self._pool.model(index), float(self._slopes[index])

        def decorate(scene: mujoco.MjvScene) -> None:
            if not model.nhfield:  # on bumps there is no plane to draw it on
                markers.draw_shadow(scene, slope, model.light_dir[0])
            if self._ghost is not None:
                markers.draw_ghost(scene, model, self._ghost)
            markers.draw_metres(scene, position, slope, self._body.axes)
            if self._objective.draw is not None:
                self._objective.draw(scene, position, self._targets[index])

        return self._pool.render(index, width, height, camera, decorate)

    def pose(self, index: int) -> Float[ndarray, " coordinate"]:
        return self._state.qpos[index].copy()

    def show_ghost(self, pose: Float[ndarray, " coordinate"] | None) -> None:
        self._ghost = pose

    def close(self) -> None:
        self._pool.close()

    def _relative_to_ground(self) -> State:
        """The states as seen from the ground's mean plane."""
        state, sloped = self._state, self._sloped
        if not sloped.size:
            return state
        readings = {name: values[sloped] for name, values in state.readings.items()}
        part = State(state.qpos[sloped], state.qvel[sloped], readings, state.body_mass[sloped])
        tilted = self._body.tilt(part, -self._slopes[sloped])
        whole = State(
            state.qpos.copy(),
            state.qvel.copy(),
            {name: values.copy() for name, values in state.readings.items()},
            state.body_mass,
        )
        whole.qpos[sloped], whole.qvel[sloped] = tilted.qpos, tilted.qvel
        for name, values in tilted.readings.items():
            whole.readings[name][sloped] = values
        return whole


def locomotion(
    space: TaskSpace,
    horizon: int,
    body: Body,
    objective: Objective,
    world: MakeWorld = gymnasium_world,
    integration: Integration | None = None,
    about_world: dict[str, Json] | None = None,
) -> EnvDistribution:
    """A distribution of a body's tasks.

    Args:
        space: the tasks.
        horizon: environment steps.
        body: what walks.
        objective: what it is rewarded for.
        world: makes a task's model.
        integration: the body's own, Gymnasium's, if None.
        about_world: what of `world` decides a score, for the distribution's spec.
    """
    integration = body.integration if integration is None else integration
    physics: dict[str, Json] = {
        "body": body.name,
        "reward": f"forward_reward_weight * ({objective.formula}) + healthy_reward * healthy - costs",
        "integration": integration.spec(),
        "mujoco": mujoco.__version__,
        **body.spec(),
        **(about_world or {}),
    }
    simulator = functools.partial(
        LocomotionSimulator, body=body, objective=objective, world=world, integration=integration
    )
    return EnvDistribution(
        space,
        horizon,
        simulator,
        physics,
        observation_space(body),
        action_space(body),
        control_period=integration.control_period,
    )
