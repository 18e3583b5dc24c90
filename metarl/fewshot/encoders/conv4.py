"""Conv4, the few-shot papers' encoder of images, in two implementations that agree up to rounding.

    four blocks of [3 × 3 convolution, batch norm, ReLU], halved by stride 2 or by 2 × 2 max-pooling
                                               (Vinyals et al. 2016, §4.1.1; with stride: Finn et al. 2017, §5.2)
    batch norm: y = γ (x − μ) / √(σ² + ε) + β                                       (Ioffe & Szegedy 2015, alg. 1)

There is no bias before a batch norm, which takes it away. Weights are [3, 3, channel in, channel out].
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl import checks
from metarl.fewshot.encoders.convolution import KERNEL, convolve
from metarl.fewshot.encoders.encoder import Encoded, Encoder, Statistics
from metarl.fewshot.encoders.normalisation import EPSILON, normalised_relu
from metarl.fewshot.encoders.task_by_task import encode_task_by_task
from metarl.fewshot.examples import TaskSignature
from metarl.learning.protocols import Parameters

_BLOCKS = tuple(f"blocks.{index}" for index in range(4))
_AXES = {f"{block}.{part}": axes for block in _BLOCKS for part, axes in (("weight", 4), ("scale", 1), ("shift", 1))}

Downsample = Literal["stride", "pool"]
Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Conv4Config:
    """Options of Conv4."""

    filters: int = 64
    """Channels of each of the four blocks."""
    downsample: Literal["auto", "stride", "pool"] = "auto"
    """How a block halves an image; auto: by stride up to 32 pixels, by max-pooling above."""
    precision: Precision = "float32"
    """What the convolutions compute with. bfloat16 halves their time where the processor has instructions for it;
    parameters, losses and updates stay float32."""

    def __post_init__(self) -> None:
        checks.between(1, checks.WIDEST, filters=self.filters)

    def build(self, signature: TaskSignature) -> "Conv4":
        if len(signature.shape) != 3:
            raise ValueError(f"Conv4 wants images [channel, height, width], got inputs of shape {signature.shape}")
        channels, height, width = signature.shape
        automatic = "stride" if signature.small_images else "pool"
        downsample = automatic if self.downsample == "auto" else self.downsample
        least = 1 if downsample == "stride" else 2 ** len(_BLOCKS)
        if min(height, width) < least:
            raise ValueError(f"max-pooling four times needs images of at least {least} pixels, got {height} × {width}")
        return Conv4((channels, height, width), self.filters, downsample, self.precision)


@final
@dataclasses.dataclass(frozen=True)
class Conv4:
    """The encoder; features are the last block's values, flattened."""

    shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    filters: int
    downsample: Downsample
    precision: Precision = "float32"
    second_order: bool = False
    """Whether gradients of gradients are wanted. Where not, PyTorch's own convolution and batch norm do a batch of
    images in less than half the time; unless tasks have weights of their own, blocks halve by stride, and the gradient
    is wanted, too."""
    compared: bool = False
    """Whether features are compared by their distance. The last block's scale then begins at 1/positions, so that
    distances begin as small as those of averages over the image's positions. Squared and summed they are tens of nats
    in photographs, and a prototypical network first shrinks its features for hundreds of steps, to be less sure, and
    learns nothing else."""

    @property
    def normalises(self) -> bool:
        return True

    @property
    def num_features(self) -> int:
        return self.filters * self._positions

    @property
    def comparison_scale(self) -> float:
        """How many times as large features begin where they are `compared`."""
        return 1 / self._positions

    @property
    def _positions(self) -> int:
        """Places of the image that are left after the last block."""
        size = self.shape[1:]
        for _ in _BLOCKS:
            size = tuple((side + 1) // 2 if self.downsample == "stride" else side // 2 for side in size)
        return math.prod(size)

    @property
    def _stride(self) -> int:
        return 2 if self.downsample == "stride" else 1

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        parameters: dict[str, Tensor] = {}
        channels = self.shape[0]
        for block in _BLOCKS:
            weight = torch.empty(KERNEL, KERNEL, channels, self.filters)
            bound = math.sqrt(6 / (KERNEL**2 * (channels + self.filters)))  # Glorot & Bengio 2010
            parameters[f"{block}.weight"] = nn.init.uniform_(weight, -bound, bound, generator=generator)
            parameters[f"{block}.scale"] = torch.ones(self.filters)
            parameters[f"{block}.shift"] = torch.zeros(self.filters)
            channels = self.filters
        if self.compared:
            parameters[f"{_BLOCKS[-1]}.scale"] *= self.comparison_scale
        return parameters

    def initial_statistics(self) -> Statistics:
        return {block: (torch.zeros(self.filters), torch.ones(self.filters)) for block in _BLOCKS}

    def __call__(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "*example channel height width"],
        statistics: Statistics | None = None,
    ) -> Encoded:
        own_weights = parameters[f"{_BLOCKS[0]}.weight"].ndim == 5
        if torch.is_grad_enabled() and (self.second_order or (own_weights and self.downsample == "stride")):
            return self._by_matrices(parameters, inputs, statistics)
        if inputs.ndim == 4:
            return self._by_layers(parameters, inputs, statistics)
        return encode_task_by_task(self._by_layers, _AXES, parameters, inputs, statistics)

    def _by_matrices(
        self, parameters: Parameters, inputs: Float[Tensor, "*example channel h w"], statistics: Statistics | None
    ) -> Encoded:
        """With our own kernels: all tasks at once, and quick derivatives of the second order."""
        dtype = self._dtype(inputs)
        x = inputs.movedim(-3, -1)
        taken: dict[str, tuple[Tensor, Tensor]] = {}
        for block in _BLOCKS:
            x = convolve(x.to(dtype), parameters[f"{block}.weight"].to(dtype), self._stride).to(inputs.dtype)
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
            taken[block] = (mean, variance)
            x = rows.view(x.shape)
            if self.downsample == "pool":
                x = _halved(x)
        return Encoded(x.flatten(-3), taken)

    def _by_layers(
        self, parameters: Parameters, inputs: Float[Tensor, "example channel h w"], statistics: Statistics | None
    ) -> Encoded:
        """One batch of images by PyTorch's own operations."""
        blocks = list(self._blocks(parameters, inputs, statistics))
        return Encoded(_flat(blocks[-1][1]).to(inputs.dtype), {block: taken for block, _, taken in blocks})

    def layers(
        self, parameters: Parameters, inputs: Float[Tensor, "example channel h w"], statistics: Statistics | None = None
    ) -> dict[str, Float[Tensor, "example feature"]]:
        return {block: _flat(x).to(inputs.dtype) for block, x, _ in self._blocks(parameters, inputs, statistics)}

    def _blocks(
        self, parameters: Parameters, inputs: Float[Tensor, "example channel h w"], statistics: Statistics | None
    ) -> Iterator[tuple[str, Float[Tensor, "example channel h w"], tuple[Tensor, Tensor]]]:
        """Block by block: its name, its values, and the mean and variance that normalised it."""
        dtype = self._dtype(inputs)
        x = inputs.to(dtype, memory_format=torch.channels_last)
        for block in _BLOCKS:
            weight = parameters[f"{block}.weight"].to(dtype).permute(3, 2, 0, 1)
            x = torch.nn.functional.conv2d(x, weight, stride=self._stride, padding=1)
            scale, shift = parameters[f"{block}.scale"], parameters[f"{block}.shift"]
            if statistics is None:
                x, mean, inverse = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, EPSILON)
                taken = mean.detach(), inverse.detach() ** -2 - EPSILON
            else:
                taken = statistics[block]
                x = torch.nn.functional.batch_norm(x, *taken, scale, shift, False, 0.0, EPSILON)
            x = torch.relu(x)
            if self.downsample == "pool":
                x = torch.nn.functional.max_pool2d(x, 2)
            yield block, x, taken

    def _dtype(self, inputs: Tensor) -> torch.dtype:
        """What the convolutions compute with: the inputs' own, if it is not to be shorter."""
        return torch.bfloat16 if self.precision == "bfloat16" else inputs.dtype


