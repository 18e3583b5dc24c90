"""The contract check of agents: ours pass it, and each broken promise is found."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import agents, envs
from metarl.agents import AgentConfig, MamlTrpoConfig, PpoConfig, PrompConfig, Rl2PpoConfig, Sb3PpoConfig, VaribadConfig
from metarl.agents.fixed import random_policy
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Agent, Carry, Memoryless, Metrics, State
from metarl.learning.random_streams import TaskRandom
from metarl.learning.spaces import Spaces
from metarl.testing.agents import World, check_agent, check_policy
from metarl.testing.contract import ContractError
from tests.agents.toys import Toy, box, discrete

SMALL: dict[str, AgentConfig] = {
    "maml": MamlTrpoConfig(meta_batch=3, episodes_per_adaptation=4, hidden=(8,)),
    "rl2": Rl2PpoConfig(meta_batch=3, hidden=8, epochs=1, minibatches=2),
    "promp": PrompConfig(meta_batch=3, episodes_per_adaptation=4, hidden=(8,), epochs=2),
    "ppo": PpoConfig(meta_batch=4, hidden=(8,), epochs=1, minibatches=2),
    "sb3-ppo": Sb3PpoConfig(meta_batch=3, hidden=(8,), epochs=1),
    "varibad": VaribadConfig(
        meta_batch=3, elbo_trials=2, elbo_terms=5, encoder_hidden=8, latent=2, hidden=(8,), epochs=1, minibatches=2
    ),
}
ELSEWHERE = ("sb3-sac",)
"""Checked in tests/agents/test_sb3.py: it acts in a Box alone."""
VARIANTS: tuple[AgentConfig, ...] = (
    MamlTrpoConfig(meta_batch=3, episodes_per_adaptation=4, hidden=(8,), normalise_observations=True, inner_steps=2),
    MamlTrpoConfig(meta_batch=3, episodes_per_adaptation=4, hidden=(8, 7), anil=True, learn_inner_lr=False),
    Rl2PpoConfig(meta_batch=3, hidden=8, epochs=1, minibatches=2, cell="lstm", chunk_length=4, episodes_per_trial=3),
)
WORLDS: dict[str, World] = {
    "one action": Toy(box(1), ragged=True),
    "discrete": Toy(discrete(3), ragged=True),
}


def test_every_registered_agent_is_checked() -> None:
    assert {*SMALL, *ELSEWHERE} == set(agents.list())


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("config", [*SMALL.values(), *VARIANTS], ids=lambda config: type(config).__name__)
def test_our_agents_keep_the_contract(config: AgentConfig, world: str) -> None:
    check_agent(config, WORLDS[world])


@pytest.mark.parametrize("name", SMALL)
def test_they_keep_it_on_the_point_robot(name: str) -> None:
    check_agent(SMALL[name], dataclasses.replace(envs.make("point-navigation"), horizon=20))


@pytest.mark.parametrize("world", WORLDS)
def test_random_policies_keep_their_part(world: str) -> None:
    dist = WORLDS[world]
    check_policy(lambda num_tasks: random_policy(dist.spaces), dist, AdaptationProtocol(1, 2))


# An agent of the smallest kind, and one broken promise at a time.


@dataclasses.dataclass(frozen=True)
class ShiftConfig:
    """Acts by one number, which every outer step raises."""

    broken: str = ""

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> "Shift":
        return Shift(spaces, self.broken)


@dataclasses.dataclass(frozen=True)
class Shift:
    spaces: Spaces
    broken: str

    meta_batch = 2
    adaptation_name = "episode"

    @property
    def progress_keys(self) -> tuple[str, ...]:
        return ("shifts", "regret") if self.broken == "progress_keys" else ("shifts",)

    @property
    def protocol(self) -> AdaptationProtocol:
        return AdaptationProtocol(1, 1)

    def init(self, seed: int) -> State:
        start = torch.rand(2) if self.broken == "global random" else torch.rand(2, generator=torch.Generator())
        return State({"shift": start, "other": start if self.broken == "shared" else start + 1}, {})

    def start(self, state: State, num_tasks: int) -> "Shifted":
        return Shifted(self, state.parameters["shift"].clone(), num_tasks)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        shift, other = state.parameters["shift"], state.parameters["other"].clone()
        if self.broken == "writes state":
            shift += 1
        if self.broken == "writes trials":
            experience.query.rewards.zero_()
        noise = torch.randn(2) if self.broken == "impure" else torch.zeros(2)
        after = {"shift": shift + 1 + noise, "other": other}
        if self.broken == "nan":
            after["shift"] = after["shift"] * torch.nan
        if self.broken == "names":
            after["more"] = torch.zeros(1)
        if self.broken == "order":
            after["shift"] = after["shift"] + float(next(iter(state.parameters.values()))[0])
        if self.broken == "graph":
            after["shift"].requires_grad_()
        return State(after, {}), {"shifts": torch.inf if self.broken == "infinite" else 1.0}


@dataclasses.dataclass(frozen=True)
class Shifted(Memoryless):
    agent: Shift
    shift: Tensor
    num_tasks: int
    unpicklable: Callable[[], int] | None = None

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        if self.agent.broken == "carry axes":
            return (torch.zeros(num_episodes, self.num_tasks),)
        return ()

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        broken, size = self.agent.broken, self.agent.spaces.action_size
        actions = observations.mean(-1, keepdim=True).expand(*observations.shape[:2], size) + self.shift[0]
        if random is not None:
            actions = actions + random.normal(size)
        if broken == "company":
            actions = actions + observations.mean()
        if broken == "dtype":
            actions = actions.double()
        if broken == "unrepeatable":
            actions = actions + torch.randn(1)
        return actions.sum(-1) if broken == "shape" else actions, carry

    def adapt(self, support: Episodes) -> "Shifted":
        if self.agent.broken == "writes self":
            self.shift.add_(1)
        if self.agent.broken == "writes support":
            support.rewards.zero_()
        if self.agent.broken == "pickle":
            return dataclasses.replace(self, unpicklable=lambda: 0)
        return self


def check_broken(broken: str) -> None:
    torch.manual_seed(0)
    check_agent(ShiftConfig(broken), Toy(box(2)))


def test_the_smallest_agent_keeps_the_contract() -> None:
    check_broken("")
    assert isinstance(Shift(Toy(box(2)).spaces, ""), Agent)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("global random", "gives another state each time"),
        ("shared", "share their memory"),
        ("writes state", "writes into the state"),
        ("writes trials", "writes into the trials"),
        ("impure", "gives another result"),
        ("order", "loaded from a checkpoint, gives another result"),
        ("nan", "not finite"),
        ("names", "changes names, shapes or types of the state's parameters"),
        ("graph", "with a graph behind it"),
        ("infinite", "the metric shifts = inf"),
        ("progress_keys", "names metrics that there are not: {'regret'}"),
        ("carry axes", "leading axes task and episode"),
        ("dtype", "gives actions of"),
        ("shape", "gives actions of"),
        ("unrepeatable", "without noise gives other actions each time"),
        ("company", "depends on the tasks beside it"),
        ("writes self", "changes the policy that it is called on"),
        ("writes support", "writes into the episodes"),
    ],
)
def test_a_broken_promise_is_named(broken: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_broken(broken)


def test_what_does_not_pickle_is_an_error() -> None:
    with pytest.raises(Exception, match="pickle"):
        check_broken("pickle")


def test_options_need_a_docstring_and_an_agent() -> None:
    bare: Any = dataclasses.make_dataclass("Bare", [], namespace={"build": lambda self, spaces, device: object()})
    bare.__doc__ = None
    with pytest.raises(ContractError, match="no docstring"):
        check_agent(bare(), Toy(box(2)))
    bare.__doc__ = "An agent that is none."
    with pytest.raises(ContractError, match="lacks a part of the protocol `Agent`"):
        check_agent(bare(), Toy(box(2)))
