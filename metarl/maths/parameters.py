"""Parameters by name: as one vector and back, and the norm of their gradients."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

Parameters = Mapping[str, Tensor]


def ravel(parameters: Parameters) -> Float[Tensor, " n"]:
    """All parameters in one vector, in the mapping's order."""
    return torch.cat([value.flatten() for value in parameters.values()])


def unravel(vector: Float[Tensor, " n"], like: Parameters) -> dict[str, Tensor]:
    """The parameters in a vector, with the names, shapes and order of `like`."""
    pieces = vector.split([value.numel() for value in like.values()])
    return {name: piece.view_as(value) for (name, value), piece in zip(like.items(), pieces, strict=True)}


def clip_by_global_norm(gradients: Parameters, max_norm: float) -> dict[str, Tensor]:
    """g min(1, c / ‖g‖), the norm being that of all gradients together (Pascanu et al. 2013, alg. 1)."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(value) for value in gradients.values()]))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return {name: value * factor for name, value in gradients.items()}
