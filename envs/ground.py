# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Grounds that any body can stand on: grip, slope, softness, bumps.

A robot is blind to the ground: it has to find out by moving. So a start looks the same on every ground. Position and
velocity are observed relative to the ground's mean plane, the robot starts aligned with it, and rough ground is level
around the start. What a slope does is felt as gravity that pulls aside. Of rough ground nothing is observed: the
robot's height is that above the mean plane, whatever lies under its feet.
"""

import dataclasses
from collections.abc import Mapping
from typing import final

import mujoco
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from metarl.envs.body import Body, default_model
from metarl.envs.body_models import body_pairs, body_spec
from metarl.envs.contact_pairs import compile_with_pairs
from metarl.envs.integration import Integration
from metarl.envs.locomotion import World
from metarl.envs.looks import paint
from metarl.envs.model_cache import ModelCache
from metarl.tasks import Json, Task

CACHE_BYTES = 128 << 20  # of compiled grounds in a process
SOFT_IMPEDANCE = (0.0, 0.8)  # of a contact at the surface, and as deep as `depth`: the floor of HalfCheetah-v5

# Height field: as far as a robot gets in an episode of 10 s, forwards and backwards.
FIELD_START, FIELD_END = -90.0, 90.0  # m
FIELD_HALF_WIDTH = 12.0  # m, across the direction of running
FIELD_SPACING = 0.1  # m between heights along the direction of running
# Heights across; odd, so that one row lies under the robot. Half as many draw the shorter waves as saws.
FIELD_ROWS = 97
FIELD_WAVES = 24
FIELD_ARENA_BYTES = 1 << 20  # a foot touches several of a height field's cells at once
# m from the start: rough ground is level up to the first, fully rough from the second.
LEVEL_START, LEVEL_END = 1.0, 2.0


@final
@dataclasses.dataclass(frozen=True)
class Limits:
    """What a parameter of the ground can be. Where a task does not say, the ground is that of the body's floor."""

    low: float
    high: float


PARAMETERS: Mapping[str, Limits] = {
    "friction": Limits(0.0, 5.0),
    "slope": Limits(-45.0, 45.0),
    "softness": Limits(0.02, 1.0),  # below two time steps MuJoCo raises it by itself
    "damping": Limits(0.1, 10.0),
    "depth": Limits(0.001, 0.5),
    "drag": Limits(0.0, 1000.0),
    "amplitude": Limits(0.0, 1.0),
    "wavelength": Limits(4 * FIELD_SPACING, 100.0),
    "seed": Limits(0.0, 1e9),
}

MODELS: ModelCache[tuple[str, Task, Integration]] = ModelCache(CACHE_BYTES)
"""The process's compiled grounds."""


def ground_parameters(body: Body, task: Task) -> dict[str, float]:
    """A ground's parameters: the task's, and for friction, softness, damping and slope, those of the body's floor.

    What else a task says is not about the ground.
    """
    given = {name: task.number(name) for name, _ in task.parameters if name in PARAMETERS}
    for name, value in given.items():
        if not PARAMETERS[name].low <= value <= PARAMETERS[name].high:
            limits = f"{PARAMETERS[name].low:g} to {PARAMETERS[name].high:g}"
            raise ValueError(f"the ground's {name} can be {limits}, got {value:g} in {task}")
    return _floor(body) | given


def _floor(body: Body) -> dict[str, float]:
    """The contact of the body's feet with Gymnasium's floor."""
    model = default_model(body)
    floor = model.geom("floor").id
    feet = (model.pair_geom1 == floor) | (model.pair_geom2 == floor)
    softness, damping = model.geom_solref[floor]
    friction = model.pair_friction[feet, 0].max()
    return {"friction": float(friction), "slope": 0.0, "softness": float(softness), "damping": float(damping)}


def heights(amplitude: float, wavelength: float, seed: int) -> Float[ndarray, "row column"]:
    """h(x, y) = A w(x) Σᵢ cos(kᵢ·(x, y) + φᵢ) / max|Σ|, in m; w lets it begin at nought around the start.

    The waves' lengths lie within a factor √2 of `wavelength` (m), their directions within 45° of running.
    """
    rng = np.random.default_rng(seed)
    number = 2 * np.pi / (wavelength * 2 ** rng.uniform(-0.5, 0.5, FIELD_WAVES))  # rad/m
    angle, phase = rng.uniform(-np.pi / 4, np.pi / 4, FIELD_WAVES), rng.uniform(0, 2 * np.pi, FIELD_WAVES)
    x, y = field_x()[None, :], np.linspace(-FIELD_HALF_WIDTH, FIELD_HALF_WIDTH, FIELD_ROWS)[:, None]
    waves = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for k, a, p in zip(number, angle, phase, strict=True):
        waves += np.cos(k * (np.cos(a) * x + np.sin(a) * y) + p)
    ramp = np.clip((np.abs(x) - LEVEL_START) / (LEVEL_END - LEVEL_START), 0.0, 1.0)
    return amplitude * ramp**2 * (3 - 2 * ramp) * waves / np.abs(waves).max()


