"""Stable-Baselines3's algorithms as learners: a state goes into its model, `train()` is called, a state comes out.

Its own code draws from the global generators of PyTorch and NumPy; around every use of it they are seeded and put back.
"""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Generic, TypeVar, final

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float, Shaped
from numpy import ndarray
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, SACPolicy
from torch import Tensor, nn

from metarl.agents import policies
from metarl.agents.batching import map_tensors, pad_rows
from metarl.agents.sb3 import Sb3PpoConfig, Sb3SacConfig
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless, Metrics, Parameters, State
from metarl.learning.random_streams import TaskRandom, seeded
from metarl.learning.spaces import Spaces
from metarl.learning.store import Chunk, Store
from metarl.maths.distributions import Categorical, Distribution, Gaussian

Model = TypeVar("Model", bound=PPO | SAC)
Config = TypeVar("Config", bound=Sb3PpoConfig | Sb3SacConfig)
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_TEMPERATURE, _ENV_STEPS = "log_ent_coef", "env_steps"


@dataclasses.dataclass(frozen=True)
class _Learner(abc.ABC, Generic[Config, Model]):
    """What both have in common: one policy for all tasks, one episode on each."""

    config: Config
    spaces: Spaces
    device: torch.device | str = "cpu"

    adaptation_name = "episode"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def protocol(self) -> AdaptationProtocol:
        return AdaptationProtocol(num_adaptations=0, episodes_per_adaptation=1)

    @abc.abstractmethod
    def fresh_model(self) -> Model:
        """Stable-Baselines3's model before any learning, drawn from the global generators."""

    @abc.abstractmethod
    def network(self) -> "ActingNetwork":
        """What acts, without weights."""

    @abc.abstractmethod
    def state_of(self, model: Model, env_steps: float, store: Store) -> State:
        """What a model has learned, as a value."""

    def init(self, seed: int) -> State:
        with seeded(seed, self.device):
            return self.state_of(self.fresh_model(), 0.0, Store())

    def model(self, state: State) -> Model:
        """A model that has learned this; it shares no memory with the state."""
        model = self.fresh_model()
        model.set_logger(Logger(folder=None, output_formats=[]))
        own = model.policy.state_dict().keys()
        model.policy.load_state_dict({name: value for name, value in state.parameters.items() if name in own})
        for name, optimizer in _optimizers(model).items():
            _load_moments(optimizer, name, state.optimizer)
        return model


@final
@dataclasses.dataclass(frozen=True)
class Sb3Ppo(_Learner[Sb3PpoConfig, PPO]):
    """Its PPO, which learns from the episodes of an outer step."""

    progress_keys = ("return_after", "success_after", "approx_kl")

    def fresh_model(self) -> PPO:
        config = self.config
        return PPO(
            "MlpPolicy",
            _SpacesAlone(self.spaces),
            learning_rate=config.learning_rate,
            n_steps=config.batch_size,  # of a buffer that is replaced
            batch_size=config.batch_size,
            n_epochs=config.epochs,
            gamma=config.discount,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip,
            ent_coef=config.entropy_coefficient,
            vf_coef=config.value_coefficient,
            max_grad_norm=config.max_gradient_norm,
            policy_kwargs={"net_arch": list(config.hidden)},
            device=self.device,
        )

    @functools.cached_property
    def _network(self) -> "PpoActing":
        with seeded(0, self.device):
            return policies.architecture(PpoActing(self.fresh_model().policy))

    def network(self) -> "PpoActing":
        return self._network

    def state_of(self, model: PPO, env_steps: float, store: Store) -> State:
        return State(_values(model.policy.state_dict()), _moments(model))

    def start(self, state: State, num_tasks: int) -> "Sb3Policy":
        return Sb3Policy(self.network(), state.parameters)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        with seeded(int(rng.integers(2**31)), self.device):
            model = self.model(state)
            model.rollout_buffer = rollout_buffer(model, experience.query)
            model.train()
        names = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")
        return self.state_of(model, 0.0, state.store), _metrics(model, (*names, "explained_variance"))


def rollout_buffer(model: PPO, episodes: Episodes) -> RolloutBuffer:
    """The steps of all episodes, one after the other, as if one environment had played them.

    As in Stable-Baselines3's own rollouts a truncated episode's last reward is r + γ v(final observation).
    """
    mask, lengths = episodes.mask, episodes.lengths
    observations, actions, rewards = episodes.observations[mask], episodes.actions[mask], episodes.rewards.clone()
    with torch.no_grad():
        values, log_probs, _ = model.policy.evaluate_actions(observations, actions)
        final = model.policy.predict_values(episodes.final_observations.flatten(0, 1)).view(lengths.shape)
    last = (torch.arange(rewards.shape[-1], device=lengths.device) == lengths[..., None] - 1) & mask
    rewards = (rewards + last * (model.gamma * final * ~episodes.terminated)[..., None])[mask]
    starts = (torch.arange(mask.shape[-1], device=mask.device) == 0).expand(mask.shape)[mask]
    buffer = RolloutBuffer(
        len(observations),
        model.observation_space,
        model.action_space,
        model.device,
        gae_lambda=model.gae_lambda,
        gamma=model.gamma,
    )
    buffer.observations[:, 0], buffer.actions[:, 0] = _array(observations), _array(actions).reshape(len(actions), -1)
    buffer.rewards[:, 0], buffer.episode_starts[:, 0] = _array(rewards), _array(starts)
    buffer.values[:, 0], buffer.log_probs[:, 0] = _array(values.flatten()), _array(log_probs)
    buffer.compute_returns_and_advantage(torch.zeros(1), np.ones(1, bool))  # whatever comes next is another episode
    buffer.full = True
    return buffer


