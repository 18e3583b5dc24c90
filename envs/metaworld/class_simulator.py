# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false
# (MuJoCo's binding comes without types; metaworld's environments are driven through what they keep to themselves.)
"""One class of Meta-World, playing any number of sub-environments with one simulation.

A model with its data takes 20 MB, and building it a quarter of a second. A sub-environment is therefore a value, a
`Situation`: MuJoCo's state, and the Python attributes that metaworld's environment keeps. Playing on means putting both
back, which takes a hundredth of a step. And as a reset depends on the random vector alone, the situation after it is
kept for the next time: metaworld's reset simulates 500 steps of MuJoCo.

A reset is that of a newly built metaworld environment, exactly: nothing that was played before is left.
"""

import dataclasses
import functools
import logging
import threading
from typing import final

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from metarl.envs import rendering
from metarl.envs.metaworld import metaworld_api
from metarl.envs.mujoco_pool import quiet_warnings

_LOG = logging.getLogger(__name__)
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_KEPT_STARTS = 4096  # a class; some 10 kB each
_FRAME_SKIP = 5  # steps of MuJoCo in an environment step


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """The situation right after a reset."""

    state: Float[ndarray, " state"]
    attributes: dict[str, object]
    positions: tuple[Float[ndarray, "body 3"], Float[ndarray, "site 3"]]
    """Of the model's bodies and sites: where metaworld's reset puts what does not move."""
    observation: Float[ndarray, " observation"]
    low: Float[ndarray, " observation"]
    """Bounds that later observations are clipped to, as metaworld does."""
    high: Float[ndarray, " observation"]


@final
@dataclasses.dataclass(eq=False)
class Situation:
    """Where a sub-environment is in its episode; `Player.step` moves it on."""

    start: Start
    state: Float[ndarray, " state"]
    attributes: dict[str, object]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """What a step led to."""

    observation: Float[ndarray, " observation"]
    reward: float
    terms: tuple[float, ...]
    """In the order of `metaworld_api.TERMS`."""
    diverged: bool


@final
class Player:
    """Plays one class. Threads take turns."""

    def __init__(self, name: str, reward: str, goal_shown: bool) -> None:
        quiet_warnings()
        self._name, self._goal_shown = name, goal_shown
        self._lock = threading.Lock()
        self._env = env = metaworld_api.make(name, reward)
        self._model, self._data = env.model, env.data
        self._parts = metaworld_api.NamedParts(env.data)
        self._ctrl, self._warnings = env.data.ctrl, env.data.warning.number
        self._mocap_pos, self._mocap_quat = env.data.mocap_pos, env.data.mocap_quat
        self._pristine = dict(env.__dict__)
        self._placed = self._positions()
        self._loaded: Start | None = None
        self._state_size = mujoco.mj_stateSize(env.model, _STATE)
        self._renderer: mujoco.Renderer | None = None
        self._start = functools.lru_cache(maxsize=_KEPT_STARTS)(self._reset)

    def reset(self, rand_vec: tuple[float, ...]) -> Situation:
        """A new episode."""
        with self._lock:
            start = self._start(rand_vec)
            return Situation(start, start.state.copy(), dict(start.attributes))

    def step(self, situation: Situation, action: Float[ndarray, "4"]) -> Moment:
        """Moves a situation on by one step."""
        with self._lock:
            self._load(situation)
            return self._step(situation, action)

    def render(self, situation: Situation, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """A picture of a situation."""
        with self._lock:
            self._load(situation)
            mujoco.mj_forward(self._model, self._data)
            renderer = self._renderer_of(width, height)
            renderer.update_scene(self._data, _camera())
            return renderer.render()

    def _renderer_of(self, width: int, height: int) -> mujoco.Renderer:
        """The drawing context, kept as long as the size stays."""
        held = self._renderer
        if held is None or (held.width, held.height) != (width, height):
            if held is not None:
                held.close()
            held = self._renderer = rendering.open_renderer(self._model, width, height)
        return held

    def _positions(self) -> tuple[ndarray, ndarray]:
        return self._model.body_pos.copy(), self._model.site_pos.copy()

    def _place(self, positions: tuple[ndarray, ndarray]) -> None:
        self._model.body_pos[:], self._model.site_pos[:] = positions

    def _load(self, situation: Situation) -> None:
        if self._loaded is not situation.start:
            self._place(situation.start.positions)
            self._loaded = situation.start
        mujoco.mj_setState(self._model, self._data, situation.state, _STATE)
        self._env.__dict__ = situation.attributes

    def _reset(self, rand_vec: tuple[float, ...]) -> Start:
        """Metaworld's reset of an environment that has just been built."""
        model, data, env = self._model, self._data, self._env
        self._loaded = None
        self._place(self._placed)
        mujoco.mj_resetData(model, data)
        mujoco.mj_forward(model, data)
        env.__dict__ = {name: _own(value) for name, value in self._pristine.items()}
        env.set_task(metaworld_api.stock_task(self._name, np.array(rand_vec), goal_shown=self._goal_shown))
        observation, _ = env.reset()
        state = np.empty(self._state_size)
        mujoco.mj_getState(model, data, state, _STATE)
        bounds = env.sawyer_observation_space
        attributes: dict[str, object] = {**env.__dict__, "data": self._parts}
        return Start(state, attributes, self._positions(), observation, bounds.low, bounds.high)

    def _step(self, situation: Situation, action: Float[ndarray, "4"]) -> Moment:
        """`SawyerXYZEnv.step`, without what has no effect on its result."""
        model, data, env, start = self._model, self._data, self._env, situation.start
        mocap = self._mocap_pos
        moved = mocap[0] + action[:3].clip(-1, 1) * env.action_scale
        np.maximum(moved, env.mocap_low, out=moved)
        np.minimum(moved, env.mocap_high, out=mocap[0])
        self._mocap_quat[:] = (1.0, 0.0, 1.0, 0.0)
        self._ctrl[:] = action[-1], -action[-1]
        self._warnings[:] = 0
        try:
            mujoco.mj_step(model, data, _FRAME_SKIP)
            mujoco.mj_forward(model, data)
        except mujoco.FatalError as error:
            _LOG.debug("%s failed: %s", self._name, error)
            return self._diverged(situation)
        if self._warnings.any():
            return self._diverged(situation)
        observation = env.observe(start.low, start.high)
        if not np.isfinite(observation).all():
            return self._diverged(situation)
        reward, info = env.evaluate_state(observation, action)
        mujoco.mj_getState(model, data, situation.state, _STATE)
        return Moment(observation, float(reward), tuple(float(info[name]) for name in metaworld_api.TERMS), False)

    def _diverged(self, situation: Situation) -> Moment:
        mujoco.mj_resetData(self._model, self._data)
        return Moment(situation.start.observation, 0.0, (0.0,) * len(metaworld_api.TERMS), True)


def _camera() -> mujoco.MjvCamera:
    """A view from beside the robot over the table; the cameras in metaworld's models stand on their heads."""
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (0.0, 0.65, 0.12)
    camera.distance, camera.azimuth, camera.elevation = 1.3, 125.0, -28.0
    return camera


@functools.cache
def player(name: str, reward: str, goal_shown: bool) -> Player:
    """The process's player of a class; nothing that it gives depends on what it played before."""
    return Player(name, reward, goal_shown)


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
