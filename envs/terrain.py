# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Grounds for the cheetah, and the distribution that varies them.

The robot is blind to the ground: it has to find out by moving. So a start looks the same on every ground. Position and
velocity are observed relative to the ground's mean plane, the robot starts aligned with it, and rough ground is level
around the start. What a slope does is felt as gravity that pulls aside. Of rough ground nothing is observed: the
robot's height is that above the mean plane, whatever lies under its feet.

The integrator is not HalfCheetah-v5's: on ice that one lets a body get on without the ground, see `INTEGRATION`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import final

import mujoco
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from metarl.envs.cheetah import (
    ACTION_SPACE,
    OBSERVATION_SPACE,
    CheetahSimulator,
    Ground,
    cheetah_xml,
    physics_spec,
)
from metarl.envs.distribution import EnvDistribution
from metarl.envs.integration import Integration
from metarl.envs.model_cache import ModelCache
from metarl.tasks import Family, Json, LinearInequality, Task, TaskSpace, Uniform

INTEGRATION = Integration("RK4", timestep=0.05 / 6, frame_skip=6, cone="elliptic")
"""Chosen by what policies trained to cheat gain in 10 s on frictionless ground (the slipperiest ice allows 2.9 m/s),
and by environment steps a second on ice in one thread:

    Euler  0.01 s     24 m/s    46,000        RK4  0.01 s      0.45 m/s   13,500
    Euler  0.005 s    12 m/s    24,000        RK4  1/120 s     0.10 m/s   11,400
    Euler  0.0025 s  6.3 m/s    13,000        RK4  0.005 s     0.06 m/s    7,100
"""
CACHE_BYTES = 128 << 20  # of compiled grounds in a process
CLIMBING_MARGIN = 2.0  # how much friction there is on an icy slope, in units of what holding still on it takes

# Height field: as far as a cheetah gets in an episode of 10 s, forwards and backwards.
FIELD_START, FIELD_END = -20.0, 160.0  # m
FIELD_HALF_WIDTH = 12.0  # m, across the direction of running
FIELD_SPACING = 0.1  # m between heights along the direction of running
FIELD_ROWS = 97  # heights across; odd, so that one row lies under the robot; with half as many, waves look like saws
FIELD_WAVES = 24
FIELD_ARENA_BYTES = 1 << 20  # a foot touches several of a height field's cells at once
LEVEL_START, LEVEL_END = (
    1.0,
    2.0,
)  # m from the start: rough ground is level up to the first, fully rough from the second


@final
@dataclasses.dataclass(frozen=True)
class Look:
    """How a ground is drawn. It changes nothing else."""

    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Of the texture's squares, or of its surface and its specks."""
    specks: float = 0.0
    """Share of texels that are specks; 0 draws squares."""
    reflectance: float = 0.0
    """Share of what the ground mirrors."""
    shininess: float = 0.1
    """Sharpness of highlights, 0 to 1."""
    specular: float = 0.1
    """Strength of highlights, 0 to 1."""
    light: tuple[float, float, float] = (0.0, 0.15, -1.0)
    """Where the light shines to, in the ground's frame; a flat angle shows relief."""
    shadows: bool = True
    """Whether the light casts any. MuJoCo's shadow map draws a height field's on itself as torn black patches."""


_CHECKER = Look(((0.32, 0.36, 0.40), (0.62, 0.66, 0.70)), reflectance=0.1)
_GRASS = Look(((0.36, 0.46, 0.30), (0.50, 0.62, 0.42)))
_SAND = Look(((0.76, 0.64, 0.42), (0.56, 0.44, 0.27)), specks=0.25)
_ROCK = Look(((0.72, 0.64, 0.56), (0.50, 0.43, 0.38)), specks=0.2, light=(0.45, 0.25, -0.85), shadows=False)
_ICE = Look(((0.60, 0.74, 0.84), (0.52, 0.68, 0.80)), reflectance=0.35, shininess=1.0, specular=1.0)
_LOOKS = {
    "flat": _CHECKER, "slope-up": _GRASS, "slope-down": _GRASS, "sand": _SAND,
    "ice": _ICE, "icy-slope": _ICE, "rough": _ROCK,
}  # fmt: skip


