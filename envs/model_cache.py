# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Compiled models that are kept for the next simulation of the same task, up to a number of bytes."""

import collections
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar, final

import mujoco

Key = TypeVar("Key", bound=Hashable)


def model_bytes(model: mujoco.MjModel) -> int:
    """What a model takes: its buffer, with all textures, meshes and height fields, and the record that points into it.

    It is `mj_sizeModel`, but for the few bytes of a file's header.
    """
    return mujoco.mj_sizeModel(model)


@final
class ModelCache(Generic[Key]):
    """Models by key, the least recently used given up first.

    A model that simulations still use lives on until they let go of it; it only no longer counts here.
    """

    def __init__(self, limit: int) -> None:
        """`limit` in bytes. A single model that is larger is kept until the next one comes."""
        self._limit = limit
        self._models: collections.OrderedDict[Key, mujoco.MjModel] = collections.OrderedDict()
        self._bytes = 0

    @property
    def num_bytes(self) -> int:
        """What the models that are kept take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._models)

    def get(self, key: Key, make: Callable[[], mujoco.MjModel]) -> mujoco.MjModel:
        """The key's model, made if it is not here."""
        model = self._models.pop(key, None)
        if model is None:
            model = make()
            self._bytes += model_bytes(model)
        self._models[key] = model  # the most recently used stands last
        while self._bytes > self._limit and len(self._models) > 1:
            _, oldest = self._models.popitem(last=False)
            self._bytes -= model_bytes(oldest)
        return model
