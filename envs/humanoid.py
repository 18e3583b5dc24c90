"""The Humanoid, bit for bit as Gymnasium's Humanoid-v5."""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from metarl.envs.body import State, View, default_model
from metarl.envs.integration import Integration
from metarl.tasks import Json

NQ, NV, BODIES = 24, 23, 14
HEALTHY_HEIGHT = (1.0, 2.0)  # m of the torso
NOISE_SCALE = 1e-2
MAX_CONTACT_COST = 10.0


@final
@dataclasses.dataclass(frozen=True)
class Humanoid:
    """Humanoid-v5 by its constructor's arguments, of the same names and defaults.

    Its reward for going forward is 1.25 vₓ.
    """

    forward_reward_weight: float = 1.25
    ctrl_cost_weight: float = 0.1
    contact_cost_weight: float = 5e-7
    healthy_reward: float = 5.0
    terminate_when_unhealthy: bool = True
    include_cinert_in_observation: bool = True
    include_cvel_in_observation: bool = True

    name = "Humanoid-v5"
    asset = "humanoid.xml"
    arena_bytes = 1 << 20  # seven times what thrashing about on the floor was seen to take
    integration = Integration("RK4", timestep=0.003, frame_skip=5, cone="pyramidal")
    axes = 2
    view = View(distance=5.0, height=1.1)

    @property
    def readings(self) -> tuple[str, ...]:
        inertias = ("cinert",) if self.include_cinert_in_observation else ()
        velocities = ("cvel",) if self.include_cvel_in_observation else ()
        return ("xipos", *inertias, *velocities, "qfrc_actuator", "cfrc_ext")

    @property
    def observation_size(self) -> int:
        numbers = 10 * self.include_cinert_in_observation + 6 * self.include_cvel_in_observation + 6  # of each part
        return NQ - 2 + NV + numbers * (BODIES - 1) + NV - 6

    def initial_state(self, rng: np.random.Generator) -> tuple[Float[ndarray, "nq"], Float[ndarray, "nv"]]:
        qpos = default_model(self).qpos0 + rng.uniform(-NOISE_SCALE, NOISE_SCALE, NQ)
        return qpos, rng.uniform(-NOISE_SCALE, NOISE_SCALE, NV)

    def position(self, state: State) -> Float[ndarray, "env axis"]:
        """Σ m x / Σ m: the centre of mass."""
        places = state.readings["xipos"].reshape(-1, BODIES, 3)[..., :2]
        weighted = np.zeros((len(places), 2))
        for body in range(BODIES):  # one after the other, as Gymnasium's sum is made
            weighted += state.body_mass[:, body, None] * places[:, body]
        return weighted / state.body_mass.sum(-1)[:, None]

    def healthy(self, state: State) -> Bool[ndarray, "env"]:
        return (HEALTHY_HEIGHT[0] < state.qpos[:, 2]) & (state.qpos[:, 2] < HEALTHY_HEIGHT[1])

    def costs(self, state: State, actions: Float[ndarray, "env action"]) -> dict[str, Float[ndarray, "env"]]:
        ctrl = self.ctrl_cost_weight * np.square(actions.astype(np.float64)).sum(-1)
        contact = self.contact_cost_weight * np.square(state.readings["cfrc_ext"]).sum(-1)
        return {"ctrl": ctrl, "contact": np.minimum(contact, MAX_CONTACT_COST)}

    def observe(self, state: State, out: Float[ndarray, "env observation"]) -> None:
        """Positions but for x and y, velocities, and of each part:

        its inertia (10 numbers) and velocity (6) about the centre of mass, the torques of the motors, torques and
        forces from contacts (6).
        """
        read, parts = state.readings, [state.qpos[:, 2:], state.qvel]
        if self.include_cinert_in_observation:
            parts.append(read["cinert"][:, 10:])
        if self.include_cvel_in_observation:
            parts.append(read["cvel"][:, 6:])
        np.concatenate([*parts, read["qfrc_actuator"][:, 6:], read["cfrc_ext"][:, 6:]], axis=1, out=out)

    def tilt(self, state: State, angle: Float[ndarray, "env"]) -> State:
        raise NotImplementedError("a Humanoid on a slope: its inertias and velocities would have to be turned as well")

    def spec(self) -> dict[str, Json]:
        return {"arguments": dict(dataclasses.asdict(self))}
