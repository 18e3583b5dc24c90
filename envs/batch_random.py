"""Random numbers for a batch of simulators: a stream for each, all advanced by a few array operations.

A `numpy.random.Generator` for each sub-simulator would need a loop over them in every step.
"""

from typing import final

import numpy as np
from jaxtyping import Bool, Float, UInt64
from numpy import ndarray
from scipy import special

_INCREMENT, _FIRST, _SECOND = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


@final
class BatchRandom:
    """Streams of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA).

    s ← s + 0x9E37…;  z = (s ⊕ s≫30) · 0xBF58…;  z ← (z ⊕ z≫27) · 0x94D0…;  z ⊕ z≫31

    A stream follows from the generator it was restarted with and from how many numbers were drawn since. It has period
    2⁶⁴ and starts anywhere in it: two streams that meet within 10⁶ numbers are as likely as 10⁶ / 2⁶³.
    """

    def __init__(self, num_streams: int) -> None:
        self._state = np.zeros(num_streams, np.uint64)

    def restart(self, index: int, rng: np.random.Generator) -> None:
        """Starts one stream anew, at a place drawn from `rng`."""
        self._state[index] = rng.integers(2**64, dtype=np.uint64)

    def bits(self, active: Bool[ndarray, " stream"]) -> UInt64[ndarray, " stream"]:
        """The next 64 bits of each active stream; the others stay, and their entries mean nothing."""
        self._state = np.where(active, self._state + _INCREMENT, self._state)
        mixed = (self._state ^ (self._state >> np.uint64(30))) * _FIRST
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
        return mixed ^ (mixed >> np.uint64(31))

    def uniform(self, active: Bool[ndarray, " stream"]) -> Float[ndarray, " stream"]:
        """The next number of U(0, 1) of each active stream; neither end is ever reached."""
        return ((self.bits(active) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, active: Bool[ndarray, " stream"]) -> Float[ndarray, " stream"]:
        """The next number of N(0, 1) of each active stream: Φ⁻¹(u)."""
        return special.ndtri(self.uniform(active))
