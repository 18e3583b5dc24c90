"""A cluster's head that is gone for long is given up, and one that comes back is not."""

import contextlib
import socket

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


def test_somebody_answers_where_somebody_listens() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert missing(f"127.0.0.1:{port}", 2.0) == ""
    assert missing(f"127.0.0.1:{port}", 2.0) == "Connection refused"
