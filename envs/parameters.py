# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""What varies in somebody else's environment: finding it by name, and setting it.

gravity                     an attribute of the environment or of one of its wrappers; with dots, of what they have
num_rows                    a keyword of its constructor
body_mass[torso]            a field of its MuJoCo model, of the body called so
geom_friction[floor][0]     one of several numbers of it
opt.gravity[2]              an option of the model
dof_damping*, gravity*      a factor: the default times the parameter, here of all joints
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Protocol, final, runtime_checkable

import gymnasium as gym
import mujoco
import numpy as np
from numpy import ndarray

from metarl.envs.model_fields import derive_constants, field_array, field_index, field_names, some_index
from metarl.errors import did_you_mean

Value = float | int | bool | str
Env = gym.Env[Any, Any]
_SPELLING = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?P<index>(?:\[[^\[\]]+\])*)(?P<factor>\*?)")
_NEVER_NEGATIVE = {"mass", "inertia", "damping", "friction", "armature", "stiffness", "frictionloss", "density"}


@runtime_checkable
class Parameter(Protocol):
    """Something of an environment that can be set."""

    def set(self, env: Env, value: Value) -> None:
        """Sets it in an environment that will be reset before it is stepped."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Attribute:
    """An attribute of an environment, of a wrapper, or of what they have."""

    path: tuple[str, ...]
    default: Value
    factor: bool

    def set(self, env: Env, value: Value) -> None:
        owner = _layer(env, self.path[0])
        for name in self.path[:-1]:
            owner = getattr(owner, name)
        setattr(owner, self.path[-1], _converted(self.default, value, self.factor))


@final
@dataclasses.dataclass(frozen=True)
class Keyword:
    """A keyword of the constructor. Setting it means constructing anew, which is the caller's."""

    name: str
    default: Value | None
    factor: bool

    def set(self, env: Env, value: Value) -> None:
        """Nothing is left to do in an environment that was constructed with it."""

    def argument(self, value: Value) -> Value:
        """What the constructor is given."""
        return value if self.default is None else _converted(self.default, value, self.factor)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """Entries of a field of a MuJoCo model."""

    name: str
    index: tuple[slice, ...]
    default: ndarray
    """The entries as the environment is made."""
    factor: bool

    def set(self, env: Env, value: Value) -> None:
        field_array(_model(env), self.name)[self.index] = float(value) * (self.default if self.factor else 1.0)


def find_parameter(env: Env, keywords: Mapping[str, Value | None], spelling: str) -> Parameter:
    """What a name means in an environment.

    Args:
        env: as it is constructed.
        keywords: those of its constructor, with their defaults where those are numbers or texts.
        spelling: see the head of this module.

    Raises:
        ValueError: there is no such thing; the message names what is near.
    """
    match = _SPELLING.fullmatch(spelling)
    if match is None:
        raise ValueError(f"a parameter is spelled like gravity, body_mass[torso] or dof_damping*, got {spelling!r}")
    name, factor, indices = match["name"], bool(match["factor"]), tuple(re.findall(r"\[([^]]+)", match["index"]))
    model = env.get_wrapper_attr("model") if env.has_wrapper_attr("model") else None
    if isinstance(model, mujoco.MjModel):
        if name in field_names(model):
            return _find_field(model, name, indices, factor, spelling)
        if name.startswith("opt."):
            name = f"model.{name}"  # a number of its own, such as opt.timestep
    if not indices:
        path = tuple(name.split("."))
        value = _attribute(env, path)
        if isinstance(value, Value | np.number):
            return Attribute(path, value.item() if isinstance(value, np.number) else value, factor)
        if name in keywords:
            if factor and keywords[name] is None:
                raise ValueError(
                    f"the keyword {name!r} has no default to be multiplied; leave the * out of {spelling!r}"
                )
            return Keyword(name, keywords[name], factor)
        if value is not None:
            raise ValueError(f"{spelling!r} is a {type(value).__name__}; only numbers and texts can vary")
    raise ValueError(f"there is no {spelling!r} in it; {_near(name, env, keywords)}")


