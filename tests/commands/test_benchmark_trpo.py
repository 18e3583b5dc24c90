"""The task loop that MAML-TRPO's update is held against takes the same step."""

import numpy as np
import pytest

from metarl.agents import MamlTrpoConfig
from metarl.agents.maml import MamlTrpo
from metarl.commands import benchmark_trpo
from metarl.learning.protocols import State
from tests.agents.explicit import in_double
from tests.agents.toys import Toy, box, discrete


@pytest.mark.parametrize("world", [Toy(box(2)), Toy(discrete(3), ragged=True)], ids=["box", "discrete"])
def test_the_loop_takes_the_step_of_ours(world: Toy) -> None:
    config = MamlTrpoConfig(
        hidden=(4,), meta_batch=3, episodes_per_adaptation=4, curvature_fraction=0.5, cg_damping=0.1
    )
    agent = config.build(world.spaces)
    assert isinstance(agent, MamlTrpo)
    state, trials = in_double(agent, world)
    expected, metrics = agent.meta_step(state, trials, np.random.default_rng(5))
    found: State = benchmark_trpo.by_loop(agent, state, trials, np.random.default_rng(5))
    assert metrics["accepted"] == 1
    for name, value in found.parameters.items():
        moved = (expected.parameters[name] - state.parameters[name]).norm()
        assert float((value - expected.parameters[name]).norm()) < 1e-3 * float(moved) + 1e-9, name
