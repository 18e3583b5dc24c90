"""What every distribution promises, shown on each of them, and what holds between them."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common import env_checker

from metarl import envs
from metarl.envs import EnvDistribution
from metarl.testing import environments
from metarl.testing.distributions import CHECKS

# Meta-World's many distributions differ in their tasks alone, so two of them stand for all.
OURS = [id for id in envs.list() if not id.startswith("metaworld")]
TOY = f"{Path(__file__).parent.parent / 'external' / 'hidden_corner.py'}:hidden_corner"
CHECKED = [*OURS, "metaworld-ml1-reach-v3", "metaworld-ml10", TOY]


@pytest.fixture(params=CHECKED, ids=lambda id: id.rpartition(":")[2])
def dist(request: pytest.FixtureRequest) -> EnvDistribution:
    return envs.make(request.param)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_distribution_keeps_the_contract(dist: EnvDistribution, check: Callable[[EnvDistribution], None]) -> None:
    check(dist)


def test_every_distribution_draws_pictures(dist: EnvDistribution, drawing: str) -> None:
    environments.check_pictures(dist)
    silent = dist.env()
    silent.reset(seed=0)
    assert silent.render() is None


@pytest.mark.parametrize("id", [*OURS, "metaworld-ml1-reach-v3", TOY], ids=lambda id: id.rpartition(":")[2])
def test_stable_baselines_takes_the_single_env(id: str) -> None:
    with warnings.catch_warnings():
        # Infinite bounds, other ranges than ±1 and a Discrete from 1 on: it copes, and says so.
        warnings.filterwarnings("ignore", ".*(symmetric and normalized Box|non-zero start|must be flattened).*")
        env_checker.check_env(envs.make(id).env())


def test_hashes_of_distributions_differ_and_are_the_same_in_every_process() -> None:
    hashes = {id: envs.make(id).hash for id in envs.list()}
    assert len(set(hashes.values())) == len(hashes)
    program = f"from metarl import envs; print(*(envs.make(id).hash for id in {OURS}))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [hashes[id] for id in OURS]


def test_streams_go_on_without_a_seed(dist: EnvDistribution) -> None:
    left, right = dist.vector_env(2), dist.vector_env(2)
    for seed in (1, None, None):
        one, other = left.reset(seed=seed)[0], right.reset(seed=seed)[0]
        np.testing.assert_equal(one, other)


def test_cheetahs_start_otherwise_with_another_seed() -> None:
    venv = envs.make("cheetah-velocity").vector_env(2)
    first, _ = venv.reset(seed=0)
    assert np.array_equal(venv.reset(seed=[1, 0])[0], first[::-1])
    assert not np.array_equal(venv.reset()[0], first)


def test_wrong_calls_are_refused(dist: EnvDistribution) -> None:
    for arguments in ((0, 1), (-2, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be at least 1, got"):
            dist.vector_env(*arguments)
    venv = dist.vector_env(2)
    actions = environments.random_actions(dist, 1, 2)[0]
    with pytest.raises(gymnasium.error.ResetNeeded):
        venv.step(actions)
    venv.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions must have the shape \(2,"):
        venv.step(actions[:1])
    with pytest.raises(ValueError, match="one seed for each of the 2"):
        venv.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask must be bool"):
        venv.reset(options={"reset_mask": np.array([True])})
    with pytest.raises(ValueError, match="knows the option reset_mask only"):
        venv.reset(options={"mask": np.array([True, False])})
    with pytest.raises(ValueError, match="unknown render_mode"):
        dist.env(render_mode="human")


def test_videos_play_at_the_simulations_pace() -> None:
    """HalfCheetah-v5 says 20 pictures a second, metaworld 80."""
    pace = {id: envs.make(id).env().metadata["render_fps"] for id in ("cheetah-direction", "metaworld-ml1-reach-v3")}
    assert pace == {"cheetah-direction": 20, "metaworld-ml1-reach-v3": 80}
