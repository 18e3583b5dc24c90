"""Contract checks for everybody's distributions, agents and learners."""
