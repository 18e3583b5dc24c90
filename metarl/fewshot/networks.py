"""The networks of few-shot learning, as values: parameters come in by name, nothing is kept inside.

    Conv4: four blocks of [3 × 3 convolution, batch norm, ReLU], halved by stride 2 or by 2 × 2 max-pooling
           (Vinyals et al. 2016, §4.1.1; with stride: Finn et al. 2017, §5.2)
    batch norm: y = γ (x − μ) / √(σ² + ε) + β                                       (Ioffe & Szegedy 2015, alg. 1)

Where μ and σ² come from is for the caller to say: of the inputs themselves, or given. The network tells which it took,
so that a caller can take the support's for the query, or keep running averages.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl import checks
from metarl.fewshot.convolution import KERNEL, convolve
from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.normalisation import EPSILON, normalised_relu
from metarl.learning.protocols import Parameters

HEAD = ("head.weight", "head.bias")
"""The names of the last linear layer's parameters: what ANIL adapts."""
FEATURES = ("blocks.", "hidden.")
"""What the names of all other parameters begin with."""
STANDARD = "features"
"""The name of the statistics that `Standardised` adds."""
_BLOCKS = 4
_SMALL = 32  # pixels; images up to here are halved by stride, as MAML does on Omniglot

Precision = Literal["float32", "bfloat16"]
"""What a network computes with."""
Statistics = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and variance of each channel, by the block's name; empty where there is no batch norm."""


class Outputs(NamedTuple):
    """What a network makes of its inputs."""

    values: Float[Tensor, "..."]
    """[example, output], or [task, example, output]; features instead of outputs where there is no head."""
    statistics: Statistics
    """What the inputs were normalised by: given, or their own mean and variance."""


@runtime_checkable
class Network(Protocol):
    """A function of parameters and inputs."""

    @property
    def normalises(self) -> bool:
        """Whether it has batch norm."""
        ...

    @property
    def features(self) -> int:
        """Width of what goes into the head, or comes out where there is none."""
        ...

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters before any learning."""
        ...

    def start(self) -> Statistics:
        """The statistics that leave everything as it is: where running averages begin."""
        ...

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "example ..."], statistics: Statistics | None = None
    ) -> Outputs:
        """Normalises by the given statistics, or by those of the inputs.

        Inputs may have a task axis in front of the examples': each task is then normalised by itself, and any of the
        parameters and statistics may have a task axis too, for tasks that have their own.
        """
        ...


@final
@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Options of the network; which kind it is follows from the inputs."""

    filters: int = 64
    """Channels of each of Conv4's four blocks, for images."""
    downsample: Literal["auto", "stride", "pool"] = "auto"
    """How a block halves an image; auto: by stride up to 32 pixels, by max-pooling above."""
    precision: Precision = "float32"
    """What Conv4's convolutions compute with. bfloat16 halves their time where the processor has instructions for it;
    parameters, losses and updates stay float32."""
    hidden: tuple[int, ...] = (40, 40)
    """Widths of the hidden layers, for vectors."""

    def __post_init__(self) -> None:
        checks.at_least(1, filters=self.filters)
        checks.layers(self.hidden)


def build(config: NetworkConfig, signature: TaskSignature, outputs: int, *, adapted: bool = False) -> Network:
    """Conv4 for images [channel, height, width], a multi-layer perceptron for vectors.

    Args:
        config: its options.
        signature: of the tasks.
        outputs: width of the linear head; 0 for none, for the features themselves.
        adapted: whether it is learned through its own adaptation, by gradients of gradients.

    Raises:
        ValueError: see `check`.
    """
    check(config, signature)
    if len(signature.shape) == 1:
        return Dense(signature.shape[0], config.hidden, outputs)
    channels, height, width = signature.shape
    return Conv4(
        (channels, height, width), config.filters, _halving(config, signature), outputs, adapted, config.precision
    )


