"""An off-policy agent fits the protocols: it keeps a replay buffer in its state's store, and learns from all of it."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless, Metrics, State
from metarl.learning.random_streams import TaskRandom
from metarl.learning.spaces import Spaces
from metarl.learning.store import EMPTY_STORE
from metarl.testing.agents import check_agent
from tests.agents.toys import Toy, discrete
from tests.agents.worlds import collect, held_out_returns, trained

WORLD = Toy(discrete(2), horizon=3, noise=0.0, hint=True, ragged=True)


@dataclasses.dataclass(frozen=True)
class QLearningConfig:
    """Q-learning (Watkins 1989) with replay, of values that are linear in the observation."""

    meta_batch: int = 8
    capacity: int = 6  # outer steps
    draws: int = 64
    steps: int = 30

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> "QLearning":
        return QLearning(self, spaces)


@dataclasses.dataclass(frozen=True)
class QLearning:
    config: QLearningConfig
    spaces: Spaces

    progress_keys = ("return_after", "td_error")
    adaptation_name = "episode"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def protocol(self) -> AdaptationProtocol:
        return AdaptationProtocol(num_adaptations=0, episodes_per_adaptation=2)

    def init(self, seed: int) -> State:
        return State({"weights": torch.zeros(self.spaces.action_size, self.spaces.observation_size + 1)}, {})

    def start(self, state: State, num_tasks: int) -> "EpsilonGreedy":
        return EpsilonGreedy(state.parameters["weights"])

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        """w_a ← w_a + η (r + γ max Q(o', ·) − Q(o, a)) [o, 1], on transitions drawn from the whole buffer."""
        store = state.store.append(transitions(experience.query), self.config.capacity)
        replay = {name: torch.cat([chunk[name] for chunk in store.chunks]) for name in store.chunks[0]}
        weights, errors = state.parameters["weights"].clone(), list[float]()
        for _ in range(self.config.steps):
            index = torch.from_numpy(rng.integers(len(replay["rewards"]), size=self.config.draws))
            observations, actions, rewards, following, goes_on = (
                replay[name][index] for name in ("observations", "actions", "rewards", "following", "goes_on")
            )
            target = rewards + 0.9 * goes_on * q(weights, following).amax(-1)
            error = target - q(weights, observations).gather(-1, actions[:, None]).squeeze(-1)
            weights.index_add_(0, actions, 0.3 * error[:, None] * with_bias(observations) / self.config.draws)
            errors.append(float(error.square().mean()))
        return State({"weights": weights}, {}, store), {"td_error": float(np.mean(errors))}


@dataclasses.dataclass(frozen=True)
class EpsilonGreedy(Memoryless):
    weights: Float[Tensor, "action feature"]

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Int[Tensor, "task episode"], Carry]:
        greedy = q(self.weights, observations).argmax(-1)
        if random is None:
            return greedy, carry
        noise = random.uniform(2)
        return torch.where(noise[..., 0] < 0.2, (noise[..., 1] * len(self.weights)).long(), greedy), carry

    def adapt(self, support: Episodes) -> "EpsilonGreedy":
        return self


def with_bias(observations: Float[Tensor, "*batch observation"]) -> Float[Tensor, "*batch feature"]:
    return torch.cat([observations, torch.ones_like(observations[..., :1])], dim=-1)


def q(weights: Tensor, observations: Tensor) -> Float[Tensor, "*batch action"]:
    return (with_bias(observations)[..., None, :] * weights).sum(-1)


def transitions(episodes: Episodes) -> dict[str, Tensor]:
    """All steps taken, each with the observation that it led to; the last one's is the final observation."""
    mask = episodes.mask
    last = torch.arange(mask.shape[-1]) == episodes.lengths[..., None] - 1
    later = torch.cat([episodes.observations[:, :, 1:], episodes.final_observations[:, :, None]], dim=2)
    following = torch.where(last[..., None], episodes.final_observations[:, :, None], later)
    return {
        "observations": episodes.observations[mask],
        "actions": episodes.actions[mask],
        "rewards": episodes.rewards[mask],
        "following": following[mask],
        "goes_on": (~(last & episodes.terminated[..., None]))[mask].float(),
    }


def test_it_keeps_the_contract_of_agents() -> None:
    check_agent(QLearningConfig(), WORLD)


def test_its_buffer_grows_by_a_chunk_a_step_and_drops_the_oldest() -> None:
    agent = QLearningConfig().build(WORLD.spaces)
    state, states = agent.init(0), list[State]()
    for step in range(8):
        trials = collect(agent, state, WORLD, seed=step)
        state, _ = agent.meta_step(state, trials, np.random.default_rng(step))
        states.append(state)
        assert len(state.store.chunks[-1]["rewards"]) == trials.query.num_steps
    assert [len(each.store.chunks) for each in states] == [1, 2, 3, 4, 5, 6, 6, 6]
    assert [each.store.total for each in states] == list(range(1, 9)) and states[-1].store.dropped == 2
    assert all(old is new for old, new in zip(states[6].store.chunks[1:], states[7].store.chunks[:-1], strict=True))


def test_it_learns_from_what_other_policies_did_long_ago() -> None:
    """The same last trials, with and without the buffer of before, lead elsewhere."""
    agent = QLearningConfig().build(WORLD.spaces)
    state = trained(agent, WORLD, 3)
    trials = collect(agent, state, WORLD, seed=9)
    one, _ = agent.meta_step(state, trials, np.random.default_rng(0))
    other, _ = agent.meta_step(dataclasses.replace(state, store=EMPTY_STORE), trials, np.random.default_rng(0))
    assert not torch.equal(one.parameters["weights"], other.parameters["weights"])


def test_it_learns_from_its_buffer_on_held_out_tasks() -> None:
    agent = QLearningConfig().build(WORLD.spaces)
    before, _ = held_out_returns(agent, agent.init(0), WORLD, trials=30)
    after, _ = held_out_returns(agent, trained(agent, WORLD, 15), WORLD, trials=30)
    assert after.low > before.high + 0.2, (before, after)
