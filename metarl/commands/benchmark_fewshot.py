"""How long updates of MAML and of prototypical networks take, ours and a peer's, in alternating rounds on one thread;
and how many images the episode sampler draws. Beside them stands a plain forward and backward pass of the same
examples.

MAML's peer is learn2learn's MAML class where it can be imported. It does not install on current Python; otherwise a
loop stands in for it that does what it does, and is called a task loop, not learn2learn: PyTorch's own layers, for
each task a copy of the parameters, `torch.autograd.grad(create_graph=True)` for the inner step, and `backward` for
the outer.
"""

import dataclasses
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from metarl.commands.timing import Update, ratio, updates_in_turns
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.sampler import EpisodeSampler
from metarl.tasks import Json, Split

OURS = "metarl"
PLAIN = "one plain pass"
_LEARN2LEARN, _LOOP = "learn2learn", "task loop"
Loss = Callable[[Tensor, Tensor], Tensor]


@final
@dataclasses.dataclass(frozen=True)
class Case:
    """A meta-update to measure."""

    name: str
    signature: TaskSignature
    tasks: int
    examples: int
    """In each support and each query."""
    rate: float
    """The inner rate."""

    def batch(self) -> Batch:
        """Examples like the data's: what is computed does not depend on what they show."""
        generator = torch.Generator().manual_seed(0)
        parts = []
        for _ in range(2):
            inputs = torch.randn(self.tasks, self.examples, *self.signature.shape, generator=generator)
            if self.signature.kind == "regression":
                targets = torch.sin(inputs)
            else:
                targets = torch.arange(self.examples).remainder(self.signature.ways).expand(self.tasks, -1)
            parts.append(Examples(inputs, targets))
        return Batch(*parts)


CASES = (
    Case("sinusoids, 25 tasks of 10 + 10", TaskSignature("regression", (1,), 0, 10, 1), 25, 10, 0.01),
    Case("characters, 32 tasks of 5 + 5", TaskSignature("classification", (1, 28, 28), 5, 1, 5), 32, 5, 0.4),
)
"""As in the paper: 40-40 ReLU, and Conv4-64 with stride 2; one inner step of second order."""


_TASKS, _WAYS, _QUERIES = 4, 20, 5
PROTOTYPICAL = f"prototypical, {_TASKS} tasks of {_WAYS} ways, 1 + {_QUERIES}"


def peer_name() -> str:
    """Who the peer is here."""
    return _LEARN2LEARN if importlib.util.find_spec(_LEARN2LEARN) is not None else _LOOP


