"""The encoders by id: ours by name, those of installed packages, and anybody's by `my_file.py:MyEncoder`."""

import dataclasses
import sys
from typing import TypeGuard, cast, final

from metarl.fewshot.encoders.conv4 import Conv4Config
from metarl.fewshot.encoders.encoder import Encoder, EncoderConfig
from metarl.fewshot.encoders.mlp import MlpConfig
from metarl.fewshot.encoders.module import MakeModule, ModuleEncoder
from metarl.fewshot.encoders.projection import ProjectionConfig
from metarl.fewshot.examples import TaskSignature
from metarl.registry import Registry, canonical

EncoderEntry = type[EncoderConfig] | MakeModule
"""A frozen dataclass of options that builds an encoder, or a function that makes a `torch.nn.Module`."""


def _check(entry: object) -> EncoderEntry:
    if _is_config(entry):
        if not dataclasses.is_dataclass(entry):
            raise ValueError(f"{entry.__name__} has a `build`, but is not a dataclass of options")
        return entry
    if callable(entry):
        return cast(MakeModule, entry)  # what it makes is seen when it is called
    raise ValueError("it must be a dataclass with `build(signature)`, or make a torch.nn.Module from a TaskSignature")


def _is_config(entry: object) -> TypeGuard[type[EncoderConfig]]:
    return isinstance(entry, type) and issubclass(entry, EncoderConfig)


ENCODERS: Registry[EncoderEntry] = Registry("encoder", "metarl.encoders", _check)
ENCODERS.register("conv4", Conv4Config)
ENCODERS.register("mlp", MlpConfig)
ENCODERS.register("projection", ProjectionConfig)


def register(name: str, entry: EncoderEntry) -> None:
    """Makes an encoder known by a name.

    Args:
        name: what it is called in options.
        entry: a frozen dataclass of options with `build(signature) -> Encoder`, or a function (or class) that makes a
            `torch.nn.Module` from a `TaskSignature`.

    Raises:
        ValueError: the name is taken, or the entry is neither.
    """
    ENCODERS.register(name, entry)


@final
@dataclasses.dataclass(frozen=True)
class ModuleConfig:
    """A `torch.nn.Module` as an encoder, by the id of what makes it: `my_file.py:make`, `my_package.nets:ResNet12`."""

    make: str
    """The id of a function (or class) that makes the module from a `TaskSignature`."""

    def build(self, signature: TaskSignature) -> ModuleEncoder:
        entry = ENCODERS[self.make]
        if _is_config(entry):
            raise ValueError(f"encoder {self.make!r} is a dataclass of options, not a function that makes a module")
        return ModuleEncoder(cast(MakeModule, entry), signature)


def default_options(id: str) -> EncoderConfig:
    """The encoder of an id, with the options that it has unless told otherwise.

    Raises:
        ValueError: there is none.
    """
    entry = ENCODERS[id]
    return entry() if _is_config(entry) else ModuleConfig(canonical(id))


def id_of(config: EncoderConfig) -> str:
    """The id under which `ENCODERS` finds what these are options of: for a run to remember beside the options."""
    if isinstance(config, ModuleConfig):
        return config.make
    kind = type(config)
    home = kind.__module__
    if home.startswith("metarl_file_"):
        home = str(sys.modules[home].__file__)
    return ENCODERS.name_of(kind) or f"{home}:{kind.__qualname__}"


def build(config: EncoderConfig | None, signature: TaskSignature) -> Encoder:
    """The encoder of these options; without any, Conv4 for images and a multi-layer perceptron for vectors.

    Raises:
        ValueError: it is not for inputs of this shape.
    """
    if config is not None:
        return config.build(signature)
    if len(signature.shape) not in (1, 3):
        raise ValueError(
            f"there is an encoder for vectors and for images [channel, height, width], not for inputs of shape "
            f"{signature.shape}; give one of your own"
        )
    return (Conv4Config() if signature.images else MlpConfig()).build(signature)
