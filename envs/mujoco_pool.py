# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Many MuJoCo simulations at once: one `MjData` each, stepped from a pool of threads.

MuJoCo's binding releases the interpreter's lock in `mj_step`, so threads scale as long as they seldom meet at the
lock: they do nothing but step. Controls are written before and states gathered after, by one thread, through views
that are made once.
Unlike `mujoco.rollout`, the solver's warm start is kept, so the steps are those of a plain loop, bit for bit.
"""

import collections
import itertools
import logging
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, final, runtime_checkable

import mujoco
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl.envs import rendering
from metarl.envs.near_field import NearField
from metarl.envs.simulator import Simulator

_LOG = logging.getLogger(__name__)


def quiet_warnings() -> None:
    """MuJoCo would append every warning to MUJOCO_LOG.TXT in the working directory; the pool counts them instead."""
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda message: _LOG.debug("%s", message))


# Every size but those of names and of what is only drawn.
_DRAWN = {"nbuffer", "nmat", "nnames", "nnames_map", "npaths", "ntex", "ntexdata"}
_SIZES = sorted(
    name for name in dir(mujoco.MjModel) if re.fullmatch("n(?!ame|umeric)[A-Za-z_]+", name) and name not in _DRAWN
)


def _layout(model: mujoco.MjModel) -> tuple[int, ...]:
    """Two models of the same layout can share an `MjData`."""
    return tuple(getattr(model, name) for name in _SIZES)


_FORCES = {"cacc", "cfrc_int", "cfrc_ext"}  # what MuJoCo computes on demand alone, by mj_rnePostConstraint


def _flat(data: mujoco.MjData, name: str) -> ndarray:
    """A view of one of its arrays."""
    values: ndarray = getattr(data, name)
    return values.reshape(-1)


_CHUNKS = 4  # a thread: enough that a slow thread does not make the others wait for long


@final
class MujocoPool:
    """Simulations that may have different models of the same sizes.

    `qpos` and `qvel` hold every simulation's positions and velocities as of the last `step` or `reset`, `readings`
    what else was asked for, by the names of `MjData`'s arrays, each flattened: `readings["cfrc_ext"][env]` has
    6 numbers a body. All but `qpos`, `qvel` and `cfrc_ext` lag behind: they are those of the last stage of MuJoCo's
    last step, as they are in Gymnasium's environments.
    """

    def __init__(
        self, model: mujoco.MjModel, num_envs: int, frame_skip: int, threads: int, readings: Sequence[str] = ()
    ) -> None:
        """All start with `model`; a `step` is `frame_skip` steps of MuJoCo, spread over `threads` threads."""
        quiet_warnings()
        self.num_envs = num_envs
        self._frame_skip = frame_skip
        self._models = [model] * num_envs
        self._datas = [mujoco.MjData(model) for _ in range(num_envs)]
        self._ctrl = [data.ctrl for data in self._datas]
        self._qpos = [data.qpos for data in self._datas]
        self._qvel = [data.qvel for data in self._datas]
        self._warnings = [data.warning.number for data in self._datas]
        self.qpos: Float[ndarray, "env nq"] = np.zeros((num_envs, model.nq))
        self.qvel: Float[ndarray, "env nv"] = np.zeros((num_envs, model.nv))
        self.body_mass: Float[ndarray, "env body"] = np.tile(model.body_mass, (num_envs, 1))  # kg
        self._views = {name: [_flat(data, name) for data in self._datas] for name in readings}
        self.readings = {name: np.zeros((num_envs, views[0].size)) for name, views in self._views.items()}
        self._forces = any(name in _FORCES for name in readings)
        self._counts = np.zeros((num_envs, self._warnings[0].size), self._warnings[0].dtype)
        self._helpers = threads - 1
        self._executor = ThreadPoolExecutor(self._helpers, "mujoco") if self._helpers else None
        self._renderer: tuple[mujoco.MjModel, mujoco.Renderer, NearField] | None = None
        self._gather()

    def model(self, index: int) -> mujoco.MjModel:
        """What a simulation runs; others may share it, so it is not to be written into."""
        return self._models[index]

    def control_period(self, index: int) -> float:
        """s of simulated time in a `step`."""
        return self._models[index].opt.timestep * self._frame_skip

    def load(self, index: int, model: mujoco.MjModel) -> None:
        """Gives one simulation another model of the same body; it must be reset before the next step."""
        if self._models[index] is model:
            return
        assert (model.nq, model.nv, model.nu) == (self.qpos.shape[1], self.qvel.shape[1], self._ctrl[0].size)
        # The layout of an MjData follows from sizes alone, and making one costs as much as ten steps.
        fits = _layout(model) == _layout(self._models[index])
        self._models[index] = model
        self.body_mass[index] = model.body_mass
        if fits:
            return
        data = self._datas[index] = mujoco.MjData(model)
        self._ctrl[index], self._qpos[index], self._qvel[index] = data.ctrl, data.qpos, data.qvel
        self._warnings[index] = data.warning.number
        for name, views in self._views.items():
            views[index] = _flat(data, name)

    def reset(self, index: int, qpos: Float[ndarray, "nq"], qvel: Float[ndarray, "nv"]) -> None:
        """Starts one simulation anew from a state, by the same calls as Gymnasium's MujocoEnv."""
        model, data = self._models[index], self._datas[index]
        mujoco.mj_resetData(model, data)
        self._qpos[index][:] = qpos
        self._qvel[index][:] = qvel
        mujoco.mj_forward(model, data)
        self.qpos[index], self.qvel[index] = self._qpos[index], self._qvel[index]
        for name, views in self._views.items():
            self.readings[name][index] = views[index]

    def step(self, ctrl: Float[ndarray, "env nu"], active: Bool[ndarray, "env"]) -> Bool[ndarray, "env"]:
        """Steps the active simulations; True where MuJoCo complained (bad acceleration, full memory, ...).

        On a bad state MuJoCo resets the simulation by itself and goes on as if nothing had been: only its warning
        counters tell.
        """
        running = np.flatnonzero(active).tolist()
        for index in running:
            self._ctrl[index][:] = ctrl[index]
        size = max(1, -(-len(running) // (_CHUNKS * (self._helpers + 1))))
        # Shared: whoever is free takes the next one.
        chunks = iter([running[start : start + size] for start in range(0, len(running), size)])
        jobs = []
        if self._executor is not None:
            jobs = [self._executor.submit(self._work, chunks) for _ in range(self._helpers)]
        failed = self._work(chunks)
        for job in jobs:
            failed += job.result()
        self._gather()
        troubled: ndarray = self._counts.any(-1) & active
        troubled[failed] = True
        return troubled

    def _work(self, chunks: Iterator[Sequence[int]]) -> list[int]:
        """Steps chunk after chunk; returns the simulations that MuJoCo gave up with an error."""
        failed: list[int] = []
        for chunk in chunks:
            datas = iter([self._datas[index] for index in chunk])
            # A loop of the interpreter between the steps would hold the lock three times as long.
            steps = map(
                mujoco.mj_step, [self._models[index] for index in chunk], datas, itertools.repeat(self._frame_skip)
            )
            while operator.length_hint(datas):
                try:
                    collections.deque(steps, maxlen=0)
                except mujoco.FatalError as error:
                    index = chunk[len(chunk) - operator.length_hint(datas) - 1]
                    _LOG.debug("simulation %d failed: %s", index, error)
                    failed.append(index)
            if self._forces:
                whole = [index for index in chunk if index not in failed]
                models, datas = [self._models[index] for index in whole], [self._datas[index] for index in whole]
                collections.deque(map(mujoco.mj_rnePostConstraint, models, datas), maxlen=0)
        return failed

    def _gather(self) -> None:
        np.concatenate(self._qpos, out=self.qpos.reshape(-1))
        np.concatenate(self._qvel, out=self.qvel.reshape(-1))
        np.concatenate(self._warnings, out=self._counts.reshape(-1))
        for name, views in self._views.items():
            np.concatenate(views, out=self.readings[name].reshape(-1))

    def render(
        self,
        index: int,
        width: int,
        height: int,
        camera: mujoco.MjvCamera,
        decorate: Callable[[mujoco.MjvScene], None] | None = None,
    ) -> UInt8[ndarray, "height width 3"]:
        """A picture, with what `decorate` adds to the scene; the drawing context is kept while model and size stay."""
        model = self._models[index]
        held = self._renderer
        if held is None or held[0] is not model or (held[1].width, held[1].height) != (width, height):
            if held is not None:
                held[1].close()
            near = NearField(model)
            held = self._renderer = (model, rendering.open_renderer(near.model, width, height), near)
        _, renderer, near = held
        renderer.update_scene(self._datas[index], camera)
        near.follow(renderer, camera)
        if decorate is not None:
            decorate(renderer.scene)
        return renderer.render()

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown()
        if self._renderer is not None:
            self._renderer[1].close()
            self._renderer = None


@runtime_checkable
class MujocoSimulator(Simulator, Protocol):
    """A simulator whose sub-simulations are those of one `MujocoPool`, index by index.

    With it a body's mechanics can be checked whatever its task, reward and observation are: `check_physics` gives a
    task to the simulator, puts a variation of the task's model into the pool (the same body on frictionless ground),
    and reads positions and velocities. A simulator must therefore keep nothing that it has derived from the model's
    contacts or options, and must load models in `set_task` alone.
    """

    @property
    def pool(self) -> MujocoPool: ...
