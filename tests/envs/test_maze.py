"""Mazes: layouts against graph theory, motion and sensors against geometry, plans against playing them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from metarl import envs
from metarl.commands.record_video import VideoOptions, subject_of
from metarl.envs.maze import HORIZON, LONGEST, PARTS, RADIUS, SENSOR_RANGE, SHORTEST, MazeSimulator, slide
from metarl.envs.maze_layouts import Maze, draw_maze, goal_of, maze_of
from metarl.envs.maze_planner import plan, planned_actions, planner_reference
from metarl.evaluation.evaluate import evaluate_with
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.references import reference
from metarl.evaluation.trials import TrialJudge
from metarl.learning.collect import Collector
from metarl.tasks import SPLITS, Split, Task

DIST = envs.make("maze-navigation")
TASK = Task.of("maze-5x5", seed=7.0, size=5, goal_x=0, goal_y=4)


def mazes(count: int, size: int) -> list[Maze]:
    return [draw_maze(np.random.default_rng(seed), size) for seed in range(count)]


def walls(maze: Maze) -> ndarray:
    """Every wall as (x, y) of one end and of the other, cell by cell."""
    right = [(x + 1, y, x + 1, y + 1) for x, y in np.argwhere(maze.right)]
    up = [(x, y + 1, x + 1, y + 1) for x, y in np.argwhere(maze.up)]
    left, below = ([(0, k, 0, k + 1) for k in range(maze.size)], [(k, 0, k + 1, 0) for k in range(maze.size)])
    return np.array([*right, *up, *left, *below], dtype=float)


def clearance(points: ndarray, maze: Maze) -> ndarray:
    """Of each point, the distance from the nearest wall in the maximum norm."""
    segments = walls(maze)
    nearest = np.clip(points[:, None], segments[:, :2], segments[:, 2:])
    return np.abs(points[:, None] - nearest).max(-1).min(-1)


def free_points(maze: Maze, count: int, rng: np.random.Generator) -> ndarray:
    """Points where the robot can be, many of them in doorways and against walls."""
    points = rng.uniform(0, maze.size, (20 * count, 2))
    close = rng.random(len(points)) < 0.5
    points[close] = np.round(points[close]) + rng.choice([-RADIUS, 0.0, RADIUS, 0.3], (close.sum(), 2))
    points = points[(points > 0).all(-1) & (points < maze.size).all(-1)]
    points = points[clearance(points, maze) >= RADIUS][:count]
    assert len(points) == count
    return points


def moved(maze: Maze, points: ndarray, moves: ndarray) -> ndarray:
    return slide(points, moves, np.broadcast_to(maze.lines, (len(points), *maze.lines.shape)))


@pytest.mark.parametrize("size", [3, 5, 7, 15])
def test_there_is_exactly_one_way_between_any_two_cells(size: int) -> None:
    for maze in mazes(5, size):
        assert maze.right[-1].all() and maze.up[:, -1].all()
        doors = [(cell, neighbour) for cell in np.ndindex(size, size) for neighbour in maze.neighbours(cell)]
        rows, columns = (np.array([x * size + y for x, y in ends]) for ends in zip(*doors, strict=True))
        graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size**2, size**2))
        assert connected_components(graph)[0] == 1
        assert len(doors) == 2 * (size**2 - 1)  # of a tree, each from both sides
        assert max(maze.distances) == (size - 1, size - 1) and len(maze.distances) == size**2


def test_layouts_differ_and_stay_what_they_are() -> None:
    assert len({maze.hash for maze in mazes(200, 5)}) > 190
    assert maze_of(TASK).hash == "a91cd25269118db1"


def test_no_layout_is_in_two_splits() -> None:
    listed = {split: [maze_of(task) for task in DIST.tasks(split)] for split in SPLITS}
    listed["train"] += [maze_of(task) for task in DIST.sample("train", 300, np.random.default_rng(0))]
    assert all({maze.split for maze in listed[split]} == {split} for split in SPLITS)
    layouts = {split: {(maze.right.tobytes(), maze.up.tobytes()) for maze in listed[split]} for split in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert layouts[one].isdisjoint(layouts[other])
    sizes = {split: {maze.size for maze in listed[split]} for split in SPLITS}
    assert sizes == {"train": {3, 5}, "validation": {5}, "test": {5, 7}}


def test_the_layout_alone_decides_on_the_split() -> None:
    """Of the few small layouts many seeds draw the same one."""
    by_layout: dict[bytes, set[str]] = {}
    drawn = mazes(400, 3)
    for maze in drawn:
        by_layout.setdefault(maze.right.tobytes() + maze.up.tobytes(), set()).add(maze.split)
    assert len(by_layout) <= 192  # the spanning trees of 3 × 3 cells
    assert all(len(splits) == 1 for splits in by_layout.values())
    of_splits = [maze.split for maze in mazes(500, 5)]
    shares = {split: of_splits.count(split) / len(of_splits) for split in SPLITS}
    assert shares == pytest.approx({"train": 0.6, "validation": 0.2, "test": 0.2}, abs=0.06)


def test_goals_are_neither_near_nor_out_of_reach() -> None:
    for split in SPLITS:
        lengths = [maze_of(task).distances[goal_of(task)] for task in DIST.tasks(split)]
        assert SHORTEST <= min(lengths) < max(lengths) <= LONGEST < HORIZON


@pytest.mark.parametrize("size", [5, 7])
def test_along_an_axis_it_goes_until_a_wall_and_never_through_one(size: int) -> None:
    rng = np.random.default_rng(size)
    for maze in mazes(2, size):
        points = free_points(maze, 200, rng)
        moves = rng.normal(size=points.shape) * 10.0 ** rng.uniform(-2, 2, (len(points), 1))
        moves[np.arange(len(points)), rng.integers(2, size=len(points))] = 0.0
        ends = moved(maze, points, moves)
        way = points + np.linspace(0, 1, 60)[:, None, None] * (ends - points)
        assert clearance(way.reshape(-1, 2), maze).min() >= RADIUS - 1e-9
        stopped = ~np.isclose(ends, points + moves).all(-1)
        assert 40 < stopped.sum() < 190
        farther = (ends + 1e-6 * np.sign(moves))[stopped]
        assert (clearance(farther, maze) < RADIUS).all()


def test_a_move_is_made_in_parts_first_along_x_then_along_y() -> None:
    rng = np.random.default_rng(0)
    (maze,) = mazes(1, 7)
    points = free_points(maze, 500, rng)
    moves = rng.uniform(-1, 1, points.shape)
    expected = points
    for _ in range(PARTS):
        for axis in ([1.0, 0.0], [0.0, 1.0]):
            expected = moved(maze, expected, moves / PARTS * axis)
    np.testing.assert_allclose(moved(maze, points, moves), expected, atol=1e-9)


def test_it_sees_how_far_the_walls_are_and_where_it_is_from_the_start() -> None:
    rng = np.random.default_rng(1)
    simulator = MazeSimulator(1, 1)
    simulator.set_task(0, TASK)
    simulator.reset(0, rng)
    maze, position = maze_of(TASK), np.full(2, 2.5)
    for _ in range(40):
        action = rng.uniform(-1, 1, 2)
        simulator.step(action[None], np.ones(1, bool))
        position = moved(maze, position[None], action[None])[0]
        simulator.observe(out := np.zeros((1, 6)))
        np.testing.assert_allclose(out[0, :2], position - 2.5)
        for number, distance in enumerate(out[0, 2:]):
            axis, sign = number // 2, 2 * (number % 2) - 1
            low, high = walls(maze)[:, 1 - axis], walls(maze)[:, 3 - axis]
            ahead = sign * (walls(maze)[:, axis] - position[axis])
            hit = ahead[(low <= position[1 - axis]) & (position[1 - axis] < high) & (ahead > 0)]
            assert distance == pytest.approx(min(hit.min(), SENSOR_RANGE))


def test_only_the_goals_cell_is_rewarded_and_ends_the_episode() -> None:
    venv = DIST.vector_env(1)
    venv.set_tasks([TASK])
    observations, _ = venv.reset(seed=0)
    policy, step, there = planned_actions([TASK]), 0, False
    while not there:
        step += 1
        actions = policy(torch.from_numpy(observations[None].astype(np.float32)), None)[0].numpy()
        observations, rewards, terminated, truncated, infos = venv.step(0.4 * actions)
        there = np.array_equal(np.floor(observations[0, :2] + 2.5), goal_of(TASK))
        assert infos["success"][0] == terminated[0] == there and not truncated[0]
        assert rewards[0] == pytest.approx(1 - 0.9 * step / HORIZON if there else 0.0)
    assert step > 5


def test_whoever_stays_away_is_paid_nothing_for_the_whole_horizon() -> None:
    venv = DIST.vector_env(1)
    venv.set_tasks([TASK])
    venv.reset(seed=0)
    rng = np.random.default_rng(0)
    for step in range(HORIZON):
        _, rewards, terminated, truncated, infos = venv.step(rng.uniform(-0.2, 0.2, (1, 2)))
        assert not rewards.any() and not terminated.any() and not infos["success"].any()
        assert truncated[0] == (step == HORIZON - 1)


def test_the_goal_is_hidden() -> None:
    venv = DIST.vector_env(2)
    venv.set_tasks([TASK, Task.of("maze-5x5", seed=7.0, size=5, goal_x=4, goal_y=4)])
    observations, _ = venv.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-0.5, 0.5, (30, 2)):
        assert np.array_equal(observations[0], observations[1])
        observations, *_ = venv.step(np.tile(action, (2, 1)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_planner_reaches_every_goal_in_no_more_steps_than_cells(split: Split) -> None:
    settings = EvaluationSettings(split=split, num_tasks=12)
    dist, candidate = reference("metarl.envs.maze_planner:planner_reference", DIST, DIST.tasks(split)[:12])
    found = evaluate_with(TrialJudge(dist, Collector(dist)), candidate, settings)
    steps = found.metrics["length"][0, 0, 0]
    assert found.metrics["success"].min() == 1
    lengths = np.array([maze_of(task).distances[goal_of(task)] for task in found.tasks])
    assert (steps <= lengths).all() and (steps >= 0.5 * lengths - 1).all()


def test_a_filmed_planner_is_told_the_tasks_that_are_filmed(tmp_path: Path) -> None:
    options = VideoOptions(policy="planner", env=DIST.id, where=("size=7",), grid=3, output=tmp_path / "x.mp4")
    subject = subject_of(options)
    assert len(subject.tasks) == len(subject.candidates) == 3
    collector = Collector(subject.dist)
    for task, candidate in zip(subject.tasks, subject.candidates, strict=True):
        played = collector.collect_episodes(candidate.learner.start(candidate.state, 1), [task], 1, (1,))
        assert played.success is not None and played.success.all()


def test_a_plan_is_the_shortest() -> None:
    """Following it takes one step less from each node to the next: Bellman's equation, by playing it."""
    following, maze = plan(TASK), maze_of(TASK)
    count = len(following)
    at = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1).reshape(-1, 2)
    at = at[clearance((at + 1) / 4, maze) >= RADIUS]
    for _ in range(LONGEST):
        ends = following[at[:, 0], at[:, 1]]
        np.testing.assert_allclose(moved(maze, (at + 1) / 4, (ends - at) / 4), (ends + 1) / 4, atol=1e-9)
        at = ends
    assert (np.floor((at + 1) / 4) == goal_of(TASK)).all()


