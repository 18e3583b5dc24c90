"""RL²: a recurrent policy whose memory is the learning algorithm (Duan et al. 2016, arXiv 1611.02779), trained by PPO.

    h_t = GRU(h_{t−1}, [o_t, a_{t−1}, r_{t−1}, d_{t−1}]),     a_t ~ π(· | h_t),     v(h_t)

The memory h is zero when a trial starts and is *kept* when an episode ends, so what one episode taught serves the
next. The last action and reward of an episode, and done = 1, arrive with the next episode's first observation.
Adapting to a task means carrying h forward; no parameter changes.

The objective is the whole trial's return, which decides how advantages are made:

- Nothing is cut where an episode ends *within* a trial, terminated or not: what follows is the next episode, whose
  reward is part of the objective, so the last step of an episode bootstraps on the next one's first value. That is
  what pays for exploring early.
- Where the *trial* ends the last episode was truncated or terminated. Truncated by the time limit: bootstrap on the
  value of the final observation, as if the episode went on (it is told done = 0); the critic need not then tell steps
  by their distance from the end. Terminated by the task: nothing follows, and the value is 0.

Sequence models and `unroll` are in `recurrent.py`, trials as sequences in `sequences.py`, PPO in `metarl/maths/ppo.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, final, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl import checks
from metarl.agents import policies
from metarl.agents.batching import map_tensors, pad_rows
from metarl.agents.recurrent import (
    MODELS,
    Architecture,
    Cell,
    Critic,
    MakeModel,
    RecurrentActorCritic,
    carry_after,
    unroll,
    unroll_pieces,
)
from metarl.agents.sequences import PreviousStep, TrialSequences, concatenate, told
from metarl.agents.transformer import HEADS
from metarl.errors import UsageError
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Metrics, Parameters, State, Transition
from metarl.learning.random_streams import TaskRandom
from metarl.learning.sharding import rows_of
from metarl.learning.spaces import Spaces
from metarl.maths import adam, linear_baseline, ppo, returns
from metarl.maths.group_variance import GroupVariance
from metarl.maths.limits import Limits, unlimit
from metarl.maths.masked import standardise
from metarl.maths.running_mean_std import RunningMeanStd
from metarl.tasks import Task
from metarl.tasks.task import content_hash

RewardScale = Literal["global", "family"]
Mean = Literal["unbounded", "bounded"]
_LEAST_SCALE = 0.01


@final
@dataclasses.dataclass(frozen=True)
class Rl2PpoConfig:
    """RL²: a recurrent policy that carries its memory through a trial, trained by PPO.

    The paper trains by TRPO with a GRU of 256; these are the usual recipe's with recurrent PPO. Where they deviate
    from it, it is for speed on cheetah-velocity: smaller batches at a higher rate reached a return of −120 after 1.0M
    environment steps; 64 trials, 5 epochs of 8 minibatches and a rate of 5e-4 took 2.0M.
    """

    meta_batch: int = 32
    """Trials an outer step, each on a task of its own (the recipe: 10 to 16)."""
    episodes_per_trial: int = 2
    """Episodes that the memory is carried through."""
    cell: Cell = "gru"
    """The recurrent cell, or a transformer (`transformer.py`), which takes several times as long."""
    hidden: int = 128
    """Units of the cell; of a transformer a multiple of its heads."""
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
    reward_scale: RewardScale = "global"
    """Which returns that deviation is of: all trials', or those of the task's own family (its class, in Meta-World), so
    that none outweighs another. What the policy sees is the same for all: in a test it is not told the family."""
    mean: Mean = "unbounded"
    """Whether tanh keeps the mean actions within the action space (as in garage's RL² for Meta-World)."""
    min_std: float | None = None
    """σ stays above this, which keeps up exploration; ±1 being the action space's bounds (garage: 0.5)."""
    max_std: float | None = None
    """σ stays below this (garage: 1.5)."""
    head_layers: tuple[int, ...] = ()
    """Widths of tanh layers between the memory and the outputs; policy and critic have their own."""
    state_to_head: bool = False
    """Give those layers the observation too, beside the memory ("RNN+S", Beck et al. 2023)."""
    hypernetwork: bool = False
    """Take the weights of the policy's layers from the memory; they see the observation alone (Beck et al. 2022; here
    the linear layer to the actions is common to all, there it comes from the memory too)."""
    critic: Critic = "shared"
    """The critic reads the policy's memory, or has a memory of its own, whose gradients stay apart (Ni et al. 2022); or
    it is a linear function of inputs and time, fitted to each trial anew, to which no scale of rewards matters (Duan et
    al. 2016). Then a trial's objective ends with its last step: nothing is bootstrapped; and it must have many more
    steps than there are weights, which are 2 × inputs + 4, or nothing is left to learn from."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch, episodes_per_trial=self.episodes_per_trial)
        checks.count(epochs=self.epochs, minibatches=self.minibatches)
        checks.layers((self.hidden,))
        checks.log_std(initial_log_std=self.initial_log_std)
        checks.positive(learning_rate=self.learning_rate, clip=self.clip, max_gradient_norm=self.max_gradient_norm)
        checks.at_least(0, entropy_coefficient=self.entropy_coefficient, value_coefficient=self.value_coefficient)
        checks.fraction(discount=self.discount, gae_lambda=self.gae_lambda)
        for name, kind in (("cell", Cell), ("reward_scale", RewardScale), ("mean", Mean), ("critic", Critic)):
            if (value := getattr(self, name)) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}")
        if self.chunk_length is not None and self.chunk_length < 1:
            raise ValueError(f"chunk_length must be at least 1, or None for whole trials; got {self.chunk_length}")
        if self.chunk_length is None and self.minibatches > self.meta_batch:
            raise ValueError(f"{self.meta_batch} whole trials cannot make {self.minibatches} minibatches")
        self._check_head()
        if self.reward_scale == "family" and not self.normalise_rewards:
            raise ValueError("reward_scale is about normalised rewards, and normalise_rewards is off")

    def _check_head(self) -> None:
        if self.cell == "transformer" and self.hidden % HEADS:
            raise ValueError(f"hidden must be a multiple of a transformer's {HEADS} heads, got {self.hidden}")
        limits = {name: value for name in ("min_std", "max_std") if (value := getattr(self, name)) is not None}
        checks.positive(**limits)
        try:
            unlimit(self.initial_log_std, self.log_std_limits)
        except ValueError as error:
            raise ValueError(f"initial_log_std must be within log min_std and log max_std: {error}") from error
        if self.head_layers:
            checks.at_least(1, head_layers=min(self.head_layers))
        if self.hypernetwork and (not self.head_layers or self.state_to_head):
            raise ValueError("a hypernetwork needs head_layers, and gives them the state without state_to_head")

    @property
    def log_std_limits(self) -> Limits:
        """log σ stays between these."""
        low, high = (None if std is None else math.log(std) for std in (self.min_std, self.max_std))
        return low, high

    @property
    def architecture(self) -> Architecture:
        """What the network has beside its memory."""
        return Architecture(
            self.initial_log_std,
            self.mean == "bounded",
            self.log_std_limits,
            self.head_layers,
            self.state_to_head,
            self.hypernetwork,
            self.critic,
        )

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> "Rl2Ppo":
        """The agent with these options.

        Raises:
            ValueError: an option is about continuous actions, and the actions are discrete.
        """
        if spaces.discrete and (self.mean == "bounded" or self.log_std_limits != (None, None)):
            raise ValueError("mean, min_std and max_std are about continuous actions; these are discrete")
        return Rl2Ppo(self, spaces, device, MODELS[self.cell])


class Batch(NamedTuple):
    """What the update learns from, in segments: whole trials, or chunks of them."""

    inputs: Float[Tensor, "segment time input"]
    carry: Carry
    """The memory at each segment's start."""
    rollout: ppo.Rollout
    """[segment, time]."""

    def pick(self, index: Int[Tensor, " minibatch"]) -> "Batch":
        """Some of the segments."""
        return Batch(self.inputs[index], map_tensors(lambda x: x[index], self.carry), self.rollout.pick(index))


@final
@dataclasses.dataclass(frozen=True)
class Rl2Ppo:
    """The agent: its options, the spaces of its environment, and what remembers."""

    config: Rl2PpoConfig
    spaces: Spaces
    device: torch.device | str = "cpu"
    make_model: MakeModel = MODELS["gru"]

    progress_keys = ("return_before", "return_after", "success_after", "approx_kl")
    adaptation_name = "episode"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def protocol(self) -> AdaptationProtocol:
        return AdaptationProtocol(self.config.episodes_per_trial - 1, episodes_per_adaptation=1)

    @functools.cached_property
    def network(self) -> RecurrentActorCritic:
        """The architecture, without weights."""
        return policies.architecture(self._build_network(torch.Generator()))

    def _build_network(self, generator: torch.Generator) -> RecurrentActorCritic:
        config, inputs = self.config, self.spaces.observation_size + self.spaces.action_size + 2
        return RecurrentActorCritic(inputs, config.hidden, self.spaces, self.make_model, config.architecture, generator)

    def init(self, seed: int) -> State:
        learned = policies.parameters_of(self._build_network(torch.Generator().manual_seed(seed)))
        statistics = RunningMeanStd.initial(
            self.spaces.observation_size + 2
        )  # [observation, reward, discounted return]
        families = _named(GroupVariance.initial()) if self.config.reward_scale == "family" else {}
        return State({**learned, **statistics.named(), **families}, adam.start(learned)).to(self.device)

    def start(self, state: State, num_tasks: int) -> "AdaptedRl2":
        carry = self.network.model.initial_carry(num_tasks, state.device)
        before = PreviousStep.none(num_tasks, self.spaces.action_size, state.device)
        return AdaptedRl2(self, state.parameters, carry, before)

    def learned(self, parameters: Parameters) -> dict[str, Tensor]:
        """The network's parameters, without the statistics.

        In the network's order, not the state's: the order of the sum in the gradient's norm changes its last bit.
        """
        return {name: parameters[name] for name, _ in self.network.named_parameters()}

    def inputs(
        self, parameters: Parameters, observations: Float[Tensor, "*batch observation"], previous: PreviousStep
    ) -> Float[Tensor, "*batch input"]:
        """[o_t, a_{t−1}, r_{t−1}, d_{t−1}], observation and reward standardised."""
        mean, variance, total = RunningMeanStd.among(parameters)
        seen = torch.cat([observations, previous.rewards[..., None]], dim=-1)
        standardised = RunningMeanStd(mean[:-1], variance[:-1], total).standardise(seen)
        return torch.cat([standardised, previous.actions, previous.done[..., None]], dim=-1)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        return self.off_policy_meta_step(state, state.parameters, experience, rng)

    def off_policy_meta_step(
        self, state: State, behaviour: Parameters, experience: Trials, rng: np.random.Generator
    ) -> tuple[State, Metrics]:
        """`meta_step` on trials that the parameters `behaviour` played: ratios are to their probabilities."""
        trials = concatenate(experience.episodes)
        statistics = self.merge_statistics(state.parameters, trials)
        reward_scale, families = float(statistics.variance[-1].sqrt()), dict[str, Tensor]()
        scales: float | Tensor = reward_scale
        if self.config.reward_scale == "family":
            scales, families = self.scale_by_family(state.parameters, trials, experience.tasks, reward_scale)
        # As when it acted: by the statistics from before these trials.
        batch, explained = self.build_batch(behaviour, trials, scales)

        def loss(parameters: Parameters, index: Tensor) -> tuple[Tensor, Tensor]:
            inputs, carry, rollout = batch.pick(index)
            outputs = unroll(self.network, parameters, inputs, carry)
            values = rollout.targets if self.config.critic == "linear" else outputs.values  # fitted already
            return ppo.loss(outputs.distribution, values, rollout, self.config)

        learned = self.learned(state.parameters)
        learned, moments, losses = ppo.minimise(loss, learned, state.optimizer, len(batch.inputs), self.config, rng)
        return State({**learned, **statistics.named(), **families}, moments, state.store), {
            **losses,
            "explained_variance": explained,
            "reward_scale": reward_scale,
        }

    def discounted_returns(self, trials: TrialSequences) -> Float[Tensor, "trial time"]:
        """Of each step, to the end of the trial."""
        return returns.discounted_returns(trials.rewards, self.config.discount * trials.mask.to(trials.rewards.dtype))

    def scale_by_family(
        self, parameters: Parameters, trials: TrialSequences, tasks: Sequence[Task], overall: float
    ) -> tuple[Float[Tensor, "trial 1"], dict[str, Tensor]]:
        """What each trial's rewards are divided by, and the families' statistics with these trials taken in.

        At least a hundredth of the `overall` scale: returns that hardly vary would be blown up to noise.
        """
        groups = torch.tensor(
            [int(content_hash(task.family)[:15], 16) + 1 for task in tasks], device=trials.mask.device
        )
        try:
            merged = _families(parameters).merge(groups, self.discounted_returns(trials), trials.mask)
        except ValueError as error:
            raise UsageError(f"--reward-scale family: {error}") from error
        scales = merged.of(groups).sqrt().clamp(min=_LEAST_SCALE * overall)
        return scales[:, None].to(trials.rewards.dtype), _named(merged)

    def merge_statistics(self, parameters: Parameters, trials: TrialSequences) -> RunningMeanStd:
        """The statistics of [observation, reward, discounted return] with these trials taken in."""
        config, mask = self.config, trials.mask
        discounted = self.discounted_returns(trials)
        x = torch.cat([trials.observations, trials.rewards[..., None], discounted[..., None]], dim=-1)[mask]
        mean, variance, total = RunningMeanStd.among(parameters).merge(x)
        fixed = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
        fixed[:-2] = not config.normalise_observations
        fixed[-2:] = not config.normalise_rewards
        fixed[-1] |= not bool(variance[-1] > 0)  # nothing to scale by: every return was the same
        return RunningMeanStd(torch.where(fixed, 0.0, mean), torch.where(fixed, 1.0, variance), total)

    def build_batch(
        self, parameters: Parameters, trials: TrialSequences, reward_scale: float | Float[Tensor, "trial 1"]
    ) -> tuple[Batch, float]:
        """Log-probs, values and advantages under the parameters that acted, in one pass, cut into segments.

        Also gives the share of the returns' variance that the critic explained. The sequences get one step more, the
        observation after the trial's last step, for the value to bootstrap on.
        """
        config, steps = self.config, trials.rewards.shape[1]
        length = config.chunk_length or steps + 1
        chunks = math.ceil((steps + 1) / length)
        trials = trials.with_final_observations(chunks * length)
        mask, device = trials.mask, trials.rewards.device
        previous = trials.previous(PreviousStep.none(len(mask), self.spaces.action_size, device), self.spaces)
        previous.done[torch.arange(len(mask), device=device), trials.lengths] = 0.0  # as if the last episode went on
        inputs = self.inputs(parameters, trials.observations, previous)
        with torch.no_grad():
            start = self.network.model.initial_carry(len(mask), device)
            outputs, carries = unroll_pieces(self.network, self.learned(parameters), inputs, start, length)
        values, rewards, terminated = outputs.values, trials.rewards / reward_scale, trials.terminated
        if config.critic == "linear":
            values, terminated = self.fitted_values(inputs, rewards, mask), torch.ones_like(terminated)
        advantages = returns.sequence_gae(
            rewards, values, trials.lengths, terminated, config.discount, config.gae_lambda
        )
        targets = advantages + values

        def cut(x: Tensor) -> Tensor:
            """[trial, chunk · time] -> [trial · chunk, time]."""
            return x.unflatten(1, (chunks, length)).flatten(0, 1)

        log_probs = outputs.distribution.log_prob(trials.actions)
        whole = ppo.Rollout(trials.actions, log_probs, standardise(advantages, mask), targets, mask)
        carry = type(start)(*(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*carries, strict=True)))
        batch = Batch(cut(inputs), carry, map_tensors(cut, whole))
        explained = float(ppo.explained_variance(values, targets, mask))
        return batch.pick(batch.rollout.mask.any(1).nonzero().squeeze(1)), explained

    def fitted_values(
        self,
        inputs: Float[Tensor, "trial time input"],
        rewards: Float[Tensor, "trial time"],
        mask: Bool[Tensor, "trial time"],
    ) -> Float[Tensor, "trial time"]:
        """The linear baseline, fitted to each trial's own returns; time runs through the whole trial."""
        discounted = returns.discounted_returns(rewards, self.config.discount * mask.to(rewards.dtype))
        return linear_baseline.fit(inputs[:, None], discounted[:, None], mask[:, None]).squeeze(1)