def check(config: NetworkConfig, signature: TaskSignature) -> None:
    """Raises ValueError where there is no such network for inputs of this shape."""
    if len(signature.shape) == 1:
        if config.precision != "float32":
            raise ValueError(f"the precision {config.precision} is for convolutions; leave it out for vectors")
        return
    if len(signature.shape) != 3:
        raise ValueError(f"inputs must be vectors or images [channel, height, width], got shape {signature.shape}")
    _, height, width = signature.shape
    least = 1 if _halving(config, signature) == "stride" else 2**_BLOCKS
    if min(height, width) < least:
        raise ValueError(f"max-pooling four times needs images of at least {least} pixels, got {height} × {width}")


def _halving(config: NetworkConfig, signature: TaskSignature) -> Literal["stride", "pool"]:
    if config.downsample == "auto":
        return "stride" if small(signature) else "pool"
    return config.downsample


def small(signature: TaskSignature) -> bool:
    """Whether inputs are images of at most 32 pixels: characters, not photographs."""
    return len(signature.shape) == 3 and max(signature.shape[1:]) <= _SMALL


@final
@dataclasses.dataclass(frozen=True)
class Dense:
    """A multi-layer perceptron with ReLU."""

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    """Width of the linear head; 0 for the last hidden layer's values before their ReLU, as an embedding."""

    @property
    def normalises(self) -> bool:
        return False

    @property
    def features(self) -> int:
        return self.hidden[-1]

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        parameters: dict[str, Tensor] = {}
        for index, (width_in, width_out) in enumerate(itertools.pairwise((self.inputs, *self.hidden))):
            parameters |= linear(f"hidden.{index}", width_in, width_out, generator)
        return parameters | (linear("head", self.hidden[-1], self.outputs, generator) if self.outputs else {})

    def start(self) -> Statistics:
        return {}

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "*example feature"], statistics: Statistics | None = None
    ) -> Outputs:
        x = inputs
        for index in range(len(self.hidden)):
            x = affine(parameters, f"hidden.{index}", x)
            if self.outputs or index < len(self.hidden) - 1:
                x = torch.relu(x)
        return Outputs(affine(parameters, "head", x) if self.outputs else x, {})


