"""The few-shot learners by id: ours by name, those of installed packages, and anybody's by `my_file.py:MyConfig`."""

import dataclasses

from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.classical import ClassicalConfig
from metarl.fewshot.columns import ColumnsConfig
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.mann import MannConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.reptile import ReptileConfig
from metarl.fewshot.siamese import SiameseConfig
from metarl.fewshot.transfer import TransferConfig
from metarl.registry import Registry


def _check(entry: object) -> type[LearnerConfig]:
    if not (isinstance(entry, type) and issubclass(entry, LearnerConfig) and dataclasses.is_dataclass(entry)):
        raise ValueError("it must be a frozen dataclass of options with a method `build(signature, device)`")
    return entry


LEARNERS: Registry[type[LearnerConfig]] = Registry("few-shot learner", "metarl.learners", _check)
LEARNERS.register("maml", MamlConfig)
LEARNERS.register("reptile", ReptileConfig)
LEARNERS.register("prototypical", PrototypicalConfig)
LEARNERS.register("matching", MatchingConfig)
LEARNERS.register("siamese", SiameseConfig)
LEARNERS.register("mann", MannConfig)
LEARNERS.register("centroid", CentroidConfig)
LEARNERS.register("transfer", TransferConfig)
LEARNERS.register("columns", ColumnsConfig)
LEARNERS.register("classical", ClassicalConfig)


def register(name: str, config: type[LearnerConfig]) -> None:
    """Makes a few-shot learner known by a name.

    Args:
        name: what it is called by programs.
        config: a frozen dataclass of options, each with a default, and `build(signature, device) -> FewShotLearner`.

    Raises:
        ValueError: the name is taken, or the config is something else.
    """
    LEARNERS.register(name, config)