def test_plans_are_plain_data_and_about_mazes() -> None:
    policy = pickle.loads(pickle.dumps(planned_actions([TASK])))
    assert policy(torch.zeros(1, 3, 6), None).shape == (1, 3, 2)
    with pytest.raises(ValueError, match="plans for maze-navigation only, not for point-navigation"):
        planner_reference(envs.make("point-navigation"), ())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 4}, "odd number of cells from 3 to 15, got 4"),
        ({"size": 17}, "odd number of cells from 3 to 15, got 17"),
        ({"goal_x": 5}, r"a cell of the 5 × 5 maze other than the start \(2, 2\), got \(5, 4\)"),
        ({"goal_x": 0.5}, r"got \(0.5, 4\)"),
        ({"goal_x": 2, "goal_y": 2}, r"got \(2, 2\)"),
        ({"seed": -1.0}, "whole number from 0 to"),
    ],
)
def test_mazes_that_there_are_not_are_refused(changed: dict[str, float], message: str) -> None:
    venv = DIST.vector_env(1)
    venv.set_tasks([Task.of("maze-5x5", **{**dict(TASK.parameters), **changed})])
    with pytest.raises(ValueError, match=message):
        venv.reset(seed=0)


def test_pictures_show_walls_doors_goal_and_path() -> None:
    maze, side = maze_of(TASK), 550  # 100 pixels a cell, 25 around
    venv = DIST.vector_env(1)
    venv.set_tasks([TASK])
    venv.reset(seed=0)

    def colour(picture: ndarray, x: float, y: float) -> tuple[int, ...]:
        return tuple(picture[side - 25 - round(100 * y), 25 + round(100 * x)])

    before = venv.picture(0, side, side)
    wall = colour(before, 0.0, 0.5)
    for x, y in np.ndindex(5, 5):
        assert (colour(before, x + 1, y + 0.5) == wall) == maze.right[x, y]
        assert (colour(before, x + 0.5, y + 1) == wall) == maze.up[x, y]
    green = colour(before, 0.2, 4.2)
    assert green[1] > max(green[0], green[2])
    way = np.array(next(maze.neighbours((2, 2)))) - 2.0
    for _ in range(2):
        venv.step(0.4 * way[None])
    x, y = 2.5 + 0.5 * way
    assert colour(before, x, y) != colour(venv.picture(0, side, side), x, y)


def test_paths_are_kept_without_a_time_limit_too() -> None:
    venv = DIST.unlimited_vector_env(1)
    venv.set_tasks([TASK])
    venv.reset(seed=0)
    for _ in range(3 * HORIZON):
        venv.step(np.array([[0.001, 0.0]]))
    assert venv.picture(0, 60, 60).shape == (60, 60, 3)
