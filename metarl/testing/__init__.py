"""Contract checks for everybody's distributions, agents and learners."""

from metarl.testing.contract import ContractError
from metarl.testing.distributions import check_distribution

__all__ = ["ContractError", "check_distribution"]