@final
@dataclasses.dataclass(frozen=True)
class Conv4:
    """Four convolutional blocks, and a linear head or none. There is no bias before a batch norm, which takes it away.

    Weights are [3, 3, channel in, channel out] and, of the head, [feature, output]. Where the features themselves are
    what comes out, the last block's scale begins at 1/positions, so that distances begin as small as those of averages
    over the image's positions. Squared and summed they are tens of nats in photographs, and a prototypical network
    first shrinks its features for hundreds of steps, to be less sure, and learns nothing else.
    """

    shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    filters: int
    downsample: Literal["stride", "pool"]
    outputs: int
    """Width of the linear head; 0 for the flattened features."""
    adapted: bool = True
    """Whether gradients of gradients are wanted. Where not, PyTorch's own convolution and batch norm do a batch of
    images in less than half the time, unless tasks have weights of their own and blocks halve by stride."""
    precision: Precision = "float32"
    """Of the convolutions' inputs and weights."""

    @property
    def normalises(self) -> bool:
        return True

    @property
    def features(self) -> int:
        return self.filters * self._positions

    @property
    def _positions(self) -> int:
        """Places of the image that are left after the last block."""
        size = self.shape[1:]
        for _ in range(_BLOCKS):
            size = tuple((side + 1) // 2 if self.downsample == "stride" else side // 2 for side in size)
        return math.prod(size)

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        parameters: dict[str, Tensor] = {}
        channels = self.shape[0]
        for block in range(_BLOCKS):
            weight = torch.empty(KERNEL, KERNEL, channels, self.filters)
            bound = math.sqrt(6 / (KERNEL**2 * (channels + self.filters)))  # Glorot & Bengio 2010
            parameters[f"blocks.{block}.weight"] = nn.init.uniform_(weight, -bound, bound, generator=generator)
            parameters[f"blocks.{block}.scale"] = torch.ones(self.filters)
            parameters[f"blocks.{block}.shift"] = torch.zeros(self.filters)
            channels = self.filters
        if self.outputs:
            return parameters | linear("head", self.features, self.outputs, generator)
        last = f"blocks.{_BLOCKS - 1}.scale"
        return parameters | {last: parameters[last] / self._positions}

    def start(self) -> Statistics:
        return {f"blocks.{block}": (torch.zeros(self.filters), torch.ones(self.filters)) for block in range(_BLOCKS)}

    def __call__(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "*example channel height width"],
        statistics: Statistics | None = None,
    ) -> Outputs:
        if not self.adapted and (self.downsample == "pool" or parameters["blocks.0.weight"].ndim == 4):
            return self._by_batch(parameters, inputs, statistics)
        dtype = self._dtype(inputs)
        x = inputs.movedim(-3, -1)
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for block in (f"blocks.{index}" for index in range(_BLOCKS)):
            weight = parameters[f"{block}.weight"].to(dtype)
            x = convolve(x.to(dtype), weight, 2 if self.downsample == "stride" else 1).to(inputs.dtype)
            rows = x.flatten(-4, -2)
            tasks = rows.shape[:-2]
            scale, shift = (parameters[f"{block}.{part}"].expand(*tasks, -1) for part in ("scale", "shift"))
            if statistics is None:
                rows, mean, variance = normalised_relu(rows, scale, shift)
            else:
                mean, variance = statistics[block]
                factor = scale * torch.rsqrt(variance + EPSILON)
                offset = shift - mean * factor
                rows = torch.relu(torch.addcmul(offset[..., None, :], rows, factor[..., None, :]))
            found[block] = (mean, variance)
            x = rows.view(x.shape)
            if self.downsample == "pool":
                x = _halved(x)
        x = x.flatten(-3)
        return Outputs(affine(parameters, "head", x) if self.outputs else x, found)

    def _dtype(self, inputs: Tensor) -> torch.dtype:
        """What the convolutions compute with: the inputs' own, if it is not to be shorter."""
        return torch.bfloat16 if self.precision == "bfloat16" else inputs.dtype

    def _by_batch(
        self, parameters: Parameters, inputs: Float[Tensor, "*example channel h w"], statistics: Statistics | None
    ) -> Outputs:
        """The same by PyTorch's own operations, one task after the other where each is normalised by itself."""
        if inputs.ndim == 4:
            return self._one_batch(parameters, inputs, statistics)
        own = any(value.ndim > _axes(name) for name, value in parameters.items())
        if not own and statistics is not None and statistics["blocks.0"][0].ndim == 1:
            values = self._one_batch(parameters, inputs.flatten(0, 1), statistics).values
            return Outputs(values.unflatten(0, inputs.shape[:2]), statistics)
        tasks: list[Outputs] = []
        for task, images in enumerate(inputs):
            weights = {name: _of(task, value, _axes(name)) for name, value in parameters.items()}
            given = statistics
            if statistics is not None:
                given = {block: (_of(task, m, 1), _of(task, v, 1)) for block, (m, v) in statistics.items()}
            tasks.append(self._one_batch(weights, images, given))
        found = statistics or {
            block: (
                torch.stack([each.statistics[block][0] for each in tasks]),
                torch.stack([each.statistics[block][1] for each in tasks]),
            )
            for block in tasks[0].statistics
        }
        return Outputs(torch.stack([each.values for each in tasks]), found)

    def _one_batch(
        self, parameters: Parameters, inputs: Float[Tensor, "example channel h w"], statistics: Statistics | None
    ) -> Outputs:
        dtype = self._dtype(inputs)
        x = inputs.to(dtype, memory_format=torch.channels_last)
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for block in (f"blocks.{index}" for index in range(_BLOCKS)):
            weight = parameters[f"{block}.weight"].to(dtype).permute(3, 2, 0, 1)
            x = torch.nn.functional.conv2d(x, weight, stride=2 if self.downsample == "stride" else 1, padding=1)
            scale, shift = parameters[f"{block}.scale"], parameters[f"{block}.shift"]
            if statistics is None:
                x, mean, inverse = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, EPSILON)
                found[block] = mean.detach(), inverse.detach() ** -2 - EPSILON
            else:
                found[block] = statistics[block]
                x = torch.nn.functional.batch_norm(x, *found[block], scale, shift, False, 0.0, EPSILON)
            x = torch.relu(x)
            if self.downsample == "pool":
                x = torch.nn.functional.max_pool2d(x, 2)
        x = x.movedim(-3, -1).flatten(1).to(inputs.dtype)
        return Outputs(affine(parameters, "head", x) if self.outputs else x, found)


