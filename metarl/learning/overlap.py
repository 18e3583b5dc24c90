"""Training where the next outer step's experience is collected while this one's is learned from.

    outer step n:   collect E_{n+1} with θ_n   |   θ_{n+1} = learn(θ_n, E_n)

So experience lags one step behind: E_n was played by θ_{n−1}, the behaviour policy, which is part of the state
(`State.behaviour`) and is saved with it. A run that is killed and resumed collects E_n again with the same parameters,
and goes on bit for bit. Results differ from those of a run without overlap, and only learners that weigh what other
parameters have played can be trained so (`OffPolicyLearner`): PPO's ratios do it (Schulman et al. 2017, eq. 7).
"""

import concurrent.futures
import copy
import dataclasses
import time
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from metarl.learning.protocols import Experience, ExperienceSource, OffPolicyLearner, State
from metarl.learning.training import OuterStep, metrics_of, need_finite

AnyExperience = TypeVar("AnyExperience", bound=Experience)


def overlapping_steps(
    learner: OffPolicyLearner[AnyExperience, object],
    source: ExperienceSource[OffPolicyLearner[AnyExperience, object], AnyExperience],
    state: State,
    *,
    seed: int,
    start: int,
    stop: int,
) -> Iterator[OuterStep]:
    """Outer steps `start`, …, `stop` − 1 of a run, each beside the collecting of the next.

    The arguments are those of `outer_steps`. The source collects in a thread of its own while the learner learns, and
    never while the caller has the outcome of a step: what the caller does in between may use the same simulators.

    Raises:
        RunError: a parameter is no longer finite.
    """
    behaviour = state.parameters if state.behaviour is None else state.behaviour
    collected = None
    # A module holds the parameters that it is called with while it runs: a module for each thread.
    player = copy.deepcopy(learner)
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="metarl-collect") as collecting:
        for step in range(start, stop):
            began = time.perf_counter()
            experience = collected
            if experience is None:
                experience = source.collect(player, dataclasses.replace(state, parameters=behaviour), seed, step)
            gathered = metrics_of(experience, step)
            last = step + 1 == stop
            ahead = None if last else collecting.submit(source.collect, player, state, seed, step + 1)
            learned, metrics = learner.off_policy_meta_step(
                state, behaviour, experience, np.random.default_rng([seed, step])
            )
            need_finite(learned, step + 1)
            collected = None if ahead is None else ahead.result()
            behaviour, state = state.parameters, dataclasses.replace(learned, behaviour=state.parameters)
            yield OuterStep(step + 1, state, {**gathered, **metrics}, time.perf_counter() - began)
