"""A cluster's head that is gone for long is given up, and one that comes back is not."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from metarl.cluster.head import Head, missing
from metarl.errors import RunError


class Clock:
    """A time of its own, and a head that is gone from some moments on, and back from others."""

    def __init__(self, *changes: float) -> None:
        self.now, self.changes, self.looks = 0.0, changes, 0

    def look(self, address: str, seconds: float) -> str:
        self.looks += 1
        return "Connection refused" if sum(self.now >= change for change in self.changes) % 2 else ""

    def until(self, head: Head, end: float) -> None:
        while self.now < end:
            self.now += 0.25
            head.need()


def test_a_head_that_is_gone_for_twenty_seconds_is_lost() -> None:
    clock = Clock(100.0)
    head = Head("10.0.0.1:6379", lambda: clock.now, clock.look)
    clock.until(head, 119.0)
    assert not head.lost and clock.looks < 65  # not at every call
    with pytest.raises(RunError, match=r"the head of the cluster, 10.0.0.1:6379, has not answered for 20 s \(Conn"):
        clock.until(head, 200.0)
    assert head.lost and clock.now < 125.0


def test_a_head_that_comes_back_in_time_is_not_lost() -> None:
    clock = Clock(100.0, 115.0, 125.0, 140.0)
    head = Head("10.0.0.1:6379", lambda: clock.now, clock.look)
    clock.until(head, 300.0)
    assert not head.lost and clock.now >= 300.0


def test_a_long_update_between_two_looks_is_no_absence() -> None:
    clock = Clock(100.0, 500.0)
    head = Head("10.0.0.1:6379", lambda: clock.now, clock.look)
    clock.until(head, 90.0)
    clock.now = 490.0
    clock.until(head, 600.0)
    assert not head.lost and clock.now >= 600.0


GREETING = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # HTTP/2's: a frame of settings, without any


@contextlib.contextmanager
def listening(greeting: bytes) -> Iterator[str]:
    """Somebody who takes connections, and says that; the address."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the server is closed
                while True:
                    taken.append(server.accept()[0])
                    taken[-1].sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in taken:
        connection.close()


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (GREETING, ""),
        (GREETING[:5], "somebody listens there, but says nothing"),
        (b"", "somebody listens there, but says nothing"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "another program listens there"),
    ],
)
def test_a_head_is_somebody_who_listens_and_speaks_as_one(greeting: bytes, said: str) -> None:
    with listening(greeting) as address:
        began = time.monotonic()
        assert missing(address, 2.0 if not said else 0.3) == said
        assert time.monotonic() - began < 10
    assert missing(address, 2.0) == "Connection refused"


def test_a_head_in_cipher_is_somebody_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with listening(b"") as address:
        assert missing(address, 2.0) == ""


def test_a_machine_that_drops_packets_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        address = server.getsockname()
        for _ in range(3):  # nobody takes those that wait: the system drops what comes after them
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        began = time.monotonic()
        assert missing(f"{address[0]}:{address[1]}", 0.3) == "timed out"
        assert time.monotonic() - began < 10


def test_what_is_no_name_of_a_host_is_nobody() -> None:
    assert missing("a..b:6379", 1.0) == "'a..b' is no host's name"
