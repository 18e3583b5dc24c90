"""Rates of several peers, measured in turns: machines differ and drift, ratios of the same minute carry over."""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
from numpy import ndarray

Stepper = Callable[[int], float]
"""Takes so many vector steps; gives environment steps a second."""
Update = Callable[[], object]
"""Something that is done once."""
Rates = dict[str, list[float]]
"""Environment steps a second of each peer in each round."""


def random_steps(
    step: Callable[[ndarray], object],
    num_envs: int,
    actions: int,
    kind: type = np.float32,
    clock: Callable[[], float] = time.perf_counter,
) -> Stepper:
    """Steps with a new random action of [−1, 1] at every step, which are drawn outside of the time that counts."""
    rng = np.random.default_rng(0)

    def stepper(count: int) -> float:
        drawn = rng.uniform(-1.0, 1.0, (count, num_envs, actions)).astype(kind)
        began = clock()
        for each in drawn:
            step(each)
        return count * num_envs / (clock() - began)

    return stepper


def in_turns(
    peers: Mapping[str, AbstractContextManager[Stepper]],
    rounds: int,
    seconds: float,
    steps: int = 50,
    warm_up: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> Rates:
    """Each peer is stepped for at least so many seconds in each round, `steps` vector steps at a time.

    Before, `warm_up` vector steps of each are taken that do not count.
    """
    rates: Rates = {peer: [] for peer in peers}
    with contextlib.ExitStack() as stack:
        steppers = {peer: stack.enter_context(opened) for peer, opened in peers.items()}
        for step in steppers.values():
            step(warm_up)
        for _ in range(rounds):
            for peer, step in steppers.items():
                rates[peer].append(_rate(step, seconds, steps, clock))
    return rates


def _rate(step: Stepper, seconds: float, steps: int, clock: Callable[[], float]) -> float:
    """The mean rate over at least so many seconds."""
    began, rates = clock(), list[float]()
    while clock() - began < seconds:
        rates.append(step(steps))
    return statistics.harmonic_mean(rates)


def line(peer: str, rates: Rates, ours: str) -> str:
    """A peer's median rate, and how many times faster ours is, round by round."""
    text = f"  {peer:24} {statistics.median(rates[peer]):10,.0f}"
    if peer == ours:
        return text
    ratios = [one / other for one, other in zip(rates[ours], rates[peer], strict=True)]
    return f"{text}   ours is {ratio(ratios)} times as fast"


def ratio(ratios: Sequence[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def updates_in_turns(
    updates: Mapping[str, Update], rounds: int, clock: Callable[[], float] = time.perf_counter, repeats: int = 5
) -> dict[str, list[float]]:
    """Seconds of each, the fastest of some repeats in each round; one before them warms up."""
    found: dict[str, list[float]] = {name: [] for name in updates}
    for update in updates.values():
        update()
    for _ in range(rounds):
        for name, update in updates.items():
            found[name].append(min(_seconds(update, clock) for _ in range(repeats)))
    return found


def _seconds(update: Update, clock: Callable[[], float]) -> float:
    began = clock()
    update()
    return clock() - began
