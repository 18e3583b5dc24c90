"""Ctrl-C: said at once, asked for at points of one's own choice, and at once the second time."""

import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from metarl.runs.interrupt import STOPPING, Interrupted, interruption_point, stop_requested


def test_ctrl_c_is_a_question_the_first_time() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_requested() as stop, stop.step():
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested and stop.signal_number == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_drops_the_step_at_once() -> None:
    with stop_requested() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted), stop.step():
            signal.raise_signal(signal.SIGINT)


def test_what_is_being_saved_is_not_interrupted_before_the_third_time() -> None:
    with stop_requested() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.requested


def test_sigterm_asks_to_stop_and_never_interrupts() -> None:
    with stop_requested() as stop, stop.step():
        for _ in range(5):
            signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM


def test_a_long_step_ends_at_the_next_point_where_it_can() -> None:
    interruption_point()  # nobody listens: nothing happens
    with stop_requested() as stop:
        with stop.step():
            interruption_point()
        signal.raise_signal(signal.SIGTERM)
        interruption_point()  # not in a step
        with pytest.raises(Interrupted), stop.step():
            interruption_point()
    interruption_point()


def test_points_in_other_threads_end_the_step_too() -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            interruption_point()
        except Interrupted as error:
            raised.append(error)

    with stop_requested() as stop, stop.step():
        signal.raise_signal(signal.SIGINT)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(raised) == 1


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    answers: list[bool] = []

    def work() -> None:
        with stop_requested() as stop:
            answers.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]


def test_no_thread_and_no_file_is_left_behind() -> None:
    before = threading.active_count(), len(os.listdir("/dev/fd"))
    for _ in range(3):
        with stop_requested():
            pass
    assert (threading.active_count(), len(os.listdir("/dev/fd"))) == before


BUSY = """
import os, sys, time
from metarl.runs.interrupt import stop_requested
with stop_requested() as stop:
    if {fork} and os.fork() == 0:
        time.sleep(60)
    print("busy", flush=True)
    {work}
print("left", stop.signal_number, flush=True)
"""
IN_C = """import ctypes, threading
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    threading.Thread(target=lambda: (sys.stdin.readline(), libc.pthread_mutex_unlock(mutex))).start()
    libc.pthread_mutex_lock(mutex)"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_said_at_once_even_in_the_middle_of_a_long_computation(number: signal.Signals) -> None:
    """Here the main thread is in C, where no handler runs, until it has been said."""
    code = BUSY.format(fork=False, work=IN_C)
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        said = select.select([process.stderr], [], [], 30.0)[0]
        assert said and process.stderr.readline() == f"{STOPPING}\n"
        assert process.communicate("go on\n")[0] == f"left {number.value}\n" and process.returncode == 0


def test_a_forked_worker_neither_answers_nor_keeps_its_maker_from_ending() -> None:
    code = BUSY.format(fork=True, work="time.sleep(0.2)")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["busy\n", "left None\n"]
        assert process.wait() == 0
        os.killpg(process.pid, signal.SIGKILL)
        assert process.communicate()[1] == ""
