"""VariBAD: act on a belief over the task (Zintgraf et al. 2020, arXiv 1910.08348).

    q_t = N(μ_t, diag σ_t²),     (μ_t, log σ_t²) = f(h_t),     h_t = GRU(h_{t−1}, [s_t, a_{t−1}, r_{t−1}]),     h_0 = 0
    a_t ~ π(· | s_t, μ_t, log σ_t²)

An encoder takes in every transition of a trial, through all its episodes, and says what it believes of the task. It is
trained to reconstruct the rewards (and, where the dynamics vary, the next states) of the whole trial from any of its
beliefs, see `metarl/maths/elbo.py`, on trials of earlier outer steps too. The policy is trained by PPO and takes the
belief as it is: no gradient of the policy's reaches the encoder. So its batches are flat, and nothing is unrolled.

Adapting to a task means carrying h forward. What follows an episode within a trial is the next one, as in RL²: the
advantages are of the whole trial.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from metarl import checks
from metarl.agents import policies
from metarl.agents.batching import map_tensors, pad_rows
from metarl.agents.policies import ActionHead, ActorCriticOutputs
from metarl.agents.recurrent import Gru, carry_after
from metarl.agents.sequences import TrialSequences, concatenate, told
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Metrics, Parameters, State, Transition
from metarl.learning.random_streams import TaskRandom
from metarl.learning.sharding import rows_of
from metarl.learning.spaces import Spaces
from metarl.learning.store import Store
from metarl.maths import adam, elbo, ppo, returns
from metarl.maths.masked import standardise
from metarl.maths.parameters import clip_by_global_norm
from metarl.maths.running_mean_std import RunningMeanStd

_STATE, _ACTION, _REWARD = 32, 16, 16  # widths of the encoder's and the decoder's embeddings
_BELIEF = 64  # width of the policy's embeddings of the state and of the belief
_ENCODER_NORM = 1.0  # gradients of the encoder and the decoder longer than this are shortened to it


@final
@dataclasses.dataclass(frozen=True)
class VaribadConfig:
    """VariBAD: a policy that acts on a belief over the task, learned by reconstruction.

    Defaults are those of the paper's code for MuJoCo (config/mujoco of lmzintgraf/varibad), but for what is said beside
    them. Beyond that, what the encoder takes in and reconstructs is standardised here (there: raw), so that one weight
    of the KL fits all worlds; gradients flow back through whole trials (there: 50 steps); the sums of the ELBO are over
    terms drawn with replacement; and the value loss is not clipped (there: clipped, and Huber's).
    """

    meta_batch: int = 16
    """Trials an outer step, each on a task of its own."""
    episodes_per_trial: int = 2
    """Episodes that the belief is carried through."""
    latent: int = 5
    """Numbers in a latent task (Ant-Goal: 10)."""
    encoder_hidden: int = 128
    """Units of the encoder's GRU."""
    decoder_layers: tuple[int, ...] = (64, 32)
    """Widths of the decoder's layers."""
    reconstruct_states: bool = False
    """Whether next states are reconstructed beside rewards: where the dynamics differ from task to task."""
    kl_weight: float = 0.1
    """β of the KL to the belief before."""
    elbo_updates: int = 1
    """Gradient steps of encoder and decoder an outer step (Ant-Goal: 5)."""
    elbo_trials: int = 10
    """Trials in such a step, drawn from the buffer."""
    elbo_terms: int = 50
    """Beliefs of each trial that have to explain it."""
    decoded_steps: int = 50
    """Steps of the trial that each of them has to explain."""
    encoder_learning_rate: float = 1e-3
    """Adam's, for encoder and decoder."""
    buffer_trials: int = 1000
    """The newest trials are kept to train the encoder by (the paper: 10,000; here checkpoints hold them)."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the policy's and of the critic's layers."""
    initial_log_std: float = -0.5
    """log σ before training, ±1 being the action space's bounds (the paper: 0; noise that is clipped off hides the
    signal)."""
    learning_rate: float = 7e-4
    """Adam's, for the policy."""
    epochs: int = 2
    """Passes over the steps in an outer step."""
    minibatches: int = 8
    """Gradient steps in a pass."""
    clip: float = 0.1
    """ε, how far a probability ratio may profit from leaving 1."""
    discount: float = 0.97
    """γ."""
    gae_lambda: float = 0.9
    """λ of the advantages."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus."""
    value_coefficient: float = 0.5
    """Weight of the critic's squared error."""
    max_gradient_norm: float = 0.5
    """Gradients of the policy longer than this are shortened to it."""

    def __post_init__(self) -> None:
        whole = ("meta_batch", "episodes_per_trial", "latent", "encoder_hidden", "elbo_updates", "elbo_trials")
        whole += ("elbo_terms", "decoded_steps", "buffer_trials", "epochs", "minibatches")
        checks.count(**{name: getattr(self, name) for name in whole})
        checks.at_least(0, **{name: getattr(self, name) for name in ("kl_weight", "entropy_coefficient")})
        positive = ("learning_rate", "encoder_learning_rate", "clip", "value_coefficient", "max_gradient_norm")
        checks.positive(**{name: getattr(self, name) for name in positive})
        checks.fraction(discount=self.discount, gae_lambda=self.gae_lambda)
        checks.layers(self.hidden)
        checks.log_std(initial_log_std=self.initial_log_std)
        checks.layers(self.decoder_layers)

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> "Varibad":
        """The agent with these options."""
        return Varibad(self, spaces, device)


class BeliefCarry(NamedTuple):
    """What is carried from transition to transition."""

    hidden: Float[Tensor, "*batch unit"]
    """h of the encoder's GRU."""
    belief: Float[Tensor, "*batch both"]
    """[μ, log σ²]."""


@final
class Encoder(nn.Module):
    """Transitions [s', a, r] ↦ the beliefs after each of them, and the carry after the last."""

    def __init__(self, spaces: Spaces, config: VaribadConfig, generator: torch.Generator) -> None:
        super().__init__()
        initialise = policies.orthogonal(generator)
        self._sizes = (spaces.observation_size, spaces.action_size, 1)
        widths = (_STATE, _ACTION, _REWARD)
        self.embeddings = nn.ModuleList(
            policies.linear(size, width, initialise) for size, width in zip(self._sizes, widths, strict=True)
        )
        self.memory = Gru(sum(widths), config.encoder_hidden, generator)
        self.belief = policies.linear(
            config.encoder_hidden, 2 * config.latent, policies.orthogonal(generator, gain=0.1)
        )

    def forward(
        self, transitions: Float[Tensor, "trial time transition"], carry: BeliefCarry
    ) -> tuple[Float[Tensor, "trial time both"], BeliefCarry]:
        parts = zip(self.embeddings, transitions.split(self._sizes, dim=-1), strict=True)
        embedded = torch.cat([torch.relu(embed(part.contiguous())) for embed, part in parts], dim=-1)
        features, (hidden,) = self.memory(embedded, (carry.hidden,))
        beliefs = self.belief(features)
        return beliefs, BeliefCarry(hidden, beliefs[:, -1])


@final
class Decoder(nn.Module):
    """(z, s, a, s') ↦ r, and, if asked, (z, s, a) ↦ s'."""

    def __init__(self, spaces: Spaces, config: VaribadConfig, generator: torch.Generator) -> None:
        super().__init__()
        initialise, layers = policies.orthogonal(generator), config.decoder_layers
        self.state = policies.linear(spaces.observation_size, _STATE, initialise)
        self.action = policies.linear(spaces.action_size, _ACTION, initialise)
        known = config.latent + _STATE + _ACTION

        def head(width_in: int, width_out: int) -> nn.Sequential:
            return nn.Sequential(
                policies.mlp([width_in, *layers], initialise), policies.linear(layers[-1], width_out, initialise)
            )

        self.reward = head(known + _STATE, 1)
        self.next_state = head(known, spaces.observation_size) if config.reconstruct_states else None

    def forward(
        self,
        latents: Float[Tensor, "*batch latent"],
        states: Float[Tensor, "*batch observation"],
        actions: Float[Tensor, "*batch action"],
        next_states: Float[Tensor, "*batch observation"],
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch observation"] | None]:
        known = torch.cat([latents, torch.relu(self.state(states)), torch.relu(self.action(actions))], dim=-1)
        rewards = self.reward(torch.cat([known, torch.relu(self.state(next_states))], dim=-1)).squeeze(-1)
        return rewards, None if self.next_state is None else self.next_state(known)


@final
class BeliefPolicy(nn.Module):
    """(state, belief) ↦ the policy and the value, with layers of their own on common embeddings."""

    def __init__(self, spaces: Spaces, config: VaribadConfig, generator: torch.Generator) -> None:
        super().__init__()
        initialise = policies.orthogonal(generator)
        self.state = policies.mlp([spaces.observation_size, _BELIEF], initialise)
        self.belief = policies.mlp([2 * config.latent, _BELIEF], initialise)
        self.actor = policies.mlp([2 * _BELIEF, *config.hidden], initialise)
        self.critic = policies.mlp([2 * _BELIEF, *config.hidden], initialise)
        gently = policies.orthogonal(generator, gain=0.01)
        self.policy = ActionHead(config.hidden[-1], spaces, gently, config.initial_log_std)
        self.value = policies.value_layer(config.hidden[-1], generator)

    def forward(
        self, states: Float[Tensor, "*batch observation"], beliefs: Float[Tensor, "*batch both"]
    ) -> ActorCriticOutputs:
        seen = torch.cat([self.state(states), self.belief(beliefs)], dim=-1)
        return ActorCriticOutputs(self.policy(self.actor(seen)), self.value(self.critic(seen)).squeeze(-1))


class StoredTrials(NamedTuple):
    """Trials as the encoder learns from them, raw; padding is at the end."""

    observations: Float[Tensor, "trial time observation"]
    actions: Float[Tensor, "trial time action"]
    """As a policy is told of them."""
    rewards: Float[Tensor, "trial time"]
    next_observations: Float[Tensor, "trial time observation"]
    lengths: Int[Tensor, " trial"]

    @classmethod
    def of(cls, trials: Trials, spaces: Spaces) -> "StoredTrials":
        """The transitions of a trial's episodes, one after another."""
        sequences = concatenate(trials.episodes)
        return cls(
            sequences.observations,
            told(sequences.actions, spaces),
            sequences.rewards,
            _next_observations(trials.episodes),
            sequences.lengths,
        )

    @classmethod
    def draw(cls, store: Store, count: int, rng: np.random.Generator, device: torch.device | str) -> "StoredTrials":
        """Some of a store's trials, each at most once; all where there are no more."""
        places = [(chunk, row) for chunk in store.chunks for row in range(len(chunk["lengths"]))]
        chosen = [places[int(index)] for index in rng.permutation(len(places))[:count]]
        longest = max(int(chunk["lengths"][row]) for chunk, row in chosen)

        def stacked(name: str) -> Tensor:
            rows = [chunk[name][row][:longest] for chunk, row in chosen]
            return nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)

        lengths = torch.stack([chunk["lengths"][row] for chunk, row in chosen]).to(device)
        return cls._make([*(stacked(name) for name in cls._fields[:-1]), lengths])


def _next_observations(points: tuple[Episodes, ...]) -> Float[Tensor, "trial time observation"]:
    moved = [dataclasses.replace(episodes, observations=episodes.next_observations) for episodes in points]
    return concatenate(moved).observations


@final
@dataclasses.dataclass(frozen=True)
class Varibad:
    """The agent: its options and the spaces of its environment."""

    config: VaribadConfig
    spaces: Spaces
    device: torch.device | str = "cpu"

    progress_keys = ("return_before", "return_after", "success_after", "reward_error")
    adaptation_name = "episode"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def protocol(self) -> AdaptationProtocol:
        return AdaptationProtocol(self.config.episodes_per_trial - 1, episodes_per_adaptation=1)

    @functools.cached_property
    def networks(self) -> Mapping[str, nn.Module]:
        """The architectures, without weights."""
        networks = self._build_networks(torch.Generator())
        return {name: policies.architecture(network) for name, network in networks.items()}

    def _build_networks(self, generator: torch.Generator) -> dict[str, nn.Module]:
        kinds = {"encoder": Encoder, "decoder": Decoder, "policy": BeliefPolicy}
        return {name: kind(self.spaces, self.config, generator) for name, kind in kinds.items()}

    def init(self, seed: int) -> State:
        networks = self._build_networks(torch.Generator().manual_seed(seed))
        learned = {
            f"{name}.{key}": value
            for name, network in networks.items()
            for key, value in policies.parameters_of(network).items()
        }
        # Of [observation, reward, belief, discounted return].
        statistics = RunningMeanStd.initial(self.spaces.observation_size + 2 * self.config.latent + 2)
        optimizer = {
            f"{name}.{key}": value
            for name, parts in _OPTIMIZERS.items()
            for key, value in adam.start(self.learned(learned, *parts)).items()
        }
        return State({**learned, **statistics.named()}, optimizer).to(self.device)

    def learned(self, parameters: Parameters, *parts: str) -> dict[str, Tensor]:
        """The parameters of these networks, in the networks' order."""
        return {name: parameters[name] for part in parts for name in self._names[part].values()}

    @functools.cached_property
    def _names(self) -> Mapping[str, Mapping[str, str]]:
        """By network and by the name that a parameter has there, its name among all."""
        return {
            part: {name: f"{part}.{name}" for name, _ in network.named_parameters()}
            for part, network in self.networks.items()
        }

    def _call(self, part: str, parameters: Parameters, *inputs: object) -> object:
        own = {name: parameters[full] for name, full in self._names[part].items()}
        return policies.call(self.networks[part], own, *inputs)

    # The belief.

    def prior(self, parameters: Parameters, num_trials: int) -> BeliefCarry:
        """Before the first transition: q_0 is what a memory of zeros says."""
        bias = parameters["encoder.belief.bias"]
        hidden = torch.zeros(num_trials, self.config.encoder_hidden, device=bias.device)
        return BeliefCarry(hidden, bias.expand(num_trials, -1))

    def encode(
        self, parameters: Parameters, transitions: Float[Tensor, "trial time transition"], carry: BeliefCarry
    ) -> tuple[Float[Tensor, "trial time both"], BeliefCarry]:
        """The beliefs after each transition, and the carry after the last."""
        outputs = self._call("encoder", parameters, transitions.contiguous(), carry)
        assert isinstance(outputs, tuple)
        return outputs

    def transitions(
        self,
        parameters: Parameters,
        next_observations: Float[Tensor, "*batch observation"],
        actions: Float[Tensor, "*batch action"],
        rewards: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch transition"]:
        """[s', a, r], state and reward standardised."""
        size, statistics = self.spaces.observation_size, RunningMeanStd.among(parameters)
        seen = torch.cat([next_observations, rewards[..., None]], dim=-1)
        seen = _part(statistics, slice(size + 1)).standardise(seen)
        return torch.cat([seen[..., :size], actions, seen[..., size:]], dim=-1)

    def all_beliefs(self, parameters: Parameters, trials: StoredTrials) -> Float[Tensor, "trial belief both"]:
        """q_0, …, q_H: one more than there are steps."""
        transitions = self.transitions(parameters, trials.next_observations, trials.actions, trials.rewards)
        prior = self.prior(parameters, len(trials.lengths))
        beliefs, _ = self.encode(parameters, transitions, prior)
        return torch.cat([prior.belief[:, None], beliefs], dim=1)

    # Acting.

    def start(self, state: State, num_tasks: int) -> "BelievingPolicy":
        return BelievingPolicy(self, state.parameters, self.prior(state.parameters, num_tasks))

    def apply_policy(
        self,
        parameters: Parameters,
        observations: Float[Tensor, "*batch observation"],
        beliefs: Float[Tensor, "*batch both"],
    ) -> ActorCriticOutputs:
        """π and v of observations and beliefs that are standardised."""
        outputs = self._call("policy", parameters, observations, beliefs)
        assert isinstance(outputs, ActorCriticOutputs)
        return outputs

    def standardised(
        self,
        parameters: Parameters,
        observations: Float[Tensor, "*batch observation"],
        beliefs: Float[Tensor, "*batch both"],
    ) -> tuple[Float[Tensor, "*batch observation"], Float[Tensor, "*batch both"]]:
        """What the policy is given."""
        size, statistics = self.spaces.observation_size, RunningMeanStd.among(parameters)
        of_observations, of_beliefs = _part(statistics, slice(size)), _part(statistics, slice(size + 1, -1))
        return of_observations.standardise(observations), of_beliefs.standardise(beliefs)

    # Learning.

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        return self.off_policy_meta_step(state, state.parameters, experience, rng)

    def off_policy_meta_step(
        self, state: State, behaviour: Parameters, experience: Trials, rng: np.random.Generator
    ) -> tuple[State, Metrics]:
        """`meta_step` on trials that the parameters `behaviour` played: ratios are to their probabilities."""
        trials, stored = concatenate(experience.episodes), StoredTrials.of(experience, self.spaces)
        with torch.no_grad():
            beliefs = self.all_beliefs(behaviour, stored)
        statistics = self.merge_statistics(state.parameters, trials, beliefs)
        reward_scale = float(statistics.variance[-1].sqrt())
        # As when it acted: by the statistics from before these trials.
        inputs, rollout, explained = self.build_batch(behaviour, trials, beliefs, reward_scale)

        def loss(parameters: Parameters, index: Tensor) -> tuple[Tensor, Tensor]:
            outputs = self.apply_policy(parameters, *(x[index] for x in inputs))
            return ppo.loss(outputs.distribution, outputs.values, rollout.pick(index), self.config)

        policy, moments, losses = ppo.minimise(
            loss,
            self.learned(state.parameters, "policy"),
            _moments(state.optimizer, "ppo"),
            len(rollout.mask),
            self.config,
            rng,
        )
        chunk = {name: value.to("cpu", copy=True) for name, value in stored._asdict().items()}
        store = state.store.append(chunk, -(-self.config.buffer_trials // len(stored.lengths)))
        parameters = {**state.parameters, **statistics.named()}
        model, model_moments, errors = self.train_model(parameters, _moments(state.optimizer, "elbo"), store, rng)
        optimizer = {
            f"{name}.{key}": value
            for name, part in (("ppo", moments), ("elbo", model_moments))
            for key, value in part.items()
        }
        return State({**parameters, **policy, **model}, optimizer, store), {
            **losses,
            **errors,
            "explained_variance": explained,
            "reward_scale": reward_scale,
        }

    def merge_statistics(
        self, parameters: Parameters, trials: TrialSequences, beliefs: Float[Tensor, "trial belief both"]
    ) -> RunningMeanStd:
        """The statistics of [observation, reward, belief, discounted return] with these trials taken in."""
        mask = trials.mask
        discounted = returns.discounted_returns(trials.rewards, self.config.discount * mask.to(trials.rewards.dtype))
        parts = [trials.observations, trials.rewards[..., None], beliefs[:, :-1], discounted[..., None]]
        mean, variance, total = RunningMeanStd.among(parameters).merge(torch.cat(parts, dim=-1)[mask])
        if not bool(variance[-1] > 0):  # nothing to scale by: every return was the same
            variance = torch.cat([variance[:-1], torch.ones_like(variance[-1:])])
        return RunningMeanStd(mean, variance, total)

    def build_batch(
        self,
        parameters: Parameters,
        trials: TrialSequences,
        beliefs: Float[Tensor, "trial belief both"],
        reward_scale: float,
    ) -> tuple[tuple[Float[Tensor, "step observation"], Float[Tensor, "step both"]], ppo.Rollout, float]:
        """What the policy saw at every step, what it learns from there, and the variance that the critic explained.

        The sequences get one step more, the observation and belief after the last step, for the value to bootstrap on.
        """
        config, steps = self.config, trials.rewards.shape[1]
        mask, longer = trials.mask, trials.with_final_observations(steps + 1)
        seen = self.standardised(parameters, longer.observations, beliefs)
        with torch.no_grad():
            distribution, values = self.apply_policy(parameters, *seen)
        advantages = returns.sequence_gae(
            longer.rewards / reward_scale, values, trials.lengths, trials.terminated, config.discount, config.gae_lambda
        )[:, :steps]
        log_probs = map_tensors(lambda x: x[:, :steps], distribution).log_prob(trials.actions)
        targets = advantages + values[:, :steps]
        whole = ppo.Rollout(trials.actions, log_probs, standardise(advantages, mask), targets, mask)
        explained = float(ppo.explained_variance(values[:, :steps], targets, mask))
        inputs = seen[0][:, :steps][mask], seen[1][:, :steps][mask]
        return inputs, map_tensors(lambda x: x[mask], whole), explained

    def train_model(
        self, parameters: Parameters, moments: Parameters, store: Store, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
        """Adam on the ELBO of trials drawn from the buffer: encoder, decoder, moments, and the means of its parts."""
        config, model, logs = self.config, self.learned(parameters, "encoder", "decoder"), list[Tensor]()
        device = next(iter(model.values())).device
        for _ in range(config.elbo_updates):
            trials = StoredTrials.draw(store, config.elbo_trials, rng, device)
            draws = elbo.Draws.sample(trials.lengths, config.elbo_terms, config.decoded_steps, config.latent, rng)
            leaves = {name: value.detach().requires_grad_() for name, value in model.items()}
            loss, log = self.elbo_loss({**parameters, **leaves}, trials, draws)
            gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
            clipped = clip_by_global_norm(gradients, _ENCODER_NORM)
            model, moments = adam.step(model, clipped, moments, config.encoder_learning_rate)
            logs.append(log)
        means: dict[str, float] = dict(zip(_MEASURES, torch.stack(logs).mean(0).tolist(), strict=True))
        return model, dict(moments), means

    def elbo_loss(
        self, parameters: Parameters, trials: StoredTrials, draws: elbo.Draws
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " measure"]]:
        """−ELBO and its `_MEASURES`: itself, the KL to the belief before, mean squared errors of what is decoded."""
        statistics, size = RunningMeanStd.among(parameters), self.spaces.observation_size
        of_states, of_rewards = _part(statistics, slice(size)), _part(statistics, slice(size, size + 1))
        beliefs = self.all_beliefs(parameters, trials)
        kl = elbo.pick_steps(elbo.sequential_kl(beliefs), draws.beliefs)
        mean, log_std = elbo.split_belief(elbo.pick_steps(beliefs, draws.beliefs))
        latents = mean + log_std.exp() * draws.noise
        states, actions, rewards, next_states = (elbo.pick_steps(x, draws.steps) for x in trials[:-1])
        states, next_states = of_states.standardise(states), of_states.standardise(next_states)
        rewards = of_rewards.standardise(rewards[..., None]).squeeze(-1)
        repeated = latents[:, :, None].expand(*draws.steps.shape, -1)
        decoded = self._call("decoder", parameters, repeated, states, actions, next_states)
        assert isinstance(decoded, tuple)
        errors = reward_errors = (decoded[0] - rewards) ** 2
        state_errors = torch.zeros_like(errors)
        if decoded[1] is not None:
            state_errors = ((decoded[1] - next_states) ** 2).mean(-1)
            errors = reward_errors + state_errors
        loss = elbo.negative_elbo(errors, kl, self.config.kl_weight)
        return loss, torch.stack([loss, kl.mean(), reward_errors.mean(), state_errors.mean()]).detach()


_MEASURES = ("elbo_loss", "belief_kl", "reward_error", "state_error")
"""What `elbo_loss` measures."""
_OPTIMIZERS = {"ppo": ("policy",), "elbo": ("encoder", "decoder")}
"""Which networks each of the two optimisers moves."""


def _moments(optimizer: Parameters, name: str) -> dict[str, Tensor]:
    """One optimiser's tensors."""
    return {key.removeprefix(f"{name}."): x for key, x in optimizer.items() if key.startswith(f"{name}.")}


def _part(statistics: RunningMeanStd, part: slice) -> RunningMeanStd:
    """The statistics of some of the numbers."""
    return RunningMeanStd(statistics.mean[part], statistics.variance[part], statistics.total)


@final
@dataclasses.dataclass(frozen=True)
class BelievingPolicy:
    """The policy and its belief somewhere in a trial on each of a batch of tasks."""

    agent: Varibad
    parameters: Parameters
    carry: BeliefCarry
    """A leading task axis."""

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        return map_tensors(lambda x: x[:, None].expand(len(x), num_episodes, -1).contiguous(), self.carry)

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        shape, rows = observations.shape[:2], observations.shape[:2].numel()
        seen = self.agent.standardised(self.parameters, observations, BeliefCarry(*carry).belief)
        outputs = self.agent.apply_policy(self.parameters, *(pad_rows(x.flatten(0, 1)) for x in seen))
        distribution = map_tensors(lambda x: x[:rows].unflatten(0, shape), outputs.distribution)
        return distribution.sample(random), carry

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        shape, rows = transition.rewards.shape, transition.rewards.numel()
        actions = told(transition.actions, self.agent.spaces)
        inputs = self.agent.transitions(self.parameters, transition.next_observations, actions, transition.rewards)
        before = BeliefCarry(*(pad_rows(x.flatten(0, 1)) for x in carry))
        _, after = self.agent.encode(self.parameters, pad_rows(inputs.flatten(0, 1))[:, None], before)
        return map_tensors(lambda x: x[:rows].unflatten(0, shape), after)

    def adapt(self, support: Episodes) -> "BelievingPolicy":
        """The belief after these episodes too, recomputed from what they hold."""
        agent, trials = self.agent, concatenate([support])
        actions = told(trials.actions, agent.spaces)
        inputs = agent.transitions(self.parameters, _next_observations((support,)), actions, trials.rewards)
        before, lengths = map_tensors(pad_rows, self.carry), pad_rows(trials.lengths)

        def advance(inputs: Tensor, carry: Carry) -> Carry:
            return agent.encode(self.parameters, inputs, BeliefCarry(*carry))[1]

        with torch.no_grad():
            after = carry_after(advance, pad_rows(inputs), before, lengths)
        return dataclasses.replace(self, carry=BeliefCarry(*(x[: len(trials.lengths)] for x in after)))

    def shard(self, tasks: slice) -> "BelievingPolicy":
        """The policy on some of the tasks."""
        return dataclasses.replace(self, carry=map_tensors(lambda x: rows_of(x, tasks), self.carry))
