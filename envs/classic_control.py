"""Gymnasium's classic control with other physics in every task."""

import functools

from gymnasium.envs.classic_control import AcrobotEnv, CartPoleEnv

from metarl.envs.distribution import EnvDistribution
from metarl.envs.gymnasium_worlds import from_gymnasium
from metarl.envs.parameters import Env
from metarl.tasks import Uniform


def _derive_cart_pole(env: Env) -> None:
    cart_pole = env.unwrapped
    assert isinstance(cart_pole, CartPoleEnv)
    cart_pole.total_mass = cart_pole.masspole + cart_pole.masscart
    cart_pole.polemass_length = cart_pole.masspole * cart_pole.length


@functools.cache
def cartpole_physics() -> EnvDistribution:
    """Balance a pole on a cart: masses, length, force and gravity differ; the test has longer, heavier poles."""
    return from_gymnasium(
        "CartPole-v1",
        id="cartpole-physics",
        parameters={
            "gravity": Uniform(5.0, 15.0, 0.01, "m/s²"),
            "masscart": Uniform(0.5, 2.0, 0.01, "kg"),
            "masspole": Uniform(0.05, 0.5, 0.001, "kg"),
            "length": Uniform(0.25, 1.0, 0.001, "m, half of the pole's"),
            "force_mag": Uniform(5.0, 15.0, 0.01, "N, to the left or to the right"),
        },
        test={
            "masspole": Uniform(0.5, 1.0, 0.001, "kg"),
            "length": Uniform(1.0, 1.5, 0.001, "m, half of the pole's"),
        },
        derive=_derive_cart_pole,
    )


@functools.cache
def pendulum_physics() -> EnvDistribution:
    """Swing up a pendulum: mass, length and gravity differ; the test has longer pendulums."""
    return from_gymnasium(
        "Pendulum-v1",
        id="pendulum-physics",
        parameters={
            "g": Uniform(5.0, 12.0, 0.01, "m/s²"),
            "m": Uniform(0.5, 1.5, 0.001, "kg"),
            "l": Uniform(0.5, 1.2, 0.001, "m"),
        },
        test={"l": Uniform(1.2, 1.5, 0.001, "m")},
        period=0.05,  # its dt; what it says of pictures is another number
    )


def _derive_acrobot(env: Env) -> None:
    """Each link's center of mass is in its middle."""
    acrobot = env.unwrapped
    assert isinstance(acrobot, AcrobotEnv)
    acrobot.LINK_COM_POS_1 = acrobot.LINK_LENGTH_1 / 2
    acrobot.LINK_COM_POS_2 = acrobot.LINK_LENGTH_2 / 2


@functools.cache
def acrobot_physics() -> EnvDistribution:
    """Swing a two-link robot's hand up: masses and lengths of its links differ; the test has heavier ones."""
    return from_gymnasium(
        "Acrobot-v1",
        id="acrobot-physics",
        parameters={
            "LINK_LENGTH_1": Uniform(0.7, 1.3, 0.001, "m"),
            "LINK_LENGTH_2": Uniform(0.7, 1.3, 0.001, "m"),
            "LINK_MASS_1": Uniform(0.6, 1.3, 0.001, "kg"),
            "LINK_MASS_2": Uniform(0.6, 1.3, 0.001, "kg"),
        },
        test={
            "LINK_MASS_1": Uniform(1.3, 1.6, 0.001, "kg"),
            "LINK_MASS_2": Uniform(1.3, 1.6, 0.001, "kg"),
        },
        derive=_derive_acrobot,
        period=0.2,
    )


@functools.cache
def mountaincar_physics() -> EnvDistribution:
    """Drive a weak car up a hill: motor and gravity differ; the test has weaker motors."""
    return from_gymnasium(
        "MountainCar-v0",
        id="mountaincar-physics",
        parameters={
            "force": Uniform(0.0009, 0.0015, 0.000001, "velocity per step, of the motor"),
            "gravity": Uniform(0.0020, 0.0030, 0.000001, "velocity per step, on the steepest slope"),
        },
        test={"force": Uniform(0.0007, 0.0009, 0.000001, "velocity per step, of the motor")},
    )