def check_lowest(spelling: str, low: float) -> None:
    """Refuses what no body has: negative masses, and the like.

    Raises:
        ValueError: the least value of such a parameter is negative.
    """
    name = _SPELLING.fullmatch(spelling)
    words = set(re.split(r"[_.]", name["name"])) if name else set()
    if low < 0 and words & _NEVER_NEGATIVE:
        raise ValueError(f"{spelling!r} cannot be negative, but its range begins at {low:g}")


def settle(env: Env) -> None:
    """Called when all parameters of a task are set, before the reset: computes anew what MuJoCo derives from them."""
    if is_mujoco(env):
        derive_constants(_model(env), env.get_wrapper_attr("data"))


def is_mujoco(env: Env) -> bool:
    """Whether an environment is a MuJoCo one, with a `model` and its `data`."""
    return all(env.has_wrapper_attr(name) for name in ("model", "data")) and isinstance(
        env.get_wrapper_attr("model"), mujoco.MjModel
    )


def blown_up(env: Env) -> bool:
    """Whether MuJoCo has complained since the last reset: on a bad state it starts anew, as if nothing had been."""
    return is_mujoco(env) and bool(env.get_wrapper_attr("data").warning.number.any())


def control_period(env: Env) -> float | None:
    """s of simulated time in a step, if the environment tells: MuJoCo's `dt`, or `metadata["render_fps"]`."""
    if is_mujoco(env) and env.has_wrapper_attr("dt"):
        return float(env.get_wrapper_attr("dt"))
    pace = env.metadata.get("render_fps")
    return 1.0 / float(pace) if pace else None


def _model(env: Env) -> mujoco.MjModel:
    return env.get_wrapper_attr("model")


def _find_field(model: mujoco.MjModel, name: str, indices: tuple[str, ...], factor: bool, spelling: str) -> Field:
    index = field_index(model, name, indices)
    default = field_array(model, name)[index].copy()
    one_joint = name.startswith("dof") and len(indices) == 1
    if default.size > 1 and not factor and not one_joint:
        which = f"{spelling}[{0 if indices or name.startswith('opt.') else some_index(model, name)}]"
        raise ValueError(f"{spelling!r} is {default.size} numbers: name one, {which}, or a factor of all, {spelling}*")
    return Field(name, index, default, factor)


def _layer(env: Env, name: str) -> object:
    """The environment or the outermost of its wrappers that has an attribute."""
    layer: Env = env
    while isinstance(layer, gym.Wrapper) and getattr(layer, name, None) is None:
        layer = layer.env
    return layer


def _attribute(env: Env, path: tuple[str, ...]) -> object:
    value: object = _layer(env, path[0])
    for name in path:
        value = getattr(value, name, None)
    return value


def _converted(default: Value, value: Value, factor: bool) -> Value:
    """A value in the default's type, or the default times the value."""
    if isinstance(default, str) or isinstance(value, str):
        if isinstance(default, str) != isinstance(value, str) or factor:
            raise ValueError(f"{default!r} cannot become {value!r}: a text stays a text, a number a number")
        return value
    number = default * value if factor else value
    if isinstance(default, bool):
        return bool(number)
    return int(number) if isinstance(default, int) and float(number).is_integer() else number


def _near(name: str, env: Env, keywords: Mapping[str, Value | None]) -> str:
    known = {*keywords}
    layer: Env = env
    while True:
        names = (attribute for attribute in dir(layer) if not attribute.startswith("_"))
        # Properties may compute, or fail: only what is stored is looked at.
        stored = {**vars(type(layer)), **vars(layer)}
        known |= {attribute for attribute in names if isinstance(stored.get(attribute), Value | np.number)}
        if not isinstance(layer, gym.Wrapper):
            break
        layer = layer.env
    if is_mujoco(env):
        known |= set(field_names(_model(env)))
    return did_you_mean(name, known, f"it has {', '.join(sorted(known)[:30])}", most=4, cutoff=0.5)
