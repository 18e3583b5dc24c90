"""RL²: a recurrent policy whose memory is the learning algorithm (Duan et al. 2016, arXiv 1611.02779), trained by PPO.

    h_t = GRU(h_{t−1}, [o_t, a_{t−1}, r_{t−1}, d_{t−1}]),     π(a_t | h_t) = N(μ(h_t), diag σ²),     v(h_t)

The memory h is zero when a trial starts and is *kept* when an episode ends, so what one episode taught serves the
next. The last action and reward of an episode, and done = 1, arrive with the next episode's first observation.
Adapting to a task means carrying h forward; no parameter changes.

The objective is the whole trial's return, which decides how advantages are made (`Rl2Ppo.advantages`):

- Nothing is cut where an episode ends *within* a trial, terminated or not: what follows is the next episode, whose
  reward is part of the objective, so the last step of an episode bootstraps on the next one's first value. That is
  what pays for exploring early.
- Where the *trial* ends the last episode was truncated or terminated. Truncated by the time limit: bootstrap on the
  value of the final observation, as if the episode went on; the critic need not then tell steps by their distance
  from the end. Terminated by the task: nothing follows, and the value is 0.

The network and what it is told at each step are in `recurrent.py`, PPO's losses in `ppo.py`.
"""

import dataclasses
import functools
import math
from typing import NamedTuple, final, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from metarl import checks
from metarl.agents import policies
from metarl.agents.recurrent import Cell, Network, Outputs, Policy, Previous, Rl2Actor, Trials, concatenate
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Figures, Parameters, Schedule, State
from metarl.maths import adam, returns, running_mean_std
from metarl.maths.ppo import (
    approximate_kl,
    clip_fraction,
    explained_variance,
    normalise,
    surrogate_loss,
    value_loss,
)
from metarl.maths.running_mean_std import Moments
from metarl.tasks import Task

_ADAM_EPSILON = 1e-5


@final
@dataclasses.dataclass(frozen=True)
class Rl2PpoConfig:
    """Options of RL². The paper trains by TRPO with a GRU of 256; these are the usual recipe's with recurrent PPO.

    Where they deviate from it, it is for speed on cheetah-velocity: smaller batches at a higher rate reached a return
    of −120 after 1.0M environment steps; 64 trials, 5 epochs of 8 minibatches and a rate of 5e-4 took 2.0M.
    """

    meta_batch: int = 32
    """Trials an outer step, each on a task of its own (the recipe: 10 to 16)."""
    episodes_per_trial: int = 2
    """Episodes that the memory is carried through."""
    cell: Cell = "gru"
    """The recurrent cell; `none` is for `PpoConfig`."""
    hidden: int = 128
    """Units of the cell."""
    initial_log_std: float = -0.5
    """log σ before training, ±1 being the action space's bounds: noise that is clipped off hides the signal."""
    learning_rate: float = 1e-3
    """Adam's (the recipe: 5e-4)."""
    epochs: int = 8
    """Passes over the trials in an outer step (the recipe: 10)."""
    minibatches: int = 4
    """Gradient steps in a pass."""
    chunk_length: int | None = 50
    """Steps that gradients flow back through, from the stored memory at the chunk's start; None: whole trials. Short
    chunks make wide batches: at 128 units half the time of whole trials. What is remembered can be older than a chunk,
    but learning to remember it needs a clue within one."""
    clip: float = 0.2
    """ε, how far a probability ratio may profit from leaving 1."""
    discount: float = 0.99
    """γ."""
    gae_lambda: float = 0.95
    """λ of the advantages."""
    entropy_coefficient: float = 5e-3
    """Weight of the entropy bonus."""
    value_coefficient: float = 0.5
    """Weight of the critic's squared error."""
    max_gradient_norm: float = 0.5
    """Gradients longer than this are shortened to it."""
    normalise_observations: bool = True
    """Standardise observations by running statistics (not in the paper; joint velocities are far from unit scale)."""
    normalise_rewards: bool = True
    """Standardise the reward that the policy sees, and divide the reward that it learns from by the running standard
    deviation of the trial's discounted returns. Off, rewards of another scale than 1 break the training."""

    def __post_init__(self) -> None:
        checks.at_least(
            1,
            meta_batch=self.meta_batch,
            episodes_per_trial=self.episodes_per_trial,
            hidden=self.hidden,
            epochs=self.epochs,
            minibatches=self.minibatches,
        )
        checks.positive(learning_rate=self.learning_rate, clip=self.clip, max_gradient_norm=self.max_gradient_norm)
        checks.at_least(0, entropy_coefficient=self.entropy_coefficient, value_coefficient=self.value_coefficient)
        checks.fraction(discount=self.discount, gae_lambda=self.gae_lambda)
        if self.cell not in get_args(Cell):
            raise ValueError(f"cell must be 'gru' or 'lstm', got {self.cell!r}")
        if self.chunk_length is not None and self.chunk_length < 1:
            raise ValueError(f"chunk_length must be at least 1, or None for whole trials; got {self.chunk_length}")
        if self.chunk_length is None and self.minibatches > self.meta_batch:
            raise ValueError(f"{self.meta_batch} whole trials cannot make {self.minibatches} minibatches")


