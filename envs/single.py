"""One task as a plain Gymnasium environment: for videos, for other people's agents."""

from collections.abc import Mapping
from typing import SupportsFloat, final

import gymnasium
import numpy as np
from jaxtyping import Shaped, UInt8
from numpy import ndarray

from metarl.envs.observations import Observations
from metarl.envs.vector import TaskVectorEnv
from metarl.learning.spaces import row
from metarl.tasks import Task

Observation = Observations
"""Of one environment: an array or a number, or a dict or tuple of them, as its space says."""


@final
class TaskEnv(gymnasium.Env[Observation, ndarray]):
    """The vector environment's only sub-environment, so that both can never differ.

    Args:
        venv: a vector environment of one.
        renders: whether there are pictures.
        render_mode: `rgb_array` for pictures, or None.
        width: of pictures, in pixels.
        height: of pictures, in pixels.

    Raises:
        ValueError: a `render_mode` that there is not, or pictures without a pixel.
    """

    def __init__(self, venv: TaskVectorEnv, renders: bool, render_mode: str | None, width: int, height: int) -> None:
        assert venv.num_envs == 1
        if render_mode is not None and not renders:
            raise ValueError(f"this world has no pictures; render_mode can only be None, got {render_mode!r}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}; it can be None or 'rgb_array'")
        if width < 1 or height < 1:
            raise ValueError(f"a picture needs at least one pixel, got width {width} and height {height}")
        modes = ["rgb_array"] if renders else []
        self.metadata = {"render_modes": modes, "render_fps": venv.metadata["render_fps"]}
        self._venv = venv
        self._size = (width, height)
        self.render_mode = render_mode
        self.observation_space = venv.single_observation_space
        self.action_space = venv.single_action_space

    @property
    def task(self) -> Task:
        """What the agent is not told; a task that has just been set is taken up at the next reset."""
        return self._venv.tasks[0]

    def set_task(self, task: Task) -> None:
        """Assigns another task, to be taken up at the next reset.

        Raises:
            ValueError: it is none of this distribution's.
        """
        self._venv.set_tasks([task])

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, object] | None = None
    ) -> tuple[Observation, dict[str, object]]:
        """Starts an episode, on `options["task"]` where it is given."""
        given = dict(options or {})
        task = given.pop("task", None)
        if given:
            raise ValueError(f"reset knows the option task only, got {sorted(given)}")
        if task is not None and not isinstance(task, Task):
            raise ValueError(f"the option task must be a metarl.tasks.Task, got {type(task).__name__}")
        super().reset(seed=seed)
        if task is not None:
            self.set_task(task)
        observations, infos = self._venv.reset(seed=seed)
        return row(observations, 0), {name: value[0] for name, value in infos.items()}

    def step(
        self, action: Shaped[ndarray, "*action"] | np.integer | int
    ) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, object]]:
        observations, rewards, terminated, truncated, infos = self._venv.step(np.asarray(action)[None])
        info: dict[str, object] = {name: value[0] for name, value in infos.items()}
        return row(observations, 0), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> UInt8[ndarray, "height width 3"] | None:
        return self._venv.picture(0, *self._size) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._venv.close()
