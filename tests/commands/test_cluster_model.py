"""The simulated cluster is right where arithmetic says what must come out."""

import pytest

from metarl.commands.cluster_model import Costs, Line, efficiency, simulate

FREE = Line(0.0, 0.0)
PERFECT = Costs(Line(0.0, 2.0), 0.0, FREE, 100.0, 1000.0, FREE, bandwidth=float("inf"))


def test_without_overheads_only_idle_workers_cost() -> None:
    assert simulate(PERFECT, 1, 40).step == 80.0
    assert [efficiency(PERFECT, count, 40, whole=True) for count in (1, 4, 40)] == pytest.approx([1.0, 1.0, 1.0])
    assert simulate(PERFECT, 3, 40).step == 28.0  # 14, 13 and 13 tasks
    assert efficiency(PERFECT, 80, 40, whole=True) == pytest.approx(0.5)  # more workers than tasks idle


def test_each_part_takes_its_time_in_its_turn() -> None:
    costs = Costs(Line(3.0, 2.0), 0.0, Line(0.1, 0.001), 100.0, 1000.0, Line(5.0, 0.5), bandwidth=1000.0)
    # Sent at 0.2 and 0.4; played until 5.2 and 5.4; carried until 6.2 and 7.2; taken in until 7.3 and 8.4.
    found = simulate(costs, 2, 2)
    assert found.collecting == pytest.approx(8.4)
    assert found.step == pytest.approx(8.4 + 6.0)
    assert found.driver == pytest.approx(0.4 + 2.2)


def test_workers_that_update_are_asked_in_turn_and_compute_at_once() -> None:
    costs = Costs(FREE, 0.0, Line(0.1, 0.001), 0.0, 100.0, Line(5.0, 0.5), float("inf"), questions=3, vector_bytes=50.0)
    found = simulate(costs, 2, 4)
    sending, update, asking = 2 * (0.1 + 0.2), 5.0 + 0.5 * 2, 2 * 3 * 2 * (0.1 + 0.05)
    assert found.step_by_workers == pytest.approx(found.collecting + sending + update + asking)
    assert found.step == pytest.approx(found.collecting + 5.0 + 0.5 * 4)


def test_the_update_bounds_the_whole_as_amdahl_says() -> None:
    costs = Costs(Line(0.0, 1.0), 0.0, FREE, 0.0, 0.0, Line(10.0, 0.0))
    assert simulate(costs, 1, 40).step / simulate(costs, 40, 40).step == pytest.approx(50 / 11)


def test_uneven_shares_make_the_slowest_count() -> None:
    uneven = Costs(Line(1.0, 0.0), 0.5, FREE, 0.0, 0.0, FREE, bandwidth=float("inf"))
    steps = [simulate(uneven, count, count, seed=1).step for count in (1, 10, 1000)]
    assert steps[0] < steps[1] < steps[2]
    assert simulate(uneven, 10, 10, seed=1) == simulate(uneven, 10, 10, seed=1)


def test_a_line_goes_through_what_was_measured() -> None:
    line = Line.through({1: 5.0, 2: 7.0, 4: 11.0})
    assert (line.fixed, line.slope) == pytest.approx((3.0, 2.0))
    assert Line.through({1: 1.0, 2: 4.0}).fixed == 0.0  # no time is negative
    with pytest.raises(ValueError, match="two points, got 1"):
        Line.through({1: 1.0})
    with pytest.raises(ValueError, match="at least one worker and one task, got 0 and 3"):
        simulate(PERFECT, 0, 3)
