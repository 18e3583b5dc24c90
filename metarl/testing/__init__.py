"""Contract checks for everybody's distributions, agents and learners, as our own tests use them.

The names here are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metarl.testing.agents import check_agent
    from metarl.testing.contract import ContractError
    from metarl.testing.distributions import check_distribution
    from metarl.testing.exploit import MlpPolicy, frictionless, train_exploiter
    from metarl.testing.learners import check_learner
    from metarl.testing.physics import PhysicsBounds, PhysicsError, PhysicsReport, Policy, check_physics

__all__ = [
    "ContractError",
    "MlpPolicy",
    "PhysicsBounds",
    "PhysicsError",
    "PhysicsReport",
    "Policy",
    "check_agent",
    "check_distribution",
    "check_learner",
    "check_physics",
    "frictionless",
    "train_exploiter",
]

_HOMES = {
    "ContractError": "contract",
    "check_agent": "agents",
    "check_distribution": "distributions",
    "check_learner": "learners",
    "MlpPolicy": "exploit",
    "frictionless": "exploit",
    "train_exploiter": "exploit",
    **dict.fromkeys(("PhysicsBounds", "PhysicsError", "PhysicsReport", "Policy", "check_physics"), "physics"),
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"metarl.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'metarl.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
