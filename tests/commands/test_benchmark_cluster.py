"""The cluster's benchmark measures what it says, on collections that are small."""

import dataclasses

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'metarl-suite[ray]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.timeout(900),  # Ray's processes take a minute to start where the machine is busy
]

from metarl.commands import benchmark_cluster  # noqa: E402


@pytest.fixture(autouse=True)
def exhaustive(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--exhaustive"):
        pytest.skip("clusters take a minute to start; --exhaustive has them")


def test_memory_is_of_the_driver_and_of_every_worker() -> None:
    sizes = benchmark_cluster.memory(2, 2)
    assert sizes.keys() == {"driver", "worker 1", "worker 2"}
    for first, last, most in sizes.values():
        assert 50 < first <= most and last <= most < 10_000  # MiB


def test_costs_are_those_of_trials_of_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_cluster, "_SIZES", (1, 8))
    small = dataclasses.replace(benchmark_cluster.CONFIG, episodes_per_adaptation=1)
    monkeypatch.setattr(benchmark_cluster, "CONFIG", small)
    costs = benchmark_cluster.costs(1)
    assert costs.play(1) > 0 and costs.play(8) > 0  # which is longer a busy machine decides
    # Of two points of a trial: 100 steps of 17 observed and 6 executed numbers and a reward, 4 bytes each.
    assert 2 * 100 * (17 + 6 + 1) * 4 < costs.result_bytes < 2 * 100 * (17 + 6 + 1) * 4 * 1.5
