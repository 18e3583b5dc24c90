"""An outer step on a GPU is that of the CPU to rounding. On the CPU itself it is so exactly, which tests the test."""

import dataclasses

import numpy as np
import pytest
import torch

from metarl.agents import AgentConfig, MamlTrpoConfig, PpoConfig, PrompConfig, Rl2PpoConfig, VaribadConfig
from metarl.fewshot.encoders import Conv4Config
from metarl.fewshot.examples import Batch
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.mann import MannConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.reptile import ReptileConfig
from metarl.fewshot.siamese import SiameseConfig
from metarl.learning.episodes import Trials
from metarl.learning.protocols import Parameters
from metarl.testing.agents import check_agent
from metarl.testing.toy_tasks import IMAGES, ToyTasks
from tests.agents.toys import Toy, box
from tests.agents.worlds import collect

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
WORLD = Toy(box(2), ragged=True, scale=3.0)
AGENTS: dict[str, AgentConfig] = {
    "ppo": PpoConfig(meta_batch=8, hidden=(8,), epochs=1, minibatches=2),
    "maml": MamlTrpoConfig(meta_batch=4, hidden=(8,), episodes_per_adaptation=3),
    "promp": PrompConfig(meta_batch=4, hidden=(8,), episodes_per_adaptation=3),
    "rl2": Rl2PpoConfig(meta_batch=8, hidden=8, epochs=1, minibatches=2, chunk_length=None),
    "varibad": VaribadConfig(meta_batch=8, hidden=(8,), encoder_hidden=8, epochs=1, minibatches=2),
}
SMALL = Conv4Config(filters=4)
LEARNERS: dict[str, LearnerConfig] = {
    "maml": MamlConfig(encoder=SMALL),
    "reptile": ReptileConfig(encoder=SMALL),
    "prototypical": PrototypicalConfig(encoder=SMALL),
    "matching": MatchingConfig(encoder=SMALL),
    "siamese": SiameseConfig(encoder=SMALL),
    "mann": MannConfig(slots=8, width=8, controller=12, heads=1),
}


def assert_alike(found: Parameters, expected: Parameters, device: str) -> None:
    """Equal on the CPU, to rounding elsewhere."""
    assert found.keys() == expected.keys()
    tolerance = 0.0 if device == "cpu" else 2e-3
    for name, value in found.items():
        torch.testing.assert_close(
            value.cpu(),
            expected[name],
            rtol=tolerance,
            atol=tolerance / 10,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", AGENTS)
def test_an_agents_outer_step_is_the_same_on_every_device(name: str, device: str) -> None:
    here, there = (AGENTS[name].build(WORLD.spaces, place) for place in ("cpu", device))
    state = here.init(0)
    trials = collect(here, state, WORLD)
    moved = dataclasses.replace(trials, episodes=tuple(part.to(device) for part in trials.episodes))
    assert isinstance(moved, Trials)
    expected, _ = here.meta_step(state, trials, np.random.default_rng(0))
    found, _ = there.meta_step(state.to(device), moved, np.random.default_rng(0))
    assert_alike(found.parameters, expected.parameters, device)


@NO_GPU
@pytest.mark.parametrize("name", AGENTS)
def test_agents_keep_their_contract_on_a_gpu(name: str) -> None:
    check_agent(AGENTS[name], WORLD, device="cuda")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learners_outer_step_is_the_same_on_every_device(name: str, device: str) -> None:
    here, there = (LEARNERS[name].build(IMAGES, place) for place in ("cpu", device))
    state, tasks = here.init(0), ToyTasks(IMAGES)
    batch = tasks.collect(here, state, 0, 0)
    assert isinstance(batch, Batch)
    moved = Batch(batch.support.to(device), batch.query.to(device))
    expected, _ = here.meta_step(state, batch, np.random.default_rng(0))
    found, _ = there.meta_step(state.to(device), moved, np.random.default_rng(0))
    assert_alike(found.parameters, expected.parameters, device)
