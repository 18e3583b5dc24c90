# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""How MuJoCo solves a body's equations of motion: integrator, time step, friction cone.

    M(q) v̇ + c(q, v) = τ + Jᵀf        h: time step

**Euler** (semi-implicit, the default of MuJoCo and of Gymnasium's bodies) evaluates M and c at the old state alone:

    v' = v + h v̇(q, v),   q' = q + h v'

The horizontal momentum P = M_x(q) v of a free body then changes by P' − P = O(h² v v̇) in each step although no force
acts on it, and a body with fast joints can pick the sign. A policy can be trained to do so: HalfCheetah gathers
23 m/s in 10 s on frictionless ground at h = 0.01 s, 12 at 0.005 s, 6 at 0.0025 s: smaller steps only slow it down.
**RK4** evaluates the equations four times a step, its error is O(h⁵) a step where they are smooth: 0.04 m/s at
h = 0.01 s under the same weights, 0.45 under weights trained against it (they beat the joints on their limits, which
are stiff), 0.09 at h = 1/120 s, at the price of Euler with a quarter of the step. `implicit` and `implicitfast` are for
stiff damping; in momentum they are no better than Euler.

**The cone** is what friction forces must lie in. MuJoCo makes a `pyramidal` one of edges n ± μt, softened by
R ∝ μ²: on slippery ground contacts become all but rigid, and frictionless ones throw bodies away. The `elliptic` cone
softens normal and tangential forces separately, whatever μ.
"""

import dataclasses
from typing import Literal, final, get_args

import mujoco

from metarl import checks
from metarl.tasks import Json

Integrator = Literal["Euler", "RK4", "implicit", "implicitfast"]
Cone = Literal["pyramidal", "elliptic"]


@final
@dataclasses.dataclass(frozen=True)
class Integration:
    """The options of MuJoCo that decide how exactly a body obeys mechanics."""

    integrator: Integrator
    timestep: float
    """s."""
    frame_skip: int
    """MuJoCo steps in an environment step."""
    cone: Cone

    def __post_init__(self) -> None:
        checks.positive(timestep=self.timestep)
        checks.at_least(1, frame_skip=self.frame_skip)
        for value, known in ((self.integrator, get_args(Integrator)), (self.cone, get_args(Cone))):
            if value not in known:
                raise ValueError(f"an integration is one of {', '.join(known)}, got {value!r}")

    @property
    def control_period(self) -> float:
        """s from one action to the next."""
        return self.timestep * self.frame_skip

    def configure(self, model: mujoco.MjModel) -> None:
        """Writes these options into a model."""
        option = model.opt
        option.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{self.integrator.upper()}")
        option.timestep = self.timestep
        option.cone = getattr(mujoco.mjtCone, f"mjCONE_{self.cone.upper()}")

    def spec(self) -> dict[str, Json]:
        """For a distribution's physics."""
        return dict(dataclasses.asdict(self))
