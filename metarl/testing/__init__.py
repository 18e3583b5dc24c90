"""Contract checks for everybody's distributions, agents and learners."""

from metarl.testing.exploit import MlpPolicy, frictionless, train_exploiter
from metarl.testing.physics import PhysicsBounds, PhysicsError, PhysicsReport, Policy, check_physics

__all__ = [
    "MlpPolicy",
    "PhysicsBounds",
    "PhysicsError",
    "PhysicsReport",
    "Policy",
    "check_physics",
    "frictionless",
    "train_exploiter",
]