@final
@dataclasses.dataclass(frozen=True)
class Standardised:
    """A network whose features are standardised too, without a scale and a shift: for who looks at their directions.

    What all inputs have in common, most of a rectified feature, would make all directions alike.
    """

    network: Network

    @property
    def normalises(self) -> bool:
        return True

    @property
    def features(self) -> int:
        return self.network.features

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        return self.network.init(generator)

    def start(self) -> Statistics:
        return {**self.network.start(), STANDARD: (torch.zeros(self.features), torch.ones(self.features))}

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "example ..."], statistics: Statistics | None = None
    ) -> Outputs:
        """Without a task axis; standardises by the inputs' own statistics also where only the network's are given."""
        values, found = self.network(parameters, inputs, statistics)
        given = None if statistics is None else statistics.get(STANDARD)
        mean, variance = (values.mean(0), values.var(0, correction=0)) if given is None else given
        return Outputs((values - mean) * torch.rsqrt(variance + EPSILON), {**found, STANDARD: (mean, variance)})


@final
@dataclasses.dataclass(frozen=True)
class Tuned:
    """A network whose parameters were tuned to each task: a `metarl.fewshot.learner.Predictor`."""

    network: Network
    parameters: Parameters
    """With a task axis where tasks have their own."""
    support: Float[Tensor, "..."] | None = None
    """The inputs whose statistics normalise the queries; None for the queries' own."""
    loop: bool = False
    """Whether to go through the tasks one by one; the parameters then all have a task axis."""

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        with torch.no_grad():
            return self.values(inputs)

    def values(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        """`predict`, differentiable."""
        if not self.loop:
            return self._values(self.parameters, self.support, inputs)
        one_by_one = (
            self._values(
                {name: value[task] for name, value in self.parameters.items()},
                None if self.support is None else self.support[task],
                inputs[task],
            )
            for task in range(len(inputs))
        )
        return torch.stack(list(one_by_one))

    def _values(self, parameters: Parameters, support: Tensor | None, inputs: Tensor) -> Tensor:
        statistics = None if support is None else self.network(parameters, support).statistics
        return self.network(parameters, inputs, statistics).values


def linear(name: str, width_in: int, width_out: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A linear layer's parameters: a weight [in, out], Xavier-uniform (Glorot & Bengio 2010), and a zero bias."""
    weight = nn.init.xavier_uniform_(torch.empty(width_in, width_out), generator=generator)
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(width_out)}


def affine(parameters: Parameters, name: str, x: Float[Tensor, "*example feature"]) -> Float[Tensor, "*example output"]:
    """x W + b; with a task axis in W and b, each task's own."""
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    if weight.ndim == 3:
        return torch.baddbmm(bias[:, None], x, weight)
    return x @ weight + bias


def _axes(name: str) -> int:
    """Axes of a parameter of Conv4 that tasks share."""
    if not name.endswith(".weight"):
        return 1
    return 2 if name in HEAD else 4


def _of(task: int, value: Tensor, axes: int) -> Tensor:
    """What the task has, its own where there is an axis of tasks in front of so many."""
    return value[task] if value.ndim > axes else value


def _halved(x: Float[Tensor, "*example height width channel"]) -> Float[Tensor, "*example below beside channel"]:
    """The largest of every 2 × 2 pixels; an odd last row or column falls away."""
    return (
        torch.nn.functional.max_pool2d(x.flatten(0, -4).movedim(-1, -3), 2).movedim(-3, -1).unflatten(0, x.shape[:-3])
    )
