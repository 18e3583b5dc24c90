"""What is asked: tasks, the ranges they are drawn from, and the splits that are kept apart."""

from metarl.tasks.ranges import Apart, Choice, Uniform
from metarl.tasks.space import Family, TaskDistribution, TaskSpace
from metarl.tasks.task import SPLITS, Json, Score, Split, Task, content_hash

__all__ = [
    "SPLITS",
    "Apart",
    "Choice",
    "Family",
    "Json",
    "Score",
    "Split",
    "Task",
    "TaskDistribution",
    "TaskSpace",
    "Uniform",
    "content_hash",
]
