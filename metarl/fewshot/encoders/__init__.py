"""Encoders: examples in, features out. Separate from the learners, so that images, tables and text can come.

`register("mine", MyEncoder)` adds one; every learner's options take it as `encoder`.
"""

from metarl.fewshot.encoders.conv4 import Conv4Config, for_comparison, for_second_order, scaled_for_comparison
from metarl.fewshot.encoders.encoder import Encoded, Encoder, EncoderConfig, LayeredEncoder, Statistics
from metarl.fewshot.encoders.mlp import MlpConfig
from metarl.fewshot.encoders.module import ModuleEncoder
from metarl.fewshot.encoders.projection import ProjectionConfig
from metarl.fewshot.encoders.registry import ENCODERS, ModuleConfig, build, default_options, id_of, register
from metarl.fewshot.encoders.standardised import STANDARD, Standardised

__all__ = [
    "ENCODERS",
    "STANDARD",
    "Conv4Config",
    "Encoded",
    "Encoder",
    "EncoderConfig",
    "LayeredEncoder",
    "MlpConfig",
    "ModuleConfig",
    "ModuleEncoder",
    "ProjectionConfig",
    "Standardised",
    "Statistics",
    "build",
    "default_options",
    "for_comparison",
    "for_second_order",
    "id_of",
    "register",
    "scaled_for_comparison",
]
