"""What a benchmark steps beside ours is what it says it is."""

import mujoco
import pytest

from metarl.commands import benchmark_steppers
from metarl.commands.benchmark_steppers import physics_alone


@pytest.mark.parametrize(("robot", "skip"), [("HalfCheetah-v5", 5), ("Hopper-v5", 4)])
def test_the_physics_alone_is_counted_in_environment_steps(
    robot: str, skip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped, times = list[float](), iter([0.0, 10.0])
    with physics_alone(robot, 2) as step:
        plain = mujoco.mj_step  # pyright: ignore[reportAttributeAccessIssue]

        def counted(model: object, data: object, count: int) -> None:
            stepped.append(count)
            plain(model, data, count)

        monkeypatch.setattr(mujoco, "mj_step", counted)
        monkeypatch.setattr(benchmark_steppers.time, "perf_counter", lambda: next(times))
        rate = step(3)
    assert stepped == [skip] * (2 * 3 * 8)  # threads, vector steps, simulations
    assert rate == pytest.approx(2 * 3 * 8 / 10)
