"""Whether the head of a Ray cluster still answers: Ray itself ends the process when it has been gone for a minute."""

import os
import socket
import time
from collections.abc import Callable
from typing import final

from metarl.errors import RunError

_EVERY = 2.0  # s between two looks, and the most that one takes
_GONE = 20.0  # s without an answer after which a head is given up; Ray's 60 leave no time to save anything

_HEADER, _TYPE = 9, 3  # bytes of an HTTP/2 frame's header, and which of them is its type
_SETTINGS = b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(_TYPE) + _SETTINGS + bytes(5)  # and no settings


def missing(address: str, seconds: float) -> str:
    """Why no cluster's head answers at HOST:PORT within a time; empty where one does.

    That somebody takes the connection says little: the port may be another program's, or the head may be frozen. Ray
    speaks gRPC, and so HTTP/2, whose two sides begin with a frame of settings (RFC 9113, section 3.4).
    """
    host, _, port = address.rpartition(":")
    until = time.monotonic() + seconds
    try:
        with socket.create_connection((host, int(port)), seconds) as connection:
            if os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"):
                return ""  # it would have to be greeted in cipher
            connection.sendall(_GREETING)
            return _greeting_of(connection, until)
    except UnicodeError:
        return f"{host!r} is no host's name"
    except OSError as error:
        return error.strerror or str(error)


def _greeting_of(connection: socket.socket, until: float) -> str:
    """What is wrong with the first frame that comes until a time; empty where it is one of settings."""
    header = b""
    while len(header) < _HEADER:
        connection.settimeout(max(until - time.monotonic(), 1e-3))
        try:
            part = connection.recv(_HEADER - len(header))
        except TimeoutError:
            return "somebody listens there, but says nothing"
        header += part
        if not part:
            break
    return "" if header[_TYPE : _TYPE + 1] == _SETTINGS else "another program listens there"


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
