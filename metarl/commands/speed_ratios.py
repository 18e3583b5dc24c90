"""What a benchmark's raw numbers say: ratios to peers measured in the same run, as a table or against recorded ones."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import final

import msgspec

from metarl.tasks import Json

Ratios = Mapping[str, Sequence[float]]
"""How many times as fast ours is, round by round, by what is compared with whom."""
OURS = "metarl"
GUARDED = 0.7
"""The share of a recorded ratio that a guard lets pass."""
_RATES = {
    "steps_per_second": "HalfCheetah-v5",
    "sb3_ppo_steps_per_second": "Stable-Baselines3's PPO collecting HalfCheetah",
    "metaworld_steps_per_second": "Meta-World ML10",
}
"""Groups of rates, the higher the better, and what is measured."""
_PEERS = (
    "gymnasium async",
    "gymnasium sync",
    "envpool",
    "metaworld async",
    "SubprocVecEnv",
    "RecurrentPPO",
    "task loop",
    "learn2learn",
)
"""Who counts as a peer; other figures, of a part of ours or of the physics alone, depend on the number of threads."""


class _Raw(msgspec.Struct):
    """The part of a benchmark's JSON that ratios are made of."""

    steps_per_second: dict[str, list[float]] = {}
    sb3_ppo_steps_per_second: dict[str, list[float]] = {}
    metaworld_steps_per_second: dict[str, list[float]] = {}
    robots_steps_per_second: dict[str, dict[str, list[float]]] = {}
    recurrent_steps_per_second: dict[str, dict[str, list[float]]] = {}
    processor_steps_per_second: dict[str, dict[str, list[float]]] = {}
    processor_update_seconds: dict[str, dict[str, list[float]]] = {}
    meta_update_seconds: dict[str, dict[str, list[float]]] = {}
    fewshot_update_seconds: dict[str, dict[str, list[float]]] = {}
    trpo_update_seconds: dict[str, dict[str, list[float]]] = {}


def ratios(raw: Mapping[str, object]) -> dict[str, list[float]]:
    """The ratios that a benchmark's raw numbers hold.

    Raises:
        ValueError: they are not those of a benchmark.
    """
    try:
        found = msgspec.convert(dict(raw), _Raw)
    except msgspec.ValidationError as error:
        raise ValueError(f"these are no figures of a benchmark: {error}") from error
    rates = {label: getattr(found, name) for name, label in _RATES.items()}
    rates |= found.robots_steps_per_second
    rates |= found.recurrent_steps_per_second
    rates |= found.processor_steps_per_second
    ours = {
        f"{label}: {peer}": [one / other for one, other in zip(group[OURS], values, strict=True)]
        for label, group in rates.items()
        for peer, values in group.items()
        if peer in _PEERS
    }
    updates = {f"MAML's update, {label}": group for label, group in found.meta_update_seconds.items()}
    updates |= {
        f"MAML's update, {label}, processor time": group for label, group in found.processor_update_seconds.items()
    }
    updates |= {f"update, {label}": group for label, group in found.fewshot_update_seconds.items()}
    updates |= {f"MAML-TRPO's update, {label}": group for label, group in found.trpo_update_seconds.items()}
    for label, group in updates.items():
        for peer, values in group.items():
            if peer in _PEERS:
                pairs = zip(values, group[OURS], strict=True)
                ours[f"{label}: {peer}"] = [other / one for other, one in pairs]
    return ours


def summary(found: Ratios) -> dict[str, Json]:
    """Median and range of each, as JSON."""
    return {
        name: {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
        for name, values in found.items()
    }


def markdown(found: Ratios) -> str:
    """A table of the medians with their range."""
    rows = [
        f"| {name} | {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |"
        for name, values in found.items()
    ]
    return "\n".join(("| ours as a multiple of | median of the rounds, and their range |", "| --- | --- |", *rows))


@final
@dataclasses.dataclass(frozen=True)
class Shortfall:
    """A ratio that is far below what was recorded."""

    name: str
    measured: float
    recorded: float

    def __str__(self) -> str:
        """One phrase, with the numbers."""
        share = 100 * self.measured / self.recorded
        return f"{self.name}: {self.measured:.2f}, {share:.0f} % of the recorded {self.recorded:.2f}"


def shortfalls(measured: Ratios, recorded: Ratios) -> list[Shortfall]:
    """Those whose median is below `GUARDED` of the recorded median; what is not in both is not compared."""
    pairs = {
        name: (statistics.median(values), statistics.median(recorded[name]))
        for name, values in measured.items()
        if name in recorded
    }
    return [Shortfall(name, now, then) for name, (now, then) in pairs.items() if now < GUARDED * then]