def for_second_order(encoder: Encoder) -> Encoder:
    """The encoder with kernels that are quick where gradients of gradients are taken."""
    return dataclasses.replace(encoder, second_order=True) if isinstance(encoder, Conv4) else encoder


def for_comparison(encoder: Encoder) -> Encoder:
    """The encoder with parameters that begin as is best where features are compared by their distance."""
    return dataclasses.replace(encoder, compared=True) if isinstance(encoder, Conv4) else encoder


def scaled_for_comparison(parameters: Parameters, before: Encoder, now: Encoder) -> dict[str, Tensor]:
    """Parameters that were learned where features were not compared, where they now are; others as they are.

    Features are as many times as large as the last block's scale and shift: ReLU and pooling keep a positive factor.
    """
    if not (isinstance(before, Conv4) and isinstance(now, Conv4) and now.compared and not before.compared):
        return dict(parameters)
    last = {f"{_BLOCKS[-1]}.{part}": parameters[f"{_BLOCKS[-1]}.{part}"] for part in ("scale", "shift")}
    return {**parameters, **{name: value * now.comparison_scale for name, value in last.items()}}


def _flat(x: Float[Tensor, "example channel h w"]) -> Float[Tensor, "example feature"]:
    """Features, with the channels of one place beside each other."""
    return x.movedim(-3, -1).flatten(1)


def _halved(x: Float[Tensor, "*example height width channel"]) -> Float[Tensor, "*example below beside channel"]:
    """The largest of every 2 × 2 pixels; an odd last row or column falls away."""
    return (
        torch.nn.functional.max_pool2d(x.flatten(0, -4).movedim(-1, -3), 2).movedim(-3, -1).unflatten(0, x.shape[:-3])
    )
