"""Stable-Baselines3's agents: an outer step against its own training loop; they learn, resume, and touch no global."""

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from metarl import envs
from metarl.agents import Sb3PpoConfig, Sb3SacConfig
from metarl.agents.sb3_learning import Sb3Ppo, Sb3Sac, append, rollout_buffer, transitions
from metarl.errors import UsageError
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import State
from metarl.learning.store import EMPTY_STORE
from metarl.testing.agents import check_agent
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, held_out_returns, trained

HOPPER = dataclasses.replace(envs.make("hopper-dynamics"), horizon=15)  # some fall before, some do not
PPO_CONFIG = Sb3PpoConfig(meta_batch=4, hidden=(8,), batch_size=64, epochs=1)
SAC_CONFIG = Sb3SacConfig(meta_batch=3, hidden=(8,), batch_size=16, updates_per_step=0.1, learning_starts=10)


def ppo(world: Any, **options: Any) -> Sb3Ppo:
    made = dataclasses.replace(PPO_CONFIG, **options).build(world.spaces)
    assert isinstance(made, Sb3Ppo)
    return made


def sac(world: Any, **options: Any) -> Sb3Sac:
    made = dataclasses.replace(SAC_CONFIG, **options).build(world.spaces)
    assert isinstance(made, Sb3Sac)
    return made


@pytest.mark.parametrize(
    ("config", "world"),
    [
        (PPO_CONFIG, Toy(box(1), ragged=True)),
        (PPO_CONFIG, Toy(discrete(3), ragged=True)),
        (SAC_CONFIG, Toy(box(1), ragged=True)),
    ],
    ids=["ppo-box", "ppo-discrete", "sac"],
)
def test_they_keep_the_contract_of_agents(config: Sb3PpoConfig | Sb3SacConfig, world: Toy) -> None:
    check_agent(config, world)


class Recorder(BaseCallback):
    """Rewards and ends as Stable-Baselines3's loop is given them, before it adds to them."""

    def __init__(self) -> None:
        super().__init__()
        self.rewards, self.dones, self.infos = list[np.ndarray](), list[np.ndarray](), list[list[dict[str, Any]]]()
        self.buffer: RolloutBuffer | None = None

    def _on_step(self) -> bool:
        for name in ("rewards", "dones", "infos"):
            getattr(self, name).append(np.array(self.locals[name], copy=True).tolist())
        return True

    def _on_rollout_end(self) -> None:
        model = self.model
        assert isinstance(model, PPO)
        self.buffer = model.rollout_buffer


def episodes_of(recorder: Recorder, buffer: dict[str, np.ndarray], horizon: int) -> Episodes:
    """The whole episodes of one environment's rollout, a task each."""
    dones = np.array(recorder.dones)[:, 0]
    assert dones[-1]
    ends = np.flatnonzero(dones).tolist()
    starts = [0, *(end + 1 for end in ends[:-1])]
    lengths = [end + 1 - start for start, end in zip(starts, ends, strict=True)]

    def padded(rows: np.ndarray) -> Tensor:
        parts = [rows[start : end + 1] for start, end in zip(starts, ends, strict=True)]
        whole = [np.concatenate([part, np.zeros((horizon - len(part), *part.shape[1:]), part.dtype)]) for part in parts]
        return torch.from_numpy(np.stack(whole)[:, None]).float()

    infos = [recorder.infos[end][0] for end in ends]
    return Episodes(
        observations=padded(buffer["observations"][:, 0]),
        final_observations=torch.from_numpy(
            np.stack([info["terminal_observation"] for info in infos])[:, None]
        ).float(),
        actions=padded(buffer["actions"][:, 0]),
        rewards=padded(np.array(recorder.rewards)[:, 0]),
        terminated=torch.tensor([[not info["TimeLimit.truncated"]] for info in infos]),
        diverged=torch.zeros(len(ends), 1, dtype=torch.bool),
        lengths=torch.tensor(lengths)[:, None],
    )