def update_seconds(case: Case, rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of a meta-update, ours and the peer's, and of a plain pass; the fastest of each round."""
    batch, peer = case.batch(), peer_name()
    inputs = torch.cat([part.inputs.flatten(0, 1) for part in batch])
    targets = torch.cat([part.targets.flatten(0, 1) for part in batch])
    plain = _plain(_module(case.signature), _loss(case.signature), inputs, targets)
    return updates_in_turns({OURS: _ours(case, batch), peer: _peer(case, batch), PLAIN: plain}, rounds, clock)


def prototypical_seconds(rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of an update of prototypical networks on 4 tasks, ours, a task loop's, and of a plain pass."""
    signature = TaskSignature("classification", (1, 28, 28), _WAYS, 1, _WAYS)
    generator = torch.Generator().manual_seed(0)
    parts = [
        Examples(
            torch.randn(_TASKS, count * _WAYS, 1, 28, 28, generator=generator),
            torch.arange(count * _WAYS).remainder(_WAYS).expand(_TASKS, -1),
        )
        for count in (1, _QUERIES)
    ]
    batch, module = Batch(*parts), _features(signature.shape[0])
    learner = PrototypicalConfig(meta_batch=_TASKS).build(signature)
    state, rng = learner.init(0), np.random.default_rng(0)
    inputs = torch.cat([part.inputs.flatten(0, 1) for part in batch])
    updates: dict[str, Update] = {
        OURS: lambda: learner.meta_step(state, batch, rng),
        _LOOP: prototypes_by_loop(module, batch),
        PLAIN: _plain(module, lambda outputs, _: outputs.square().mean(), inputs, inputs),
    }
    return updates_in_turns(updates, rounds, clock)


def prototypes_by_loop(module: nn.Module, batch: Batch) -> Update:
    """Task by task; the gradient is left in the parameters' `grad`."""
    tasks, ways = len(batch.support.inputs), int(batch.support.targets.max()) + 1

    def update() -> None:
        module.zero_grad()
        for task in range(tasks):
            count = batch.support.inputs.shape[1]
            features = module(torch.cat([batch.support.inputs[task], batch.query.inputs[task]]))
            support, labels = features[:count], batch.support.targets[task]
            centres = torch.stack([support[labels == way].mean(0) for way in range(ways)])
            logits = -((features[count:, None] - centres) ** 2).sum(-1)
            (nn.functional.cross_entropy(logits, batch.query.targets[task]) / tasks).backward()

    return update


def _plain(module: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Update:
    """All examples at once, forwards and backwards."""

    def update() -> None:
        module.zero_grad()
        loss(module(inputs), targets).backward()

    return update


def report(found: dict[str, list[float]]) -> str:
    """Milliseconds of both, and how many times as fast ours is, round by round."""
    peer = next(name for name in found if name != OURS)
    ratios = [theirs / ours for ours, theirs in zip(found[OURS], found[peer], strict=True)]
    ours, theirs = (1000 * statistics.median(found[name]) for name in (OURS, peer))
    plain = f"; {PLAIN} {1000 * statistics.median(found[PLAIN]):.1f} ms" if PLAIN in found else ""
    return f"{ours:.1f} ms, {peer} {theirs:.1f} ms: ours is {ratio(ratios)} times as fast{plain}"


def measure(rounds: int) -> dict[str, Json]:
    """Measures and prints every case; the raw seconds."""
    raw: dict[str, Json] = {}
    print(f"MAML meta-update, second order, one thread, median of {rounds} rounds")
    for case in CASES:
        found = update_seconds(case, rounds)
        print(f"  {case.name:32} {report(found)}")
        raw[case.name] = {name: list(values) for name, values in found.items()}
    return raw


def measure_prototypical(rounds: int) -> dict[str, Json]:
    """Measures and prints prototypical networks; the raw seconds."""
    found = prototypical_seconds(rounds)
    print(f"  {PROTOTYPICAL:32} {report(found)}")
    return {PROTOTYPICAL: {name: list(values) for name, values in found.items()}}


def measure_sampler(rounds: int, seconds: float) -> list[Json]:
    """Measures and prints the sampler's rate; its images a second in each round."""
    rates = [sampler_rate(seconds) for _ in range(rounds)]
    print(f"episode sampler, one core, median of {rounds} rounds: {statistics.median(rates):,.0f} images/s")
    return list(rates)


def sampler_rate(seconds: float) -> float:
    """Images a second of one core: drawn, gathered and normalised, 32 5-way 1-shot tasks with 15 queries a class at
    once, from a data set as large as Omniglot with its rotations. Processor time, so that neighbours do not count.
    """
    rng, classes, each = np.random.default_rng(0), 4112, 20
    examples = torch.from_numpy(rng.integers(256, size=(classes * each, 1, 28, 28), dtype=np.uint8))
    labels, names = np.repeat(np.arange(classes), each), tuple(map(str, range(classes)))
    splits: dict[Split, tuple[int, ...]] = {
        "train": tuple(range(classes - 2)),
        "validation": (classes - 2,),
        "test": (classes - 1,),
    }
    sampler = EpisodeSampler(FewShotDataset("as large as Omniglot", examples, labels, names, splits))
    sampler.sample("train", 32, rng)  # warm up
    images, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        batch = sampler.sample("train", 32, rng)
        images += batch.support.targets.numel() + batch.query.targets.numel()
    return images / (time.process_time() - began)


def _ours(case: Case, batch: Batch) -> Update:
    """With Adam's step, which the peer's is measured without."""
    learner = Maml(MamlConfig(inner_lr=case.rate, inner_steps=1), case.signature)
    state, rng = learner.init(0), np.random.default_rng(0)
    return lambda: learner.meta_step(state, batch, rng)


def _peer(case: Case, batch: Batch) -> Update:
    module, loss = _module(case.signature), _loss(case.signature)
    if peer_name() == _LEARN2LEARN:
        return _by_learn2learn(module, loss, batch, case.rate)
    return by_loop(module, loss, batch, case.rate)


def by_loop(module: nn.Module, loss: Loss, batch: Batch, rate: float) -> Update:
    """A task loop over PyTorch's modules; the meta-gradient is left in the parameters' `grad`."""
    tasks = len(batch.support.inputs)

    def update() -> None:
        module.zero_grad()
        for task in range(tasks):
            copies = {name: value.clone() for name, value in module.named_parameters()}
            inner = loss(_call(module, copies, batch.support.inputs[task]), batch.support.targets[task])
            gradients = torch.autograd.grad(inner, list(copies.values()), create_graph=True)
            adapted = {name: copies[name] - rate * g for name, g in zip(copies, gradients, strict=True)}
            outer = loss(_call(module, adapted, batch.query.inputs[task]), batch.query.targets[task])
            (outer / tasks).backward()

    return update


def _call(module: nn.Module, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
    return torch.func.functional_call(module, parameters, (inputs,))


def _by_learn2learn(module: nn.Module, loss: Loss, batch: Batch, rate: float) -> Update:
    import learn2learn  # pyright: ignore[reportMissingImports]  # a peer, not a dependency

    maml, tasks = learn2learn.algorithms.MAML(module, lr=rate), len(batch.support.inputs)

    def update() -> None:
        maml.zero_grad()
        for task in range(tasks):
            learner = maml.clone()
            learner.adapt(loss(learner(batch.support.inputs[task]), batch.support.targets[task]))
            (loss(learner(batch.query.inputs[task]), batch.query.targets[task]) / tasks).backward()

    return update


def _module(signature: TaskSignature) -> nn.Module:
    """The same networks as ours, of PyTorch's layers."""
    torch.manual_seed(0)  # the peer's weights; nothing else is random here
    if signature.kind == "regression":
        return nn.Sequential(*_dense(signature.shape[0], (40, 40)), nn.Linear(40, signature.outputs))
    return nn.Sequential(_features(signature.shape[0]), nn.Linear(4 * 64, signature.outputs))


def _features(channels: int) -> nn.Sequential:
    """Conv4-64 with stride 2."""
    layers = list[nn.Module]()
    for _ in range(4):
        convolution = nn.Conv2d(channels, 64, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(64, track_running_stats=False), nn.ReLU()]
        channels = 64
    return nn.Sequential(*layers, nn.Flatten())


def _dense(inputs: int, widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return layers


def _loss(signature: TaskSignature) -> Loss:
    return nn.functional.mse_loss if signature.kind == "regression" else nn.functional.cross_entropy
