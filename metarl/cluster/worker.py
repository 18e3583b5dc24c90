"""What a worker does, in whichever process: it makes the distribution, and plays shares of collections."""

import dataclasses
import functools
import hashlib
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch

import metarl
from metarl.errors import RunError
from metarl.evaluation.judge import EvaluationSettings, Measured
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy
from metarl.runs import provenance
from metarl.tasks import Task

_ROOMS = ("learning", "maths", "tasks", "envs", "agents", "fewshot")
"""Of metarl, whose code decides what a trial is, or a few-shot learner's answer."""


@final
@dataclasses.dataclass(frozen=True)
class Identity:
    """What a worker must have in common with the driver for its trials to be the driver's, bit for bit."""

    host: str
    """Where it is, for messages; may differ."""
    versions: Mapping[str, str]
    """Of Python and the packages that compute."""
    code: str
    """Hash of the files of metarl that a trial rests on."""
    arithmetic: str
    """Hash of what sums and functions come to: it tells processors apart that round otherwise."""

    def need_like(self, driver: "Identity") -> None:
        """Checks that this worker may play.

        Raises:
            RunError: something differs; the message says what, there and here.
        """
        for name in sorted(driver.versions.keys() | self.versions.keys()):
            there, here = (side.versions.get(name, "none") for side in (self, driver))
            if there != here:
                raise RunError(f"the worker on {self.host} is refused: {name} is {there} there, {here} here")
        if self.code != driver.code:
            raise RunError(
                f"the worker on {self.host} is refused: metarl has other code there, {self.code}; here {driver.code}"
            )
        if self.arithmetic != driver.arithmetic:
            raise RunError(
                f"the worker on {self.host} is refused: its processor rounds otherwise, {self.arithmetic} there, "
                f"{driver.arithmetic} here, so results would depend on who plays"
            )


def identity() -> Identity:
    """This process's."""
    return Identity(socket.gethostname(), provenance.environment(1).versions, _code(), _arithmetic())


@functools.cache
def _code() -> str:
    """Of the Python files and MuJoCo models that a trial rests on, by name and content."""
    root, content = Path(metarl.__file__).parent, hashlib.sha256()
    for room in _ROOMS:
        for path in sorted(path for path in (root / room).rglob("*") if path.suffix in (".py", ".xml")):
            content.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return content.hexdigest()[:12]


def _arithmetic() -> str:
    """Of matrix products, elementary functions and sums on numbers that are the same everywhere."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((48, 33), dtype=np.float32))
    products = x @ x.T, torch.bmm(x.expand(3, 48, 33), x.T.expand(3, 33, 48))[1]
    functions = torch.tanh(x), torch.exp(x), torch.sigmoid(x), torch.log1p(x.abs()), x.sum(0), x.softmax(-1)
    content = hashlib.sha256()
    for part in (*products, *functions):
        content.update(part.numpy().tobytes())
    return content.hexdigest()[:12]


@final
@dataclasses.dataclass(frozen=True)
class PlayEpisodes:
    """`TrialCollector.collect_episodes`, as a share."""

    num_episodes: int
    noise: bool


@final
@dataclasses.dataclass(frozen=True)
class Share:
    """A part of a collection: a value that any worker can play."""

    distribution: str
    """The id by which a worker makes the distribution."""
    distribution_hash: str
    """The driver's."""
    policy: AdaptedPolicy
    """Of these tasks alone."""
    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]
    what: AdaptationProtocol | PlayEpisodes
    """Trials, or episodes."""


@runtime_checkable
class Examination(Protocol):
    """A learner, what it has learned, and who judges it."""

    def measure(self, tasks: tuple[Task, ...], settings: EvaluationSettings, trial: int) -> Measured: ...


@final
@dataclasses.dataclass(frozen=True, eq=False)
class JudgeShare:
    """A part of the tasks that a learner is judged on."""

    examination: Examination
    """The same object in all shares, so that it is sent once."""
    tasks: tuple[Task, ...]
    settings: EvaluationSettings
    trial: int


@final
@dataclasses.dataclass(frozen=True, eq=False)
class HeldParts:
    """Parts that one worker is asked about again and again, and keeps until it is asked about others."""

    parts: tuple[object, ...]
    token: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    """Tells them from all others."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class PartsShare:
    """A function of some of the parts."""

    held: HeldParts
    """The same object in all questions about them, so that it is sent once."""
    function: Callable[[Any], object]


@final
@dataclasses.dataclass(frozen=True)
class Answers:
    """The function's values, one for each part."""

    values: tuple[object, ...]


AnyShare = Share | JudgeShare | PartsShare
Result = Trials | Episodes | Measured | Answers


@final
class Player:
    """Plays shares, in one batched vector environment that is kept as long as the distribution stays.

    Args:
        threads: threads or processes that step its simulators.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(1)  # see `ComputeOptions.use`: sums come out as on the driver's one thread
        self._threads = threads
        self._opened: tuple[str, Collector] | None = None
        self._held: HeldParts | None = None

    def identity(self) -> Identity:
        return identity()

    def pid(self) -> int:
        """Of its process, on its host."""
        return os.getpid()

    def play(self, share: Share) -> Trials | Episodes:
        """The share's trials or episodes.

        Raises:
            RunError: the distribution is another one here.
        """
        collector = self._collector(share.distribution, share.distribution_hash)
        if isinstance(share.what, AdaptationProtocol):
            return collector.collect_trials(share.policy, share.tasks, share.what, share.seeds)
        count, noise = share.what.num_episodes, share.what.noise
        return collector.collect_episodes(share.policy, share.tasks, count, share.seeds, noise=noise)

    def measure(
        self, examination: Examination, tasks: tuple[Task, ...], settings: EvaluationSettings, trial: int
    ) -> Measured:
        """What a `JudgeShare` comes to."""
        return examination.measure(tasks, settings, trial)

    def compute(self, token: str, load: Callable[[], HeldParts], function: Callable[[Any], object]) -> Answers:
        """What a `PartsShare` comes to.

        Args:
            token: the parts'.
            load: fetches them, unless they are those of the last question, with what was computed of them then.
            function: what is asked of each.
        """
        if self._held is None or self._held.token != token:
            self._held = load()
        return Answers(tuple(function(part) for part in self._held.parts))

    def _collector(self, id: str, expected: str) -> Collector:
        if self._opened is not None and self._opened[0] == expected:
            return self._opened[1]
        self.close()
        host = socket.gethostname()
        try:
            from metarl import envs  # its simulators may be missing here

            dist = envs.make(id)
        except (ValueError, ImportError, OSError) as error:  # the last of a library that does not load
            raise RunError(f"the worker on {host} is refused: {id} cannot be made there: {error}") from error
        if dist.hash != expected:
            raise RunError(
                f"the worker on {host} is refused: {id} is another distribution there, {dist.hash}; here {expected}"
            )
        collector = Collector(dist, self._threads)
        self._opened = expected, collector
        return collector

    def close(self) -> None:
        """Ends the simulators."""
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None
