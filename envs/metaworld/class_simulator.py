# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false
# (MuJoCo's binding comes without types; metaworld's environments are driven through what they keep to themselves.)
"""One class of Meta-World, playing any number of sub-environments with one simulation.

A model with its data takes 5 MB, and building it a tenth of a second. A sub-environment is therefore a value, a
`Snapshot`: MuJoCo's state, and the Python attributes that metaworld's environment keeps. Playing on means putting both
back, which takes a fiftieth of a step. And as a reset depends on the random vector alone, what it leads to is kept for
the next time: metaworld's reset simulates 500 steps of MuJoCo. What is only to be seen is in a model of its own, which
is built for the first picture.

A reset is that of a newly built metaworld environment, exactly: nothing that was played before is left.
"""

import dataclasses
import functools
import logging
import os
import threading
from typing import NamedTuple, final

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from metarl.envs import markers, rendering
from metarl.envs.metaworld import fast_math, metaworld_api
from metarl.envs.mujoco_pool import quiet_warnings

_LOG = logging.getLogger(__name__)
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)  # the binding takes a number faster than its own enumeration
_KEPT_RESETS = 4096  # a class; some 10 kB each
_FRAME_SKIP = 5  # steps of MuJoCo in an environment step


@final
@dataclasses.dataclass(frozen=True)
class SimulationOptions:
    """How a class is simulated."""

    reward: str = "v2"
    """Which of metaworld's reward functions: `v1` or `v2`."""
    goal_shown: bool = False
    """Whether the observation ends with the goal."""
    stock: bool = False
    """Whether metaworld's functions are left as they are, see `fast_math.py`; nothing but the speed depends on it."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class InitialState:
    """A snapshot right after a reset, and what later ones share with it."""

    state: Float[ndarray, " state"]
    attributes: dict[str, object]
    positions: tuple[Float[ndarray, "body 3"], Float[ndarray, "site 3"]]
    """Of the model's bodies and sites: where metaworld's reset puts what does not move."""
    reach: tuple[tuple[float, float], ...]
    """Bounds of where the hand can be told to go, by axis."""
    observation: Float[ndarray, " observation"]
    low: Float[ndarray, " observation"]
    """Bounds that later observations are clipped to, as metaworld does."""
    high: Float[ndarray, " observation"]


@final
@dataclasses.dataclass(eq=False)
class Snapshot:
    """Where a sub-environment is in its episode; `ClassSimulator.step` moves it on."""

    initial: InitialState
    state: Float[ndarray, " state"]
    attributes: dict[str, object]


@final
class StepResult(NamedTuple):
    """What a step led to."""

    observation: Float[ndarray, " observation"]
    reward: float
    terms: tuple[float, ...]
    """In the order of `metaworld_api.TERMS`."""
    diverged: bool


@final
class ClassSimulator:
    """Plays one class. Threads take turns."""

    def __init__(self, name: str, options: SimulationOptions) -> None:
        quiet_warnings()
        self._name, self._goal_shown = name, options.goal_shown
        self._lock = threading.Lock()
        self._env = env = metaworld_api.make(name, options.reward, stock=options.stock)
        self._model, self._data = env.model, env.data
        self._player = metaworld_api.player(env, name, options.reward, stock=options.stock)
        self._outcome = self._player.outcome
        self._parts = env.data if options.stock else fast_math.NamedParts(env.data)
        self.action_scale = float(env.action_scale)  # m, of the hand's way
        self._ctrl, self._hand_goal = _numbers(env.data.ctrl), _numbers(env.data.mocap_pos[0])
        self._warnings = env.data.warning.number
        self._no_warnings = bytes(self._warnings.nbytes)
        self._body_pos, self._site_pos = env.model.body_pos, env.model.site_pos
        self._pristine = dict(env.__dict__)
        self._placed = self._positions()
        self._loaded: InitialState | None = None
        self._state_size = mujoco.mj_stateSize(env.model, _STATE)
        self._renderer: mujoco.Renderer | None = None
        self._initial = functools.lru_cache(maxsize=_KEPT_RESETS)(self._reset)

    def reset(self, rand_vec: tuple[float, ...]) -> Snapshot:
        """A new episode."""
        with self._lock:
            initial = self._initial(rand_vec)
            return Snapshot(initial, initial.state.copy(), dict(initial.attributes))

    def step(self, snapshot: Snapshot, action: Float[ndarray, "4"]) -> StepResult:
        """Moves a snapshot on by one step."""
        return self.obey(snapshot, action, commands(action, self.action_scale).tolist())

    def obey(self, snapshot: Snapshot, action: Float[ndarray, "4"], command: list[float]) -> StepResult:
        """The same where the action's `commands` are known already."""
        with self._lock:
            self._load(snapshot)
            return self._step(snapshot, action, command)

    def render(self, snapshot: Snapshot, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """A picture of a snapshot."""
        with self._lock:
            model, data = self._drawn
            model.body_pos[:], model.site_pos[:] = snapshot.initial.positions
            mujoco.mj_setState(model, data, snapshot.state, _STATE)
            mujoco.mj_forward(model, data)
            renderer = self._renderer_of(width, height)
            renderer.update_scene(data, _camera())
            goal = snapshot.attributes["_target_pos"]
            assert isinstance(goal, ndarray), "metaworld's reset puts it there"
            markers.draw_target(renderer.scene, goal)
            return renderer.render()

    @functools.cached_property
    def _drawn(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """A simulation with all that is to be seen, which the one that is played leaves out."""
        model = metaworld_api.drawn_model(self._env)
        return model, mujoco.MjData(model)

    def _renderer_of(self, width: int, height: int) -> mujoco.Renderer:
        """The drawing context, kept as long as the size stays."""
        held = self._renderer
        if held is None or (held.width, held.height) != (width, height):
            if held is not None:
                held.close()
            held = self._renderer = rendering.open_renderer(self._drawn[0], width, height)
        return held

    def _positions(self) -> tuple[ndarray, ndarray]:
        return self._body_pos.copy(), self._site_pos.copy()

    def _place(self, positions: tuple[ndarray, ndarray]) -> None:
        self._body_pos[:], self._site_pos[:] = positions

    def _load(self, snapshot: Snapshot) -> None:
        if self._loaded is not snapshot.initial:
            self._place(snapshot.initial.positions)
            self._loaded = snapshot.initial
        mujoco.mj_setState(self._model, self._data, snapshot.state, _STATE)
        self._env.__dict__ = snapshot.attributes

    def _reset(self, rand_vec: tuple[float, ...]) -> InitialState:
        """Metaworld's reset of an environment that has just been built."""
        model, data, env = self._model, self._data, self._env
        self._loaded = None
        self._place(self._placed)
        mujoco.mj_resetData(model, data)
        mujoco.mj_forward(model, data)
        env.__dict__ = {name: _own(value) for name, value in self._pristine.items()}
        env.set_task(metaworld_api.official_task(self._name, np.array(rand_vec), goal_shown=self._goal_shown))
        observation, _ = env.reset()
        data.mocap_quat[:] = (1.0, 0.0, 1.0, 0.0)  # as metaworld writes in every step
        state = np.empty(self._state_size)
        mujoco.mj_getState(model, data, state, _STATE)
        bounds = env.sawyer_observation_space
        attributes: dict[str, object] = {**env.__dict__, "data": self._parts}
        self._player.begin(observation, attributes)
        reach = tuple(zip(env.mocap_low.tolist(), env.mocap_high.tolist(), strict=True))
        return InitialState(state, attributes, self._positions(), reach, observation, bounds.low, bounds.high)

    def _step(self, snapshot: Snapshot, action: Float[ndarray, "4"], command: list[float]) -> StepResult:
        """`SawyerXYZEnv.step`, without what has no effect on its result."""
        model, data, initial = self._model, self._data, snapshot.initial
        hand, ctrl, (x, y, z, effort) = self._hand_goal, self._ctrl, command
        (low_x, high_x), (low_y, high_y), (low_z, high_z) = initial.reach
        hand[0] = min(max(hand[0] + x, low_x), high_x)
        hand[1] = min(max(hand[1] + y, low_y), high_y)
        hand[2] = min(max(hand[2] + z, low_z), high_z)
        ctrl[0], ctrl[1] = effort, -effort
        self._warnings[:] = 0
        try:
            mujoco.mj_step(model, data, _FRAME_SKIP)
            mujoco.mj_forward(model, data)
        except mujoco.FatalError as error:
            _LOG.debug("%s failed: %s", self._name, error)
            return self._diverged(snapshot)
        if self._warnings.tobytes() != self._no_warnings:
            return self._diverged(snapshot)
        outcome = self._outcome(initial.low, initial.high, action, snapshot.attributes)
        if outcome is None:
            return self._diverged(snapshot)
        mujoco.mj_getState(model, data, snapshot.state, _STATE)
        return StepResult(*outcome, False)

    def _diverged(self, snapshot: Snapshot) -> StepResult:
        mujoco.mj_resetData(self._model, self._data)
        return StepResult(snapshot.initial.observation, 0.0, (0.0,) * len(metaworld_api.TERMS), True)


def _numbers(values: Float[ndarray, "number"]) -> "memoryview[float]":
    """Doubles in a form in which single ones are read and written faster than in an array."""
    return values.view(np.uint8).data.cast("d")


def commands(
    actions: Float[ndarray, "*env 4"], scale: float | Float[ndarray, "*env"]
) -> Float[ndarray, "*env command"]:
    """What actions say: the hand's way (3, m), computed in their precision as metaworld does, and the effort.

    Args:
        actions: of any number of sub-environments.
        scale: the way of an action of 1 (m), of each.
    """
    told = actions.astype(np.float64)
    told[..., :3] = actions[..., :3].clip(-1, 1) * np.asarray(scale, actions.dtype)[..., None]
    return told


def _camera() -> mujoco.MjvCamera:
    """A view from beside the robot over the table; the cameras in metaworld's models stand on their heads."""
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (0.0, 0.65, 0.12)
    camera.distance, camera.azimuth, camera.elevation = 1.3, 125.0, -28.0
    return camera


def class_simulator(name: str, options: SimulationOptions) -> ClassSimulator:
    """This process's simulator of a class; nothing that it gives depends on what it played before."""
    return _class_simulator(name, options, os.getpid())


@functools.cache
def _class_simulator(name: str, options: SimulationOptions, process: int) -> ClassSimulator:
    """One for each process: a forked child must not take its parent's."""
    return ClassSimulator(name, options)


def _own(value: object) -> object:
    """A copy of what a reset could write into; views of the simulation stay views."""
    if isinstance(value, dict):
        return {name: _own(item) for name, item in value.items()}
    if isinstance(value, list):
        return list(value)
    if isinstance(value, ndarray):
        root = value
        while isinstance(root.base, ndarray):
            root = root.base
        return value.copy() if root.base is None else value
    return value
