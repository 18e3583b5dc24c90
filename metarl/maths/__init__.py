"""Pure functions: returns, distributions, losses, the trust-region step, statistics."""
