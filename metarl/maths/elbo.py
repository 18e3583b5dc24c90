"""VariBAD's evidence lower bound (Zintgraf et al. 2020, arXiv 1910.08348, eq. 6 to 9), without its networks.

    ELBO_t = E_{z ~ q_t} log p(τ_{:H} | z) − β KL(q_t ‖ q_{t−1}),     q_{−1} = N(0, I)

q_t is the belief after t transitions, from q_0, which has seen none, to q_H. Every belief has to explain the *whole*
trial, past and future, and the belief before is its prior.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.maths.distributions import Gaussian


class Draws(NamedTuple):
    """Which terms of the sums over t and over steps are taken, and the noise of the latent samples."""

    beliefs: Int[Tensor, "trial term"]
    """t, from 0 to the trial's length."""
    steps: Int[Tensor, "trial term decoded"]
    """Steps that the belief is to explain, from 0 to the trial's length − 1."""
    noise: Float[Tensor, "trial term latent"]
    """ε ~ N(0, I)."""

    @classmethod
    def sample(
        cls, lengths: Int[Tensor, " trial"], terms: int, decoded: int, latent: int, rng: np.random.Generator
    ) -> "Draws":
        """Uniform ones, drawn with replacement."""
        counts = lengths.cpu().numpy()
        beliefs = rng.integers(counts[:, None] + 1, size=(len(counts), terms))
        steps = rng.integers(counts[:, None, None], size=(len(counts), terms, decoded))
        noise = rng.standard_normal((len(counts), terms, latent), dtype=np.float32)
        return cls(*(torch.from_numpy(x).to(lengths.device) for x in (beliefs, steps, noise)))


def split_belief(belief: Float[Tensor, "*batch both"]) -> Gaussian:
    """N(μ, diag σ²) of [μ, log σ²]."""
    mean, log_variance = belief.chunk(2, dim=-1)
    return Gaussian(mean, 0.5 * log_variance)


def sequential_kl(beliefs: Float[Tensor, "trial time both"]) -> Float[Tensor, "trial time"]:
    """KL(q_t ‖ q_{t−1}) for every t, with q_{−1} = N(0, I)."""
    before = torch.cat([torch.zeros_like(beliefs[:, :1]), beliefs[:, :-1]], dim=1)
    return split_belief(beliefs).kl(split_belief(before))


def pick_steps(x: Float[Tensor, "trial time *rest"], steps: Int[Tensor, "trial *chosen"]) -> Tensor:
    """[trial, chosen…, rest…]: each trial's own steps."""
    rows = torch.arange(len(x), device=x.device).view(-1, *[1] * (steps.ndim - 1))
    return x[rows, steps]


def negative_elbo(
    errors: Float[Tensor, "trial term decoded"], kl: Float[Tensor, "trial term"], kl_weight: float
) -> Float[Tensor, ""]:
    """Σ_t [Σ_i error_{t,i} + β KL_t], a mean over trials: `errors` are −log p up to a constant and a factor."""
    return (errors.sum(-1) + kl_weight * kl).sum(-1).mean()
