# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""A batch of robots that walk, whatever their body.

A `Body` is one of Gymnasium's MuJoCo robots seen as functions of arrays over a batch: how an episode starts, what is
observed, what costs, when the robot has fallen. With its default model and the objective `FORWARD` it starts and moves
bit for bit as Gymnasium's v5 environment.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Protocol, final, runtime_checkable

import mujoco
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl.envs.mujoco_pool import MujocoPool
from metarl.envs.objectives import Objective
from metarl.envs.simulator import Outcome
from metarl.tasks import Json, Task


@final
@dataclasses.dataclass(frozen=True)
class State:
    """What a body's functions are given: the batch's states, as the pool reads them."""

    qpos: Float[ndarray, "env nq"]
    qvel: Float[ndarray, "env nv"]
    readings: Mapping[str, Float[ndarray, "env _"]]
    """By the names of `MjData`'s arrays, see `MujocoPool`."""
    body_mass: Float[ndarray, "env body"]
    """kg."""


@final
@dataclasses.dataclass(frozen=True)
class View:
    """From where a robot is filmed; the camera goes along with it."""

    distance: float
    """m."""
    height: float
    """m above the ground of the point that is looked at."""
    elevation: float = -15.0
    """degrees; negative looks down."""


@runtime_checkable  # for the tests, which check every annotation
class Body(Protocol):
    """One of Gymnasium's robots."""

    @property
    def name(self) -> str:
        """Gymnasium's id."""
        ...

    @property
    def model(self) -> mujoco.MjModel:
        """Gymnasium's, on its level ground."""
        ...

    @property
    def frame_skip(self) -> int:
        """MuJoCo steps in an environment step."""
        ...

    @property
    def axes(self) -> int:
        """1 for a body that moves in the plane of x and z, 2 for one that moves in space; qpos begins with them."""
        ...

    @property
    def readings(self) -> tuple[str, ...]:
        """The arrays of `MjData` that it needs beside qpos and qvel."""
        ...

    @property
    def observation_size(self) -> int: ...

    @property
    def forward_reward_weight(self) -> float:
        """Of the objective, in the sum that is the reward."""
        ...

    @property
    def healthy_reward(self) -> float:
        """Reward for each step after which the robot has not fallen."""
        ...

    @property
    def terminate_when_unhealthy(self) -> bool:
        """Whether an episode ends when the robot falls."""
        ...

    @property
    def view(self) -> View: ...

    def initial_state(self, rng: np.random.Generator) -> tuple[Float[ndarray, "nq"], Float[ndarray, "nv"]]:
        """The start of an episode, by the draws of Gymnasium's `reset_model` in its order."""
        ...

    def position(self, state: State) -> Float[ndarray, "env axis"]:
        """The point (m) whose difference quotient is the velocity that is rewarded."""
        ...

    def healthy(self, state: State) -> Bool[ndarray, "env"]:
        """Whether each robot has not fallen."""
        ...

    def costs(self, state: State, actions: Float[ndarray, "env action"]) -> dict[str, Float[ndarray, "env"]]:
        """What is subtracted from the reward: `ctrl`, and `contact` for some."""
        ...

    def observe(self, state: State, out: Float[ndarray, "env observation"]) -> None:
        """Writes the observations."""
        ...

    def spec(self) -> dict[str, Json]:
        """All of its numbers that decide a score."""
        ...


def observation_space(body: Body) -> Box:
    """Of one robot."""
    return Box(-np.inf, np.inf, (body.observation_size,), np.float64)


def action_space(body: Body) -> Box:
    """Of one robot: the range of its motors, as Gymnasium has it."""
    low, high = body.model.actuator_ctrlrange.astype(np.float32).T
    return Box(low, high, dtype=np.float32)


def default_model(body: Body, _task: Task) -> mujoco.MjModel:
    """Gymnasium's, whatever the task."""
    return body.model


@final
class LocomotionSimulator:
    """A batch of robots of one body."""

    def __init__(
        self,
        num_envs: int,
        threads: int,
        body: Body,
        objective: Objective,
        model: Callable[[Body, Task], mujoco.MjModel] = default_model,
    ) -> None:
        """`model` makes a task's model, of the same body."""
        self.num_envs = num_envs
        self.observation_space, self.action_space = observation_space(body), action_space(body)
        self._body, self._objective, self._model = body, objective, model
        self._pool = MujocoPool(body.model, num_envs, body.frame_skip, threads, body.readings)
        self._period = body.model.opt.timestep * body.frame_skip  # s from one action to the next
        self._targets: Float[ndarray, "env number"] = np.zeros((num_envs, 0))
        self._state = State(self._pool.qpos, self._pool.qvel, self._pool.readings, self._pool.body_mass)

    @property
    def pool(self) -> MujocoPool:
        return self._pool

    def set_task(self, index: int, task: Task) -> None:
        target = self._objective.target(task)
        if self._targets.shape[1] != len(target):
            self._targets = np.zeros((self.num_envs, len(target)))
        self._targets[index] = target
        self._pool.load(index, self._model(self._body, task))

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self._pool.reset(index, *self._body.initial_state(rng))

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        """r = forward_reward_weight · objective + healthy_reward · healthy − Σ costs."""
        body, state = self._body, self._state
        before = body.position(state).copy()
        diverged = self._pool.step(actions, active)
        positions = state.qpos[:, : body.axes].copy()
        velocities = (body.position(state) - before) / self._period
        reward_task = body.forward_reward_weight * self._objective.reward(positions, velocities, self._targets)
        healthy = body.healthy(state)
        costs = body.costs(state, actions)
        terms = {f"{axis}_position": positions[:, i] for i, axis in enumerate("xy"[: body.axes])}
        terms |= {f"{axis}_velocity": velocities[:, i] for i, axis in enumerate("xy"[: body.axes])}
        terms["reward_task"] = rewards = reward_task
        if body.healthy_reward:
            terms["reward_survive"] = body.healthy_reward * healthy
            rewards = rewards + terms["reward_survive"]
        terms |= {f"reward_{name}": -cost for name, cost in costs.items()}
        # Gymnasium's order of additions, to the last bit.
        rewards = rewards - functools.reduce(operator.add, costs.values())
        terminated = ~healthy if body.terminate_when_unhealthy else np.zeros(self.num_envs, bool)
        return Outcome(rewards, terminated, diverged, terms)

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        self._body.observe(self._state, out)

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        view, position = self._body.view, self._state.qpos[index, : self._body.axes]
        camera = mujoco.MjvCamera()
        camera.lookat[: self._body.axes] = position
        camera.lookat[2] = view.height
        camera.distance, camera.azimuth, camera.elevation = view.distance, 90.0, view.elevation

        def decorate(scene: mujoco.MjvScene) -> None:
            if self._objective.draw is not None:
                self._objective.draw(scene, position, self._targets[index])

        return self._pool.render(index, width, height, camera, decorate)

    def close(self) -> None:
        self._pool.close()


def physics_spec(body: Body, objective: Objective) -> dict[str, Json]:
    """What decides a robot's score, other than its tasks and horizon."""
    return {
        "body": body.name,
        "reward": f"forward_reward_weight * ({objective.formula}) + healthy_reward * healthy - costs",
        "frame_skip": body.frame_skip,
        "mujoco": mujoco.__version__,
        **body.spec(),
    }