@final
@dataclasses.dataclass(frozen=True)
class Range:
    """What a parameter of the ground can be."""

    default: float
    """HalfCheetah-v5's."""
    low: float
    high: float


PARAMETERS: Mapping[str, Range] = {
    "friction": Range(0.4, 0.0, 5.0),
    "slope": Range(0.0, -45.0, 45.0),
    "softness": Range(0.02, 0.02, 1.0),  # below two time steps MuJoCo raises it by itself: 0.0167
    "damping": Range(1.0, 0.1, 10.0),
    "depth": Range(0.01, 0.001, 0.5),
    "drag": Range(0.0, 0.0, 1000.0),
    "amplitude": Range(0.0, 0.0, 1.0),
    "wavelength": Range(1.0, 4 * FIELD_SPACING, 100.0),
    "seed": Range(0.0, 0.0, 1e9),
}


def ground_parameters(task: Task) -> dict[str, float]:
    """All of a ground's parameters: the task's, and HalfCheetah-v5's for the rest."""
    given = {name: task.number(name) for name, _ in task.parameters}
    for name, value in given.items():
        if not PARAMETERS[name].low <= value <= PARAMETERS[name].high:
            limits = f"{PARAMETERS[name].low:g} to {PARAMETERS[name].high:g}"
            raise ValueError(f"the ground's {name} can be {limits}, got {value:g} in {task}")
    return {name: allowed.default for name, allowed in PARAMETERS.items()} | given


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


@functools.cache
def _parsed() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_string(cheetah_xml())


MODELS: ModelCache[tuple[Task, Integration]] = ModelCache(CACHE_BYTES)
"""The process's compiled grounds."""


def build_ground(task: Task, integration: Integration = INTEGRATION) -> Ground:
    """The ground of a task. Models are only read, so simulations share them."""
    parameters = ground_parameters(task)
    model = MODELS.get((task, integration), lambda: _compile(parameters, _LOOKS[task.family], integration))
    return Ground(model, float(np.deg2rad(parameters["slope"])))


def _compile(parameters: Mapping[str, float], look: Look, integration: Integration) -> mujoco.MjModel:
    """The body on its ground.

    The floor outranks the body's geoms: MuJoCo takes the greater of two frictions otherwise, and ice would not slip.
    The model is compiled anew for each ground, since compiling derives more from geometry than can be set afterwards.
    """
    spec = _parsed().copy()
    slope = float(np.deg2rad(parameters["slope"]))
    floor = spec.geom("floor")
    contact = [floor]
    _paint(spec, look, slope)
    floor.material = "ground"
    floor.rgba = (1, 1, 1, 1)
    floor.quat = (np.cos(slope / 2), 0.0, -np.sin(slope / 2), 0.0)  # about −y, so that +x goes uphill
    if parameters["amplitude"] > 0:
        contact.append(_add_field(spec, parameters))
        spec.memory = FIELD_ARENA_BYTES
        floor.pos = (0.0, 0.0, -2 * parameters["amplitude"] - 0.1)  # catches who leaves the field
    for geom in contact:
        geom.priority = 1
        geom.friction[0] = parameters["friction"]
        geom.solref = (parameters["softness"], parameters["damping"])
        geom.solimp[2] = parameters["depth"]
    spec.joint("rootx").damping = parameters["drag"]
    model = spec.compile()
    integration.configure(model)
    return model


def _add_field(spec: mujoco.MjSpec, parameters: Mapping[str, float]) -> mujoco.MjsGeom:
    field = heights(parameters["amplitude"], parameters["wavelength"], int(parameters["seed"]))
    rows, columns = field.shape
    lowest, span = float(field.min()), float(np.ptp(field))
    half_length = (FIELD_END - FIELD_START) / 2
    # The compiler stretches the data over [0, 1]; position and size undo that.
    spec.add_hfield(
        name="rough", nrow=rows, ncol=columns, userdata=field.astype(np.float32).ravel(),
        size=(half_length, FIELD_HALF_WIDTH, span, 0.1),
    )  # fmt: skip
    return spec.worldbody.add_geom(
        name="rough", type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="rough", material="ground",
        pos=(FIELD_START + half_length, 0.0, lowest), conaffinity=1, condim=3, friction=(0.4, 0.1, 0.1),
        rgba=(1, 1, 1, 1), solimp=(0.0, 0.8, 0.01, 0.5, 2.0),
    )  # fmt: skip


