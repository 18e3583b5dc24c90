"""The few-shot learners by name."""

from collections.abc import Mapping
from types import MappingProxyType

from metarl.fewshot import networks
from metarl.fewshot.baselines import Centroid, CentroidConfig, Transfer, TransferConfig
from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.mann import Mann, MannConfig
from metarl.fewshot.matching import Matching, MatchingConfig
from metarl.fewshot.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.reptile import Reptile, ReptileConfig
from metarl.fewshot.siamese import Siamese, SiameseConfig

LearnerConfig = (
    MamlConfig
    | ReptileConfig
    | PrototypicalConfig
    | MatchingConfig
    | SiameseConfig
    | MannConfig
    | CentroidConfig
    | TransferConfig
)
CONFIGS: Mapping[str, type[LearnerConfig]] = MappingProxyType(
    {
        "maml": MamlConfig,
        "reptile": ReptileConfig,
        "prototypical": PrototypicalConfig,
        "matching": MatchingConfig,
        "siamese": SiameseConfig,
        "mann": MannConfig,
        "centroid": CentroidConfig,
        "transfer": TransferConfig,
    }
)
"""The options of each learner, by its name on the command line."""


def make(config: LearnerConfig, signature: TaskSignature, device: str = "cpu") -> FewShotLearner:
    """The learner with these options, for tasks of this kind.

    Raises:
        ValueError: the learner cannot learn tasks of this kind.
    """
    if not isinstance(config, CentroidConfig):
        networks.check(config.network, signature)
    match config:
        case MamlConfig():
            return Maml(config, signature, device)
        case ReptileConfig():
            return Reptile(config, signature, device)
        case PrototypicalConfig():
            return Prototypical(config, signature, device)
        case MatchingConfig():
            return Matching(config, signature, device)
        case SiameseConfig():
            return Siamese(config, signature, device)
        case MannConfig():
            return Mann(config, signature, device)
        case CentroidConfig():
            return Centroid(config, signature, device)
        case TransferConfig():
            return Transfer(config, signature, device)