_FAMILY = "input_family_"


def _named(families: GroupVariance) -> dict[str, Tensor]:
    """By their names among the agent's parameters."""
    return {_FAMILY + name: value for name, value in families._asdict().items()}


def _families(parameters: Parameters) -> GroupVariance:
    return GroupVariance(*(parameters[_FAMILY + name] for name in GroupVariance._fields))


@final
@dataclasses.dataclass(frozen=True)
class AdaptedRl2:
    """The policy somewhere in a trial on each of a batch of tasks."""

    agent: Rl2Ppo
    parameters: Parameters
    memory: Carry
    """What it carries so far; a leading task axis."""
    previous: PreviousStep
    """The last step of the episode before, which the memory has not taken in yet."""

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        """The previous step's three tensors and the memory."""

        def repeated(x: Tensor) -> Tensor:
            return x[:, None].expand(x.shape[0], num_episodes, *x.shape[1:]).contiguous()

        return tuple(repeated(x) for x in (*self.previous, *self.memory))

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        shape, rows = observations.shape[:2], observations.shape[:2].numel()
        inputs = self.agent.inputs(self.parameters, observations, PreviousStep(*carry[:3]))
        memory = type(self.memory)(*(pad_rows(part.flatten(0, 1)) for part in carry[3:]))
        outputs = unroll(self.agent.network, self._learned, pad_rows(inputs.flatten(0, 1))[:, None], memory)
        distribution = map_tensors(lambda x: x[:rows, 0].unflatten(0, shape), outputs.distribution)
        after = map_tensors(lambda x: x[:rows].unflatten(0, shape), outputs.carry)
        return distribution.sample(random), (*carry[:3], *after)

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        actions = told(transition.actions, self.agent.spaces)
        return (actions, transition.rewards, transition.done.to(transition.rewards.dtype), *carry[3:])

    def adapt(self, support: Episodes) -> "AdaptedRl2":
        """The memory after these episodes too, recomputed from what they hold."""
        trials, spaces = concatenate([support]), self.agent.spaces
        inputs = self.agent.inputs(self.parameters, trials.observations, trials.previous(self.previous, spaces))
        memory, lengths = map_tensors(pad_rows, self.memory), pad_rows(trials.lengths)

        def advance(inputs: Tensor, carry: Carry) -> Carry:
            return unroll(self.agent.network, self._learned, inputs, carry).carry

        with torch.no_grad():
            after = carry_after(advance, pad_rows(inputs), memory, lengths)
        memory = map_tensors(lambda x: x[: len(trials.lengths)], after)
        return dataclasses.replace(self, memory=memory, previous=trials.last(spaces))

    def shard(self, tasks: slice) -> "AdaptedRl2":
        """The policy on some of the tasks."""
        memory, previous = (map_tensors(lambda x: rows_of(x, tasks), part) for part in (self.memory, self.previous))
        return dataclasses.replace(self, memory=memory, previous=previous)

    @functools.cached_property
    def _learned(self) -> Parameters:
        """The network's parameters, without the statistics."""
        return self.agent.learned(self.parameters)
