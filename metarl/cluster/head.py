"""Whether the head of a Ray cluster still answers: Ray itself ends the process when it has been gone for a minute."""

import socket
import time
from collections.abc import Callable
from typing import final

from metarl.errors import RunError

_EVERY = 2.0  # s between two looks, and the most that one takes
_GONE = 20.0  # s without an answer after which a head is given up; Ray's 60 leave no time to save anything


def missing(address: str, seconds: float) -> str:
    """Why nobody answers at HOST:PORT within a time; empty where somebody does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), seconds).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


@final
class Head:
    """Looks after the head of a cluster now and then.

    Args:
        address: its HOST:PORT.
        clock: s.
        look: says why nobody answers there, if so.
    """

    def __init__(
        self,
        address: str,
        clock: Callable[[], float] = time.monotonic,
        look: Callable[[str, float], str] = missing,
    ) -> None:
        self._address, self._clock, self._look = address, clock, look
        self._looked, self._missing_since = clock(), float("inf")
        self.lost = False

    def need(self) -> None:
        """Looks, if it is time to.

        Raises:
            RunError: it has not answered for too long.
        """
        now = self._clock()
        if now - self._looked < _EVERY:
            return
        self._looked, reason = now, self._look(self._address, _EVERY)
        self._missing_since = min(self._missing_since, now) if reason else float("inf")
        if now - self._missing_since >= _GONE:
            self.lost = True
            raise RunError(
                f"the head of the cluster, {self._address}, has not answered for {_GONE:g} s ({reason}): everything is "
                "saved as far as it was done; the same command goes on from there once a cluster answers"
            )
