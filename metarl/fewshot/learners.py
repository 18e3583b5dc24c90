"""The few-shot learners by name."""

from collections.abc import Mapping
from types import MappingProxyType

from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.prototypical import Prototypical, PrototypicalConfig

LearnerConfig = MamlConfig | PrototypicalConfig
CONFIGS: Mapping[str, type[LearnerConfig]] = MappingProxyType(
    {
        "maml": MamlConfig,
        "prototypical": PrototypicalConfig,
    }
)
"""The options of each learner, by its name on the command line."""


def make(config: LearnerConfig, signature: TaskSignature, device: str = "cpu") -> FewShotLearner:
    """The learner with these options, for tasks of this kind.

    Raises:
        ValueError: the learner cannot learn tasks of this kind.
    """
    match config:
        case MamlConfig():
            return Maml(config, signature, device)
        case PrototypicalConfig():
            return Prototypical(config, signature, device)
