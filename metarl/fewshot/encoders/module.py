"""Any `torch.nn.Module` as an encoder: its parameters come in by name, nothing of it is written to.

Batch-norm layers take their statistics as every encoder does: of the inputs, or given. Their running averages are the
learner's business, so a module's own buffers for them are only where these begin. Other buffers are constants.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.fewshot.encoders.encoder import Encoded, Statistics
from metarl.fewshot.encoders.task_by_task import encode_task_by_task
from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.plain import fields_only
from metarl.learning.protocols import Parameters

MakeModule = Callable[[TaskSignature], nn.Module]
"""Makes a module that turns [example, ...] into [example, feature, ...]; further axes are flattened."""

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_MEAN, _VARIANCE = "running_mean", "running_var"


@final
@dataclasses.dataclass(frozen=True)
class ModuleEncoder:
    """The module that `make` makes, as a function.

    Tasks that have parameters or statistics of their own are computed one after the other. Variances are unbiased, as
    PyTorch's running ones.

    Raises:
        ValueError: it draws random numbers (dropout), has a buffer that changes when it is called, or does not return
            one row of features for each example.
    """

    make: MakeModule
    """What it draws with PyTorch's generator follows from the seed; nothing else may be random."""
    signature: TaskSignature

    def __post_init__(self) -> None:
        _ = self._num_features  # by a call that shows whether the module can be an encoder

    __getstate__ = fields_only

    @property
    def normalises(self) -> bool:
        return bool(self.initial_statistics())

    @property
    def num_features(self) -> int:
        return self._num_features

    @functools.cached_property
    def _num_features(self) -> int:
        """What a call with zeros returns."""
        inputs = torch.zeros(2, *self.signature.shape)
        buffers = {name: value.clone() for name, value in self._constants.items()}
        parameters = dict(self._by_own_statistics.named_parameters())
        with torch.no_grad():
            features = self._encode(parameters, inputs, None).features
        if len(features) != len(inputs) or features.shape[1:].numel() == 0:
            raise ValueError(
                f"an encoder returns a row of features for each example, got {list(features.shape)} for {len(inputs)}"
            )
        for name, value in self._constants.items():
            if not torch.equal(value, buffers[name]):
                raise ValueError(
                    f"the module's buffer {name!r} changes when it is called; only batch norm's running averages may"
                )
        return features.shape[1]

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        return {name: value.detach().clone() for name, value in self._made(seed).named_parameters()}

    def initial_statistics(self) -> Statistics:
        return {
            name: (layer.running_mean.clone(), layer.running_var.clone())
            for name, layer in _batch_norms(self._by_given_statistics)
            if layer.running_mean is not None and layer.running_var is not None
        }

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "example ..."], statistics: Statistics | None = None
    ) -> Encoded:
        if inputs.ndim == 1 + len(self.signature.shape):
            return self._encode(parameters, inputs, statistics)
        return encode_task_by_task(self._encode, self._axes, parameters, inputs, statistics, normalises=self.normalises)

    def _encode(
        self, parameters: Parameters, inputs: Float[Tensor, "example ..."], statistics: Statistics | None
    ) -> Encoded:
        """One batch of examples."""
        buffers = {name: value.to(inputs.device) for name, value in self._constants.items()}
        module = self._by_given_statistics
        if statistics is None:
            module = self._by_own_statistics
            # `new_zeros`, because under vmap each task must have its own to be written to
            statistics = {
                name: (inputs.new_zeros(mean.shape), inputs.new_zeros(variance.shape))
                for name, (mean, variance) in self.initial_statistics().items()
            }
        for name, (mean, variance) in statistics.items():
            buffers |= {f"{name}.{_MEAN}": mean, f"{name}.{_VARIANCE}": variance}
        features = torch.func.functional_call(module, {**parameters, **buffers}, (inputs,))
        return Encoded(features.flatten(1) if features.ndim > 1 else features[:, None], statistics)

    @functools.cached_property
    def _by_own_statistics(self) -> nn.Module:
        """The module as in training: a batch norm takes the batch's mean and variance, and writes them down."""
        module = self._made(0)
        for name, layer in module.named_modules():
            if isinstance(layer, _DROPOUTS) and layer.p > 0:
                raise ValueError(f"dropout (layer {name!r}) draws from a hidden generator; make the module without it")
        for name, layer in _batch_norms(module):
            if not layer.track_running_stats:
                raise ValueError(
                    f"batch norm {name!r} must have track_running_stats=True: an evaluation says whether its running "
                    "averages are used"
                )
            layer.momentum = 1.0  # the "running average" is the batch's own
            layer.num_batches_tracked = None
        return module.train()

    @functools.cached_property
    def _by_given_statistics(self) -> nn.Module:
        """The module as in evaluations: a batch norm takes the mean and variance that it is given."""
        return self._made(0).eval()

    @functools.cached_property
    def _constants(self) -> dict[str, Tensor]:
        """The buffers that are not batch norm's."""
        norms = tuple(f"{name}." for name, _ in _batch_norms(self._by_own_statistics))
        buffers = self._by_own_statistics.named_buffers()
        return {name: value for name, value in buffers if not name.startswith(norms)}

    @functools.cached_property
    def _axes(self) -> dict[str, int]:
        return {name: value.ndim for name, value in self._by_own_statistics.named_parameters()}

    def _made(self, seed: int) -> nn.Module:
        """A new module; PyTorch's global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.make(self.signature)
        if not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from outside
            raise ValueError(f"an encoder's function must return a torch.nn.Module, got {type(module).__name__}")
        return module


def _batch_norms(module: nn.Module) -> Iterator[tuple[str, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]]:
    for name, layer in module.named_modules():
        if isinstance(layer, _BATCH_NORMS):
            yield name, layer
