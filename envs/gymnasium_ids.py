"""Our distributions' ids in Gymnasium's registry."""

import re

import gymnasium

NAMESPACE, VERSION = "metarl", 0


def gymnasium_id(id: str) -> str:
    """A distribution's id in Gymnasium's spelling.

    >>> gymnasium_id("cheetah-velocity-2")
    'metarl/CheetahVelocity2-v0'
    >>> gymnasium_id("metaworld-ml10+goal-shown")
    'metarl/MetaworldMl10GoalShown-v0'
    """
    words = re.findall("[A-Za-z0-9]+", id)
    return f"{NAMESPACE}/{''.join(word.capitalize() for word in words)}-v{VERSION}"


def check_gymnasium_id(id: str) -> None:
    """Checks that no other distribution's id reads the same in Gymnasium's spelling.

    Raises:
        ValueError: one does.
    """
    name = gymnasium_id(id)
    known = gymnasium.registry.get(name)
    other = id if known is None else known.kwargs.get("distribution")
    if other != id:
        raise ValueError(f"to Gymnasium, {id!r} and {other!r} are both {name}; choose another name")


def register_in_gymnasium(id: str, horizon: int) -> None:
    """Makes a distribution that `envs.make(id)` knows known to Gymnasium too, once; `horizon` in environment steps.

    Raises:
        ValueError: another distribution's id reads the same in Gymnasium's spelling.
    """
    check_gymnasium_id(id)
    if gymnasium_id(id) not in gymnasium.registry:
        gymnasium.register(
            gymnasium_id(id),
            entry_point="metarl.envs.registration:make_env",
            vector_entry_point="metarl.envs.registration:make_vector_env",
            max_episode_steps=horizon,
            kwargs={"distribution": id},
        )