@final
@dataclasses.dataclass(frozen=True)
class Sb3Sac(_Learner[Sb3SacConfig, SAC]):
    """Its SAC, which learns from all that the state's store holds."""

    progress_keys = ("return_after", "success_after", "critic_loss", "ent_coef")

    def fresh_model(self) -> SAC:
        config = self.config
        return SAC(
            "MlpPolicy",
            _SpacesAlone(self.spaces),
            learning_rate=config.learning_rate,
            buffer_size=1,  # of a buffer that is replaced
            batch_size=config.batch_size,
            gamma=config.discount,
            tau=config.tau,
            policy_kwargs={"net_arch": list(config.hidden)},
            device=self.device,
        )

    @functools.cached_property
    def _network(self) -> "SacActing":
        with seeded(0, self.device):
            return policies.architecture(SacActing(self.fresh_model().policy))

    def network(self) -> "SacActing":
        return self._network

    def state_of(self, model: SAC, env_steps: float, store: Store) -> State:
        assert model.log_ent_coef is not None, "the temperature is learned"
        beside = {
            _TEMPERATURE: model.log_ent_coef.detach().clone(),
            _ENV_STEPS: torch.tensor(env_steps, dtype=torch.float64, device=self.device),
        }
        return State({**_values(model.policy.state_dict()), **beside}, _moments(model), store)

    def model(self, state: State) -> SAC:
        model = super().model(state)
        assert model.log_ent_coef is not None, "the temperature is learned"
        with torch.no_grad():
            model.log_ent_coef.copy_(state.parameters[_TEMPERATURE])
        return model

    def start(self, state: State, num_tasks: int) -> "Sb3Policy":
        begun = float(state.parameters[_ENV_STEPS]) >= self.config.learning_starts
        return Sb3Policy(self.network(), state.parameters, uniform=not begun)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        config, steps = self.config, experience.query.num_steps
        env_steps = float(state.parameters[_ENV_STEPS]) + steps
        store = append(state.store, transitions(experience.query), config.buffer_size)
        with seeded(int(rng.integers(2**31)), self.device):
            model = self.model(state)
            if env_steps > config.learning_starts:
                model.replay_buffer = replay_buffer(model, store)
                model.train(max(1, round(config.updates_per_step * steps)), config.batch_size)
        return self.state_of(model, env_steps, store), _metrics(
            model, ("actor_loss", "critic_loss", "ent_coef", "ent_coef_loss")
        )


def transitions(episodes: Episodes) -> dict[str, Tensor]:
    """All steps of all episodes, on the CPU: observation, action as executed, reward, next observation, terminated."""
    mask, lengths = episodes.mask.flatten(0, 1), episodes.lengths.flatten()
    seen = torch.cat([episodes.observations, torch.zeros_like(episodes.observations[:, :, :1])], dim=2).flatten(0, 1)
    rows = torch.arange(len(seen), device=seen.device)
    seen = seen.index_put((rows, lengths), episodes.final_observations.flatten(0, 1))
    last = torch.arange(mask.shape[-1], device=mask.device) == lengths[:, None] - 1
    table = {
        "observations": seen[:, :-1][mask],
        "actions": episodes.actions.flatten(0, 1)[mask].clamp(-1.0, 1.0),
        "rewards": episodes.rewards.flatten(0, 1)[mask],
        "next_observations": seen[:, 1:][mask],
        "terminated": (last & episodes.terminated.flatten()[:, None])[mask].to(torch.float32),
    }
    return {name: column.to("cpu").contiguous() for name, column in table.items()}


def append(store: Store, chunk: Chunk, most: int) -> Store:
    """The store with a chunk more, and of the older ones as many as are at most so many steps together with it."""
    kept, total = 1, len(chunk["rewards"])
    for older in reversed(store.chunks):
        total += len(older["rewards"])
        if total > most:
            break
        kept += 1
    return store.append(chunk, kept)


def replay_buffer(model: SAC, store: Store) -> ReplayBuffer:
    """All transitions of a store. Only termination ends the bootstrap, so time limits need no handling."""
    columns = {name: _array(torch.cat([chunk[name] for chunk in store.chunks])) for name in store.chunks[0]}
    buffer = ReplayBuffer(
        len(columns["rewards"]),
        model.observation_space,
        model.action_space,
        model.device,
        handle_timeout_termination=False,
    )
    buffer.observations[:, 0], buffer.next_observations[:, 0] = columns["observations"], columns["next_observations"]
    buffer.actions[:, 0], buffer.rewards[:, 0] = columns["actions"], columns["rewards"]
    buffer.dones[:, 0] = columns["terminated"]
    buffer.full = True
    return buffer


