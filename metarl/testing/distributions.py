"""The contract of a distribution of reinforcement-learning tasks, as a test for everybody's.

    from metarl.testing import check_distribution
    check_distribution(pendulum())

checks what a training run, an evaluation and a video rely on. It says nothing of whether the tasks are worth learning.
"""

import dataclasses
import json
import pickle
from collections.abc import Callable

import numpy as np

from metarl.envs.distribution import EnvDistribution
from metarl.tasks import SPLITS, Split, Task
from metarl.testing import environments
from metarl.testing.contract import ContractError, require

_DRAWS = 2000  # training tasks among which a held-out one would be found


def check_distribution(dist: EnvDistribution, *, pictures: bool = True) -> None:
    """Checks the whole contract; takes a few seconds.

    Args:
        dist: the distribution.
        pictures: whether to draw as well; False on machines that cannot.

    Raises:
        ContractError: a promise is not kept; the message says which.
    """
    for check in CHECKS:
        check(dist)
    if pictures and dist.renders:
        environments.check_pictures(dist)


def check_splits(dist: EnvDistribution) -> None:
    """The lists are frozen; no split holds another's tasks, and none is ever sampled, unless `held_out` is False."""
    lists: dict[Split, tuple[Task, ...]] = {split: dist.tasks(split) for split in SPLITS}
    for split, tasks in lists.items():
        require(tasks, f"{dist.id}: the {split} list is empty")
        require(len(set(tasks)) == len(tasks), f"{dist.id}: a task stands twice in the {split} list")
        require(dataclasses.replace(dist).tasks(split) == tasks, f"{dist.id}: the {split} list changes")
    if not dist.held_out:
        require(len(set(lists.values())) == 1, f"{dist.id}: without held-out tasks, all splits must list the same")
        return
    train = {*lists["train"], *dist.sample("train", _DRAWS, np.random.default_rng(0))}
    for split in SPLITS[1:]:
        leaked = train.intersection(lists[split])
        require(
            not leaked, f"{dist.id}: {len(leaked)} {split} tasks come up in training: {', '.join(map(str, leaked))}"
        )
        drawn = dist.sample(split, len(lists[split]), np.random.default_rng(0))
        require(set(drawn) == set(lists[split]), f"{dist.id}: {split} samples are not those of the list, each once")
    shared = set(lists["validation"]).intersection(lists["test"])
    require(not shared, f"{dist.id}: {len(shared)} tasks stand in validation and in the test")


def check_samples(dist: EnvDistribution) -> None:
    """Samples follow from the generator; impossible ones are refused."""
    one, again = (dist.sample("train", 50, np.random.default_rng(1)) for _ in range(2))
    require(one == again, f"{dist.id}: the same generator gives other tasks")
    if len(dist.tasks("train")) > 1:
        other = dist.sample("train", 50, np.random.default_rng(2))
        require(one != other, f"{dist.id}: another generator gives the same tasks")
    _require_refusal(lambda: dist.sample("train", -1, np.random.default_rng(0)), f"{dist.id}: a sample of -1 tasks")
    if dist.held_out:
        more = len(dist.tasks("test")) + 1
        _require_refusal(lambda: dist.sample("test", more, np.random.default_rng(0)), f"{dist.id}: too many test tasks")


def check_tasks(dist: EnvDistribution) -> None:
    """Tasks are values: they survive JSON and pickling, and every parameter has a unit."""
    for task in {task for split in SPLITS for task in dist.tasks(split)}:
        loaded = Task.from_json(json.loads(json.dumps(task.to_json())))
        require(loaded == task and loaded.id == task.id, f"{dist.id}: {task} is {loaded} after a round trip in JSON")
        require(pickle.loads(pickle.dumps(task)) == task, f"{dist.id}: {task} does not survive pickling")
        for name, _ in task.parameters:
            require(dist.units.get(name), f"{dist.id}: the parameter {name!r} has no unit")


def check_hash(dist: EnvDistribution) -> None:
    """The spec is JSON, and its hash tells distributions apart."""
    spec = dist.spec()
    require(json.loads(json.dumps(spec)) == spec, f"{dist.id}: the spec changes in JSON: use lists and plain numbers")
    require(dataclasses.replace(dist).hash == dist.hash, f"{dist.id}: the hash changes from call to call")
    others = {
        "the horizon": dataclasses.replace(dist, horizon=dist.horizon + 1),
        "the physics": dataclasses.replace(dist, physics={**dist.physics, "gravity of the moon": 1.62}),
        "the tasks": dataclasses.replace(dist, space=dataclasses.replace(dist.space, test=dist.space.test * 2)),
    }
    for what, other in others.items():
        require(other.hash != dist.hash, f"{dist.id}: the hash does not depend on {what}")


def check_description(dist: EnvDistribution) -> None:
    """There is something to say in a list of all distributions."""
    require(dist.about and "\n" not in dist.about, f"{dist.id}: `about` must be one line on what there is to do")
    require(dist.body, f"{dist.id}: physics['body'] must name what moves")


def _require_refusal(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    raise ContractError(f"{what} must be refused with a ValueError")


CHECKS: tuple[Callable[[EnvDistribution], None], ...] = (
    check_splits,
    check_samples,
    check_tasks,
    check_hash,
    check_description,
    *environments.CHECKS,
)
"""All of the contract but for pictures."""
