"""Robots that run on unknown ground: training on flat, sloped and sandy ground, the test on ice and bumps.

The ground alone asks for little adaptation: a cheetah that was trained on flat, sloped and sandy ground, and never
adapts, gets nearly as far on ice as one that was trained on ice, since the ground feels different from the first step
and friction bounds both (docs/results.md has the figures). So the cheetah is not told either which way leads on: it has
to find that out wherever it is put, also on ice.

The integrator is not Gymnasium's, see `INTEGRATION`: on ice HalfCheetah-v5's lets a body get on without the ground.
"""

import dataclasses
from collections.abc import Mapping
from typing import final

import numpy as np

from metarl.envs.ant import Ant
from metarl.envs.body import Body
from metarl.envs.distribution import EnvDistribution
from metarl.envs.ground import ground_spec, ground_world
from metarl.envs.integration import Integration
from metarl.envs.locomotion import locomotion
from metarl.envs.objectives import DIRECTION, FORWARD, Objective
from metarl.envs.planar import HALF_CHEETAH, WALKER
from metarl.tasks import Choice, Family, LinearInequality, TaskSpace, Uniform
from metarl.tasks.ranges import Range

INTEGRATION = Integration("RK4", timestep=0.05 / 6, frame_skip=6, cone="elliptic")
"""The cheetah's, chosen by what policies trained to cheat gain in 10 s on frictionless ground (the slipperiest ice
allows 2.9 m/s), and by environment steps a second on ice in one thread:

    Euler  0.01 s     24 m/s    46,000        RK4  0.01 s      0.45 m/s   13,500
    Euler  0.005 s    12 m/s    24,000        RK4  1/120 s     0.10 m/s   11,400
    Euler  0.0025 s  6.3 m/s    13,000        RK4  0.005 s     0.06 m/s    7,100
"""
ANT_INTEGRATION = Integration("RK4", timestep=0.01, frame_skip=5, cone="elliptic")
"""Gymnasium's, but for the cone. Under random actions the Ant gains 0.017 m/s in 10 s on frictionless ground."""
WALKER_INTEGRATION = Integration("RK4", timestep=0.002, frame_skip=4, cone="elliptic")
"""Gymnasium's, but for the cone. Under random actions Walker2d gains 0.002 m/s in 4 s on frictionless ground."""

CLIMBING_MARGIN = 2.0  # how much friction there is on an icy slope, in units of what holding still on it takes


@final
@dataclasses.dataclass(frozen=True)
class Obstacles:
    """What of the ground's difficulty depends on the body's size and weight."""

    drag: tuple[float, float]
    """N s/m against horizontal motion in sand."""
    amplitude: tuple[float, float]
    """m, greatest height of rough ground above and below the mean."""
    wavelength: tuple[float, float]
    """m."""


def terrain_space(id: str, obstacles: Obstacles, also: Mapping[str, Range] | None = None) -> TaskSpace:
    """Families by split. The test's ground is slipperier, or rougher, than any in training.

    `also` is drawn for every task, whatever the ground.
    """
    drag, amplitude, also = obstacles.drag, obstacles.amplitude, also or {}
    known = (
        Family("flat", {"friction": Uniform(0.3, 1.2, 0.001, "sliding coefficient"), **also}),
        Family("slope-up", {"slope": Uniform(1.0, 12.0, 0.01, "degrees uphill along +x"), **also}),
        Family("slope-down", {"slope": Uniform(-12.0, -1.0, 0.01, "degrees uphill along +x"), **also}),
        Family(
            "sand",
            {
                "depth": Uniform(0.04, 0.12, 0.001, "m, over which the ground becomes firm"),
                "softness": Uniform(0.03, 0.08, 0.001, "s, time constant of the contact"),
                "damping": Uniform(1.0, 3.0, 0.01, "damping ratio of the contact"),
                "drag": Uniform(*drag, 0.1 if drag[0] >= 1 else 0.01, "N s/m, against horizontal motion"),
                **also,
            },
        ),
    )
    ice = Uniform(0.03, 0.1, 0.001, "sliding coefficient")
    # Nothing climbs where μ < tan θ, which is θ within 0.3 % up to 5°. Good gaits get 0.6 to 0.8 μ out of friction.
    weights = (("friction", 1.0), ("slope", -CLIMBING_MARGIN * float(np.deg2rad(1.0))))
    climbable = LinearInequality(weights, 0.0, "sliding coefficient")
    unknown = (
        Family("ice", {"friction": ice, **also}),
        Family(
            "icy-slope",
            {"friction": ice, "slope": Uniform(1.0, 5.0, 0.01, "degrees uphill along +x"), **also},
            constraints=(climbable,),
        ),
        Family(
            "rough",
            {
                "amplitude": Uniform(*amplitude, 0.001, "m, greatest height above and below the mean"),
                "wavelength": Uniform(*obstacles.wavelength, 0.01, "m"),
                "seed": Uniform(0.0, 9999.0, 1.0, "seed of the height field"),
                **also,
            },
        ),
    )
    return TaskSpace(id, train=known, validation=known, test=unknown)


def _terrain(
    space: TaskSpace, body: Body, objective: Objective, horizon: int, integration: Integration
) -> EnvDistribution:
    return locomotion(space, horizon, body, objective, ground_world, integration, ground_spec(body))


def cheetah_terrain(integration: Integration = INTEGRATION) -> EnvDistribution:
    """Find out which way leads on, on unknown ground: training on flat, sloped and sandy ground, the test on ice."""
    obstacles = Obstacles(drag=(2.0, 15.0), amplitude=(0.1, 0.25), wavelength=(0.8, 2.4))
    direction = Choice((-1.0, 1.0), "1 along +x, -1 along -x")
    space = terrain_space("cheetah-terrain", obstacles, {"direction": direction})
    return _terrain(space, HALF_CHEETAH, DIRECTION, 200, integration)


def ant_terrain(integration: Integration = ANT_INTEGRATION) -> EnvDistribution:
    """Run along +x on unknown ground with four legs: training on firm and sandy ground, the test on ice and bumps."""
    obstacles = Obstacles(drag=(0.15, 0.9), amplitude=(0.05, 0.2), wavelength=(0.8, 2.4))
    return _terrain(terrain_space("ant-terrain", obstacles), Ant(), FORWARD, 200, integration)


def walker_terrain(integration: Integration = WALKER_INTEGRATION) -> EnvDistribution:
    """Walk forwards on unknown ground on two legs: training on firm and sandy ground, the test on ice and bumps.

    An episode is 500 steps: the usual 200 are 1.6 s, in which a walker hardly reaches the bumps.
    """
    obstacles = Obstacles(drag=(3.5, 25.0), amplitude=(0.02, 0.08), wavelength=(0.8, 2.4))
    return _terrain(terrain_space("walker-terrain", obstacles), WALKER, FORWARD, 500, integration)
