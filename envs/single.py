"""One task as a plain Gymnasium environment: for videos, for other people's agents."""

from collections.abc import Mapping
from typing import SupportsFloat, final

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float, UInt8
from numpy import ndarray

from metarl.envs.vector import TaskVectorEnv
from metarl.tasks import Task


@final
class TaskEnv(gymnasium.Env[ndarray, ndarray]):
    """The vector environment's only sub-environment, so that both can never differ."""

    def __init__(self, venv: TaskVectorEnv, render_mode: str | None, width: int, height: int) -> None:
        """`width` and `height` of pictures in pixels."""
        assert venv.num_envs == 1
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}; it can be None or 'rgb_array'")
        if width < 1 or height < 1:
            raise ValueError(f"a picture needs at least one pixel, got width {width} and height {height}")
        assert isinstance(venv.single_observation_space, Box) and isinstance(venv.single_action_space, Box)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        self._venv = venv
        self._size = (width, height)
        self.render_mode = render_mode
        self.observation_space = venv.single_observation_space
        self.action_space = venv.single_action_space

    @property
    def task(self) -> Task:
        """What the agent is not told."""
        return self._venv.tasks[0]

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, object] | None = None
    ) -> tuple[Float[ndarray, "observation"], dict[str, object]]:
        if options:
            raise ValueError(f"reset takes no options here, got {sorted(options)}")
        super().reset(seed=seed)
        observations, infos = self._venv.reset(seed=seed)
        return observations[0], {name: value[0] for name, value in infos.items()}

    def step(
        self, action: Float[ndarray, "action"]
    ) -> tuple[Float[ndarray, "observation"], SupportsFloat, bool, bool, dict[str, object]]:
        observations, rewards, terminated, truncated, infos = self._venv.step(np.asarray(action)[None])
        info: dict[str, object] = {name: value[0] for name, value in infos.items()}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> UInt8[ndarray, "height width 3"] | None:
        return self._venv.picture(0, *self._size) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._venv.close()
