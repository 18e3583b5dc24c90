"""What is asked: tasks, the ranges they are drawn from, and the splits that are kept apart."""

from metarl.tasks.ranges import Choice, Constraint, LinearInequality, MaxDistance, MinDistance, Range, Uniform
from metarl.tasks.space import Family, TaskDistribution, TaskSpace
from metarl.tasks.task import SPLITS, Json, Scalar, Score, Split, Task, content_hash

__all__ = [
    "SPLITS",
    "Choice",
    "Constraint",
    "Family",
    "Json",
    "LinearInequality",
    "MaxDistance",
    "MinDistance",
    "Range",
    "Scalar",
    "Score",
    "Split",
    "Task",
    "TaskDistribution",
    "TaskSpace",
    "Uniform",
    "content_hash",
]