def field_x() -> Float[ndarray, "column"]:
    """Where the height field's columns stand, in m."""
    return np.linspace(FIELD_START, FIELD_END, round((FIELD_END - FIELD_START) / FIELD_SPACING) + 1)


def ground_world(body: Body, integration: Integration, task: Task) -> World:
    """A body on the ground of a task."""
    parameters = ground_parameters(body, task)
    model = MODELS.get((body.name, task, integration), lambda: _compile(body, parameters, task.family, integration))
    return World(model, float(np.deg2rad(parameters["slope"])))


def _compile(body: Body, parameters: Mapping[str, float], family: str, integration: Integration) -> mujoco.MjModel:
    """The body on its ground.

    The floor outranks the body's geoms: MuJoCo takes the greater of two frictions otherwise, and ice would not slip.
    The model is compiled anew for each ground, since compiling derives more from geometry than can be set afterwards.
    """
    spec, pairs = body_spec(body.asset, body.arena_bytes), body_pairs(body.asset)
    slope = float(np.deg2rad(parameters["slope"]))
    paint(spec, family, slope)
    floor = spec.geom("floor")
    floor.quat = (np.cos(slope / 2), 0.0, -np.sin(slope / 2), 0.0)  # about −y, so that +x goes uphill
    floor.priority = 1
    floor.friction[0] = parameters["friction"]
    floor.solref = (parameters["softness"], parameters["damping"])
    if "depth" in parameters:
        floor.solimp[:3] = (*SOFT_IMPEDANCE, parameters["depth"])
    if parameters.get("amplitude", 0.0) > 0:
        _add_field(spec, parameters)
        spec.memory = max(FIELD_ARENA_BYTES, body.arena_bytes)
        floor.pos = (0.0, 0.0, -2 * parameters["amplitude"] - 0.1)  # catches who leaves the field
        on_field = [tuple("rough" if name == "floor" else name for name in pair) for pair in pairs if "floor" in pair]
        pairs = (*pairs, *((one, other) for one, other in on_field))
    model = compile_with_pairs(spec, pairs)
    model.dof_damping[: body.axes] = parameters.get("drag", 0.0)
    integration.configure(model)
    return model


def _add_field(spec: mujoco.MjSpec, parameters: Mapping[str, float]) -> None:
    """Lays a height field, of what the floor is made of."""
    field = heights(parameters["amplitude"], parameters["wavelength"], int(parameters["seed"]))
    rows, columns = field.shape
    lowest, span = float(field.min()), float(np.ptp(field))
    half_length = (FIELD_END - FIELD_START) / 2
    # The compiler stretches the data over [0, 1]; position and size undo that.
    spec.add_hfield(
        name="rough", nrow=rows, ncol=columns, userdata=field.astype(np.float32).ravel(),
        size=(half_length, FIELD_HALF_WIDTH, span, 0.1),
    )  # fmt: skip
    floor = spec.geom("floor")
    spec.worldbody.add_geom(
        name="rough", type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="rough", material=floor.material, rgba=floor.rgba,
        pos=(FIELD_START + half_length, 0.0, lowest), condim=floor.condim, priority=floor.priority,
        friction=floor.friction, solref=floor.solref, solimp=floor.solimp, margin=floor.margin,
    )  # fmt: skip


def ground_spec(body: Body) -> dict[str, Json]:
    """All that decides what a task's parameters mean, for a distribution's spec."""
    return {
        "ground_defaults": dict(_floor(body)),
        "soft_impedance": list(SOFT_IMPEDANCE),
        "observation": "relative to the ground's mean plane; blind to rough ground",
        "height_field": {
            "waves": FIELD_WAVES,
            "spacing": FIELD_SPACING,
            "rows": FIELD_ROWS,
            "half_width": FIELD_HALF_WIDTH,
            "extent": [FIELD_START, FIELD_END],
            "level": [LEVEL_START, LEVEL_END],
        },
    }
