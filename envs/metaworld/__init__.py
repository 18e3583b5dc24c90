"""Meta-World (Yu et al. 2020, arXiv 1910.10897; version 3) as task distributions.

goals.py                  what each class draws at random, and the benchmarks' lists of classes
distribution.py           ids, splits, and the distributions made of them
metaworld_api.py          the only module that imports metaworld
fast_math.py              binds metaworld's functions to faster ones, equal to the bit; and how to do without
known_classes.py          classes whose steps are written out, as long as metaworld's text is the one they were made of
scalar_rewards.py         their rewards, on numbers
scalars.py                metaworld's arithmetic on numbers
arm.py                    where the robot is in a simulation
class_simulator.py        one class's simulation, playing as many sub-environments as are wanted
simulator.py              sub-environments in this process, and as worker processes play them
experts.py                metaworld's scripted policies
official_evaluation.py    our agents in metaworld's own evaluation
"""

from metarl.envs.metaworld.distribution import CUSTOM, IDS, PREFIX, metaworld

__all__ = ["CUSTOM", "IDS", "PREFIX", "metaworld"]