def _paint(spec: mujoco.MjSpec, look: Look, slope: float) -> None:
    x, y, z = look.light
    spec.lights[0].dir = (np.cos(slope) * x - np.sin(slope) * z, y, np.sin(slope) * x + np.cos(slope) * z)
    spec.lights[0].castshadow = look.shadows
    texture = spec.add_texture(name="ground", type=mujoco.mjtTexture.mjTEXTURE_2D, width=256, height=256)
    texture.rgb1, texture.rgb2 = look.colours
    if look.specks:
        texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_FLAT
        texture.mark = mujoco.mjtMark.mjMARK_RANDOM
        texture.markrgb, texture.random = look.colours[1], look.specks
    else:
        texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_CHECKER
    material = spec.add_material(
        name="ground", reflectance=look.reflectance, shininess=look.shininess, specular=look.specular,
        texuniform=True, texrepeat=(1, 1),
    )  # fmt: skip
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "ground"


def terrain_space() -> TaskSpace:
    """Families by split. The test's ground is slipperier, or rougher, than any in training."""
    known = (
        Family("flat", {"friction": Uniform(0.3, 1.2, 0.001, "sliding coefficient")}),
        Family("slope-up", {"slope": Uniform(1.0, 12.0, 0.01, "degrees uphill along +x")}),
        Family("slope-down", {"slope": Uniform(-12.0, -1.0, 0.01, "degrees uphill along +x")}),
        Family(
            "sand",
            {
                "depth": Uniform(0.04, 0.12, 0.001, "m, over which the ground becomes firm"),
                "softness": Uniform(0.03, 0.08, 0.001, "s, time constant of the contact"),
                "damping": Uniform(1.0, 3.0, 0.01, "damping ratio of the contact"),
                "drag": Uniform(2.0, 15.0, 0.1, "N s/m, against horizontal motion"),
            },
        ),
    )
    ice = Uniform(0.03, 0.1, 0.001, "sliding coefficient")
    # Nothing climbs where μ < tan θ, which is θ within 0.3 % up to 5°. Good gaits get 0.6 to 0.8 μ out of friction.
    weights = (("friction", 1.0), ("slope", -CLIMBING_MARGIN * float(np.deg2rad(1.0))))
    climbable = LinearInequality(weights, 0.0, "sliding coefficient")
    unknown = (
        Family("ice", {"friction": ice}),
        Family(
            "icy-slope",
            {"friction": ice, "slope": Uniform(1.0, 5.0, 0.01, "degrees uphill along +x")},
            constraints=(climbable,),
        ),
        Family(
            "rough",
            {
                "amplitude": Uniform(0.1, 0.25, 0.001, "m, greatest height above and below the mean"),
                "wavelength": Uniform(0.8, 2.4, 0.01, "m"),
                "seed": Uniform(0.0, 9999.0, 1.0, "seed of the height field"),
            },
        ),
    )
    return TaskSpace("cheetah-terrain", train=known, validation=known, test=unknown)


def cheetah_terrain(integration: Integration = INTEGRATION) -> EnvDistribution:
    """Run forwards on unknown ground: training on flat, sloped and sandy ground, the test on ice and rough ground."""
    simulator = functools.partial(
        CheetahSimulator,
        objective="forward",
        ground=functools.partial(build_ground, integration=integration),
        integration=integration,
    )
    physics: dict[str, Json] = dict(physics_spec("forward", integration)) | {
        "ground_defaults": {name: allowed.default for name, allowed in PARAMETERS.items()},
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
    return EnvDistribution(terrain_space(), 200, simulator, physics, OBSERVATION_SPACE, ACTION_SPACE)