def test_an_outer_step_of_ppo_is_stable_baselines_own() -> None:
    """Its own loop on one environment, and ours on the same steps."""
    task = HOPPER.tasks("train")[0]
    length = 0  # of a few whole episodes
    venv = HOPPER.sb3_env([task], num_envs=1, seed=2)
    for steps in (200, None):
        recorder = Recorder()
        count = steps or length
        theirs = PPO("MlpPolicy", venv, n_steps=count, batch_size=count, n_epochs=1, seed=3, device="cpu",
                     policy_kwargs={"net_arch": [8]})  # fmt: skip
        agent = ppo(HOPPER, batch_size=count)
        model = agent.fresh_model()
        model.policy.load_state_dict(theirs.policy.state_dict())
        venv.seed(2)
        theirs.learn(count, callback=recorder)
        length = int(np.flatnonzero(np.array(recorder.dones)[:, 0])[-1]) + 1
    assert recorder.buffer is not None
    shape = (length, 1)
    arrays = {
        name: getattr(recorder.buffer, name).reshape(*shape, -1)
        for name in ("observations", "actions", "advantages", "returns")
    }
    episodes = episodes_of(recorder, arrays, HOPPER.horizon)
    assert {True, False} == set(episodes.terminated[:, 0].tolist())
    ours = rollout_buffer(model, episodes)
    for name in ("observations", "actions", "advantages", "returns"):
        wanted, got = arrays[name], getattr(ours, name).reshape(*shape, -1)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4, err_msg=name)
    before = agent.state_of(model, 0.0, EMPTY_STORE)
    trials = Trials((task,) * len(episodes.lengths), (episodes,))
    after, _ = agent.meta_step(before, trials, np.random.default_rng(0))
    moved = 0.0
    for name, value in theirs.policy.state_dict().items():
        torch.testing.assert_close(after.parameters[name], value, rtol=1e-4, atol=1e-5)
        moved += float((value - before.parameters[name]).abs().sum())
    assert moved > 0.01


def test_an_outer_step_of_sac_is_stable_baselines_own() -> None:
    agent = sac(HOPPER, learning_starts=0)
    state = agent.init(0)
    for step in range(2):  # the second time with moments and a store
        trials = collect(agent, state, HOPPER, seed=step)
        after, metrics = agent.meta_step(state, trials, np.random.default_rng(step))
        chunks = (*state.store.chunks, transitions(trials.query))
        rows, spaces = sum(len(chunk["rewards"]) for chunk in chunks), agent.model(state)
        own = ReplayBuffer(rows, spaces.observation_space, spaces.action_space, "cpu")
        for chunk in chunks:
            for row in range(len(chunk["rewards"])):
                named = {name: column[row].numpy()[None] for name, column in chunk.items()}
                own.add(named["observations"], named["next_observations"], named["actions"], named["rewards"],
                        named["terminated"], [{}])  # fmt: skip
        seed = int(np.random.default_rng(step).integers(2**31))
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        theirs = agent.model(state)
        theirs.replay_buffer = own
        steps = trials.query.num_steps
        theirs.train(round(0.1 * steps), 16)
        for name, value in theirs.policy.state_dict().items():
            torch.testing.assert_close(after.parameters[name], value, rtol=1e-5, atol=1e-6)
        assert theirs.log_ent_coef is not None
        torch.testing.assert_close(after.parameters["log_ent_coef"], theirs.log_ent_coef.detach())
        assert metrics["critic_loss"] == pytest.approx(theirs.logger.name_to_value["train/critic_loss"], rel=1e-4)
        state = after


def test_transitions_end_with_the_final_observation_and_only_termination_is_an_end() -> None:
    agent = sac(HOPPER)
    episodes = collect(agent, agent.init(0), HOPPER).query
    table = transitions(episodes)
    row = 0
    for index, length in enumerate(episodes.lengths[:, 0].tolist()):
        for step in range(length):
            last = step == length - 1
            following = episodes.final_observations[index, 0] if last else episodes.observations[index, 0, step + 1]
            assert torch.equal(table["next_observations"][row], following)
            assert float(table["terminated"][row]) == (last and bool(episodes.terminated[index, 0]))
            row += 1
    assert row == len(table["rewards"])