class ActingNetwork(nn.Module, abc.ABC):
    """The part of Stable-Baselines3's policy that acts."""

    squashed: bool
    """Whether tanh comes after the noise."""

    @abc.abstractmethod
    def forward(self, observations: Float[Tensor, "*batch observation"]) -> Distribution: ...


@final
class PpoActing(ActingNetwork):
    """o ↦ N(f(o), diag σ²), or softmax f(o)."""

    squashed = False

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.policy = policy
        self._discrete = isinstance(policy.action_space, Discrete)

    def forward(self, observations: Float[Tensor, "*batch observation"]) -> Distribution:
        outputs = _affine(self.policy.action_net, self.policy.mlp_extractor.forward_actor(observations))
        if self._discrete:
            return Categorical(outputs)
        return Gaussian(outputs, self.policy.log_std.expand_as(outputs))


@final
class SacActing(ActingNetwork):
    """o ↦ N(f(o), diag σ(o)²), of which tanh is taken."""

    squashed = True

    def __init__(self, policy: SACPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Float[Tensor, "*batch observation"]) -> Distribution:
        actor = self.policy.actor
        features = actor.latent_pi(observations)
        return Gaussian(_affine(actor.mu, features), _affine(actor.log_std, features).clamp(LOG_STD_MIN, LOG_STD_MAX))


@final
@dataclasses.dataclass(frozen=True)
class Sb3Policy(Memoryless):
    """The one policy of all tasks."""

    network: ActingNetwork
    parameters: Parameters
    uniform: bool = False
    """Whether actions are drawn from all of the action space, as before learning starts."""

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        named = {f"policy.{name}": value for name, value in self.parameters.items()}
        shape, rows = observations.shape[:2], observations.shape[:2].numel()
        inputs = pad_rows(observations.flatten(0, 1))
        distribution = policies.call(self.network, named, inputs)
        distribution = map_tensors(lambda x: x[:rows].unflatten(0, shape), distribution)
        if self.uniform and random is not None:
            return 2 * random.uniform(distribution.mode().shape[-1]) - 1, carry
        actions = distribution.sample(random)
        return (torch.tanh(actions) if self.network.squashed else actions), carry

    def adapt(self, support: Episodes) -> "Sb3Policy":
        return self

    def shard(self, tasks: slice) -> "Sb3Policy":
        """The same: all tasks have one policy."""
        return self


@final
class _SpacesAlone(gym.Env[ndarray, ndarray | np.int64]):
    """What Stable-Baselines3 takes the spaces from: nobody plays it."""

    def __init__(self, spaces: Spaces) -> None:
        self.observation_space = Box(-np.inf, np.inf, (spaces.observation_size,), np.float32)
        size = spaces.action_size
        self.action_space = Discrete(size) if spaces.discrete else Box(-1.0, 1.0, (size,), np.float32)


def _affine(layer: nn.Module | nn.Parameter, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
    assert isinstance(layer, nn.Linear)
    return policies.affine(x, layer.weight, layer.bias)


def _array(tensor: Shaped[Tensor, "..."]) -> Shaped[ndarray, "..."]:
    return tensor.cpu().numpy()


def _values(parameters: Parameters) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in parameters.items()}


def _metrics(model: BaseAlgorithm, names: tuple[str, ...]) -> Metrics:
    """What its training has logged; NaN where it has not trained."""
    logged: Mapping[str, float] = model.logger.name_to_value
    return {name: float(logged[f"train/{name}"]) if f"train/{name}" in logged else float("nan") for name in names}


def _optimizers(model: PPO | SAC) -> dict[str, torch.optim.Optimizer]:
    if isinstance(model, PPO):
        return {"policy": model.policy.optimizer}
    assert model.ent_coef_optimizer is not None, "the temperature is learned"
    return {
        "actor": model.actor.optimizer,
        "critic": model.critic.optimizer,
        "temperature": model.ent_coef_optimizer,
    }


def _moments(model: PPO | SAC) -> dict[str, Tensor]:
    """Adam's tensors by name: zeros before its first step, as it begins with."""
    tensors: dict[str, Tensor] = {}
    for name, optimizer in _optimizers(model).items():
        for index, parameter in enumerate(_parameters(optimizer)):
            state = optimizer.state.get(parameter, {})
            for moment in _MOMENTS:
                blank = torch.zeros(()) if moment == "step" else torch.zeros_like(parameter)
                tensors[f"{name}.{index}.{moment}"] = state.get(moment, blank).detach().clone()
    return tensors


def _load_moments(optimizer: torch.optim.Optimizer, name: str, tensors: Parameters) -> None:
    state = {
        index: {moment: tensors[f"{name}.{index}.{moment}"].clone() for moment in _MOMENTS}
        for index in range(len(_parameters(optimizer)))
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
