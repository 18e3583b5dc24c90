"""Meta-World (Yu et al. 2020, arXiv 1910.10897; version 3) as task distributions.

goals.py          what each class draws at random, and the benchmarks' lists of classes
distribution.py   ids, splits, and the distributions made of them
stock.py          the only module that imports metaworld
quick.py          metaworld's arithmetic on single numbers, several times faster and equal to the bit
player.py         one class's simulation, playing as many sub-environments as are wanted
simulator.py      sub-environments in this process
workers.py        sub-environments in worker processes, through shared memory
worker.py         what a worker process runs
"""

from metarl.envs.metaworld.distribution import CUSTOM, IDS, PREFIX, metaworld

__all__ = ["CUSTOM", "IDS", "PREFIX", "metaworld"]