class Batch(NamedTuple):
    """What the update learns from, in segments: whole trials, or chunks of them. Axes [segment, time]."""

    observations: Float[Tensor, "segment time observation"]
    previous: Previous
    carry: tuple[Float[Tensor, "segment hidden"], ...]
    """The memory at each segment's start."""
    actions: Float[Tensor, "segment time action"]
    log_probs: Float[Tensor, "segment time"]
    """Under the parameters that acted."""
    advantages: Float[Tensor, "segment time"]
    targets: Float[Tensor, "segment time"]
    """For the critic."""
    mask: Bool[Tensor, "segment time"]

    def pick(self, index: Int[Tensor, " minibatch"]) -> "Batch":
        return Batch(
            self.observations[index],
            self.previous.map(lambda x: x[index]),
            tuple(part[index] for part in self.carry),
            self.actions[index],
            self.log_probs[index],
            self.advantages[index],
            self.targets[index],
            self.mask[index],
        )


@final
@dataclasses.dataclass(frozen=True)
class Rl2Ppo:
    """The agent: its options, the environment's shapes and where its episodes come from."""

    config: Rl2PpoConfig
    observation_size: int
    action_size: int
    sampler: Collector
    device: str = "cpu"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("return_first", "return_last", "success_last", "approx_kl")

    @property
    def round_name(self) -> str:
        return "episode"

    @property
    def schedule(self) -> Schedule:
        return Schedule(rounds=self.config.episodes_per_trial - 1, episodes=1)

    @functools.cached_property
    def policy(self) -> Policy:
        return Policy(self.observation_size, self.action_size, self.config.hidden, self.config.cell)

    @functools.cached_property
    def _network(self) -> Network:
        return self.policy.network

    def call(
        self, parameters: Parameters, observations: Tensor, previous: Previous, carry: tuple[Tensor, ...]
    ) -> Outputs:
        return torch.func.functional_call(self._network, dict(parameters), (observations, previous, carry))

    def init(self, seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        parameters: dict[str, Tensor] = {}
        for name, like in self._network.named_parameters():
            parameters[name] = _initial(name, torch.empty(like.shape), self.config, generator)
        optimizer = adam.start(parameters)
        parameters |= Moments.start(self.observation_size + 2).named()
        return State(
            {name: x.to(self.device) for name, x in parameters.items()},
            {name: x.to(self.device) for name, x in optimizer.items()},
        )

    def start(self, state: State, num_tasks: int) -> Rl2Actor:
        device = torch.device(self.device)
        policy = self.policy
        carry, before = policy.zero_carry(num_tasks, device), policy.nothing_before(num_tasks, device)
        return Rl2Actor(policy, state.parameters, carry, before)

    def meta_step(self, state: State, batch: tuple[Task, ...], rng: np.random.Generator) -> tuple[State, Figures]:
        rounds = self.play(state, batch, rng)
        trials = concatenate(rounds)
        statistics = self.statistics(state.parameters, trials)
        scale = float(statistics["input_variance"][-1].sqrt())
        segments, explained = self.prepare(state.parameters, trials, rounds[-1], scale)
        learned, losses = self._update(state, segments, rng)
        return State({**learned.parameters, **statistics}, learned.optimizer), {
            "env_steps": float(sum(episodes.num_steps for episodes in rounds)),
            "episodes": float(sum(episodes.lengths.numel() for episodes in rounds)),
            **rounds[0].figures("first"),
            **rounds[-1].figures("last"),
            **losses,
            "explained_variance": explained,
            "policy_std": float(learned.parameters["log_std"].exp().mean()),
            "reward_scale": scale,
            "diverged": float(sum(int(episodes.diverged.sum()) for episodes in rounds)),
        }

    def play(self, state: State, batch: tuple[Task, ...], rng: np.random.Generator) -> list[Episodes]:
        """The trial's episodes, one round each."""
        actor, rounds = self.start(state, len(batch)), []
        for index in range(self.config.episodes_per_trial):
            if index > 0:
                actor = actor.adapt(rounds[-1])
            rounds.append(self.sampler.collect(actor, batch, 1, int(rng.integers(2**31))))
        return rounds

    def statistics(self, parameters: Parameters, trials: Trials) -> dict[str, Tensor]:
        """The `Moments` of [observation, reward, discounted return] with these trials taken in."""
        config, mask = self.config, trials.mask
        gained = returns.discounted_returns(trials.rewards, config.discount * mask.to(trials.rewards.dtype))
        x = torch.cat([trials.observations, trials.rewards[..., None], gained[..., None]], dim=-1)[mask]
        mean, variance, count = Moments.among(parameters).merged(x)
        fixed = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
        fixed[:-2] = not config.normalise_observations
        fixed[-2:] = not config.normalise_rewards
        fixed[-1] |= not bool(variance[-1] > 0)  # nothing to scale by: every return was the same
        return Moments(torch.where(fixed, 0.0, mean), torch.where(fixed, 1.0, variance), count).named()

    def prepare(self, parameters: Parameters, trials: Trials, last: Episodes, scale: float) -> tuple[Batch, float]:
        """Log-probs, values and advantages under the parameters that acted, in one pass, cut into segments.

        The sequences get one step more, the observation after the trial's last step, for the value to bootstrap on.
        """
        trials_count, steps = trials.rewards.shape
        length = self.config.chunk_length or steps + 1
        chunks = math.ceil((steps + 1) / length)

        def extended(x: Tensor) -> Tensor:
            return torch.cat([x, x.new_zeros(trials_count, chunks * length - steps, *x.shape[2:])], dim=1)

        trials = trials.map(extended)
        device = trials.rewards.device
        rows = torch.arange(trials_count, device=device)
        observations = trials.observations.index_put((rows, trials.lengths), last.final_observations[:, -1])
        previous = trials.previous(self.policy.nothing_before(trials_count, device))
        previous.done[rows, trials.lengths] = 0.0  # as if the last episode went on

        def cut(x: Tensor) -> Tensor:
            """[trial, chunk · time] -> [trial · chunk, time]."""
            return x.unflatten(1, (chunks, length)).flatten(0, 1)

        outputs, carries = self.run(parameters, observations, previous, length)
        log_probs = policies.gaussian_log_prob(trials.actions, outputs.mean, outputs.log_std)
        advantages = self.advantages(trials, outputs.values, last.terminated[:, -1], scale)
        targets, mask = advantages + outputs.values, trials.mask
        explained = float(explained_variance(outputs.values, targets, mask))
        batch = Batch(
            observations=cut(observations),
            previous=previous.map(cut),
            carry=tuple(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*carries, strict=True)),
            actions=cut(trials.actions),
            log_probs=cut(log_probs),
            advantages=cut(normalise(advantages, mask)),
            targets=cut(targets),
            mask=cut(mask),
        )
        return batch.pick(cut(mask).any(1).nonzero().squeeze(1)), explained

    def run(
        self, parameters: Parameters, observations: Float[Tensor, "trial time obs"], previous: Previous, length: int
    ) -> tuple[Outputs, list[tuple[Tensor, ...]]]:
        """The network over whole trials, and the memory at the start of each chunk."""
        carry = self.policy.zero_carry(len(observations), observations.device)
        carries, pieces = [], []
        with torch.no_grad():
            for start in range(0, observations.shape[1], length):
                now = slice(start, start + length)
                carries.append(carry)
                outputs = self.call(parameters, observations[:, now], previous.map(lambda x, now=now: x[:, now]), carry)
                pieces.append(outputs)
                carry = outputs.carry
        mean = torch.cat([piece.mean for piece in pieces], dim=1)
        values = torch.cat([piece.values for piece in pieces], dim=1)
        return Outputs(mean, pieces[0].log_std, values, carry), carries

    def advantages(
        self,
        trials: Trials,
        values: Float[Tensor, "trial time"],
        terminated: Bool[Tensor, " trial"],
        scale: float,
    ) -> Float[Tensor, "trial time"]:
        """Generalised advantages over the trial, of rewards divided by `scale`; see the top of this file.

        `values` holds, after each trial's last step, that of its final observation. The slots from there on get their
        own value for reward and no discount, so that their TD error is 0 and nothing but the bootstrap flows back.
        """
        mask, (rows, last) = trials.mask, (torch.arange(len(values), device=values.device), trials.lengths - 1)
        discount = self.config.discount * mask.to(values.dtype)
        discount[rows, last] *= (~terminated).to(values.dtype)
        rewards = torch.where(mask, trials.rewards / scale, values)
        return returns.gae(rewards, discount, values, torch.zeros_like(values[:, 0]), self.config.gae_lambda)

    def _update(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        """PPO's passes over the segments."""
        config = self.config
        fixed = {name: state.parameters[name] for name in running_mean_std.NAMES}
        # In the network's order, not the state's: the order of the sum in the gradient's norm changes its last bit.
        learned = {name: state.parameters[name] for name, _ in self._network.named_parameters()}
        optimizer, logs = dict(state.optimizer), list[Tensor]()
        for _ in range(config.epochs):
            order = torch.from_numpy(rng.permutation(len(batch.mask))).to(batch.mask.device)
            for index in order.tensor_split(min(config.minibatches, len(order))):
                leaves = {name: x.detach().requires_grad_() for name, x in learned.items()}
                loss, log = self._loss({**leaves, **fixed}, batch.pick(index))
                gradients = torch.autograd.grad(loss, list(leaves.values()))
                learned, optimizer = adam.step(
                    learned,
                    _shortened(dict(zip(leaves, gradients, strict=True)), config.max_gradient_norm),
                    optimizer,
                    config.learning_rate,
                    _ADAM_EPSILON,
                )
                logs.append(log)
        parts = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
        return State(learned, optimizer), dict(zip(parts, torch.stack(logs).mean(0).tolist(), strict=True))

    def _loss(self, parameters: Parameters, batch: Batch) -> tuple[Tensor, Tensor]:
        """L = L_policy + c_v L_value − c_e H, and its parts for the log."""
        config = self.config
        outputs = self.call(parameters, batch.observations, batch.previous, batch.carry)
        log_probs = policies.gaussian_log_prob(batch.actions, outputs.mean, outputs.log_std)
        policy = surrogate_loss(log_probs, batch.log_probs, batch.advantages, batch.mask, config.clip)
        value = value_loss(outputs.values, batch.targets, batch.mask)
        entropy = (outputs.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        loss = policy + config.value_coefficient * value - config.entropy_coefficient * entropy
        with torch.no_grad():
            kl = approximate_kl(log_probs, batch.log_probs, batch.mask)
            clipped = clip_fraction(log_probs, batch.log_probs, batch.mask, config.clip)
            return loss, torch.stack([policy, value, entropy, kl, clipped])


def _initial(name: str, like: Tensor, config: Rl2PpoConfig, generator: torch.Generator) -> Tensor:
    """Orthogonal weights (each gate's block its own), zero biases, and nearly zero mean actions."""
    if name == "log_std":
        return nn.init.constant_(like, config.initial_log_std)
    if like.ndim == 1:
        return nn.init.zeros_(like)
    if name.startswith("cell."):
        return policies.orthogonal_gates(like, config.hidden, generator)
    return nn.init.orthogonal_(like, gain=0.01 if name == "mean.weight" else 1.0, generator=generator)


def _shortened(gradients: Parameters, longest: float) -> dict[str, Tensor]:
    """The gradients times min(1, longest / |gradients|), the norm being that of all of them together."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x) for x in gradients.values()]))
    factor = (longest / (norm + 1e-6)).clamp(max=1.0)
    return {name: x * factor for name, x in gradients.items()}
