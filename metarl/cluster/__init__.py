"""Playing trials on the machines of a Ray cluster: `pip install metarl-suite[ray]`.

Whatever the number of workers, and whichever of them are lost on the way, the trials are those that one process plays.
No other room needs this one: programs open it where `--workers` or `--cluster` ask for it.

    dispatch.py    who plays which share, again where a worker was lost or is slow; knows nothing of Ray
    worker.py      what a worker does, and what it must have in common with the driver
    head.py        whether the cluster's head still answers
    ray_workers.py the workers as actors of Ray
    judging.py     evaluations of few-shot learners on such workers
    collector.py   a `CollectorFactory` on such workers
"""