def test_the_store_keeps_whole_outer_steps_up_to_its_size() -> None:
    def chunk(steps: int) -> dict[str, Tensor]:
        return {"rewards": torch.zeros(steps)}

    store = EMPTY_STORE
    for steps in (5, 4, 3):
        store = append(store, chunk(steps), most=8)
    assert [len(kept["rewards"]) for kept in store.chunks] == [4, 3] and store.dropped == 1
    assert [len(kept["rewards"]) for kept in append(store, chunk(20), most=8).chunks] == [20]


def test_sac_acts_at_random_until_learning_starts() -> None:
    agent = sac(HOPPER, learning_starts=10_000)
    state = agent.init(0)
    trials = collect(agent, state, HOPPER)
    after, metrics = agent.meta_step(state, trials, np.random.default_rng(0))
    assert all(np.isnan(value) for value in metrics.values())
    learned = {name for name in state.parameters if name != "env_steps"}
    assert all(torch.equal(after.parameters[name], state.parameters[name]) for name in learned)
    assert float(after.parameters["env_steps"]) == trials.query.num_steps
    drawn = trials.query.actions[trials.query.mask]
    assert float(drawn.abs().max()) > 0.95 and float(drawn.std()) == pytest.approx(3**-0.5, abs=0.1)
    begun = State({**state.parameters, "env_steps": torch.tensor(1e6, dtype=torch.float64)}, state.optimizer)
    assert agent.start(state, 1).uniform and not agent.start(begun, 1).uniform


def test_what_acts_is_stable_baselines_own_policy() -> None:
    observations = torch.randn(20, 1, 3)
    for agent in (ppo(Toy(box(1))), ppo(Toy(discrete(3))), sac(Toy(box(2)))):
        state = agent.init(4)
        acted, _ = agent.start(state, 20).act(observations, (), None)
        wanted, _ = agent.model(state).policy.predict(observations[:, 0].numpy(), deterministic=True)
        executed = agent.spaces.clip(acted[:, 0].numpy())
        np.testing.assert_allclose(executed, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("world", [Toy(box(1), hint=True), Toy(discrete(3), hint=True)], ids=["box", "discrete"])
def test_ppo_learns_what_can_be_known_from_the_observation(world: Toy) -> None:
    agent = ppo(world, meta_batch=32, hidden=(16,), learning_rate=1e-2, epochs=6)
    before, _ = held_out_returns(agent, agent.init(0), world)
    after, _ = held_out_returns(agent, trained(agent, world, 12), world)
    assert after.low > before.high + 1.0, (before, after)


def test_sac_learns_what_can_be_known_from_the_observation() -> None:
    world = Toy(box(1), hint=True)
    agent = sac(world, meta_batch=8, hidden=(32,), learning_rate=1e-2, batch_size=64, updates_per_step=0.4)
    before, _ = held_out_returns(agent, agent.init(0), world)
    after, _ = held_out_returns(agent, trained(agent, world, 9), world)
    assert after.low > before.high + 1.0, (before, after)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sb3-sac acts in a Box, and the action space here is Discrete\(3"):
        sac(Toy(discrete(3)))
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        dataclasses.replace(PPO_CONFIG, batch_size=1)
    with pytest.raises(ValueError, match="tau must be in"):
        dataclasses.replace(SAC_CONFIG, tau=0.0)


def test_without_stable_baselines_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UsageError, match="sb3-ppo needs Stable-Baselines3: pip install stable-baselines3"):
        ppo(HOPPER)


def test_naming_the_agents_does_not_import_it() -> None:
    program = "import sys, metarl.agents; print('stable_baselines3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
