"""Tables 1 and 2 of the RL² paper, bandits and random MDPs, played again: `rl2_tables.py --bandits 5x10 --mdps 10 25`.

A row for each classical algorithm and for each agent whose run is named: `rl2_tables.py runs/bandit --bandits 5x10`.

How long it takes: `--bandits 5x10` 13 s of a processor's time, on 1,000 tasks.
"""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl import checks
from metarl.commands.classical_tables import Row, bandit_table, mdp_table
from metarl.commands.options import TrustOptions, check_output, parse, usage
from metarl.errors import UsageError
from metarl.runs import provenance
from metarl.runs.command import command
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.trained import TrainedAgent, load_agent
from metarl.tasks import Json


@dataclasses.dataclass(frozen=True)
class TablesOptions:
    """Which lines of the tables, and who plays."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of runs: an agent is in the lines that it was trained for."""
    bandits: tuple[str, ...] = ()
    """Lines of table 1, arms × pulls: 5x10 10x100."""
    mdps: tuple[int, ...] = ()
    """Lines of table 2, episodes: 10 25."""
    num_tasks: int = 1000
    """Bandits, and MDPs, that everything plays."""
    seed: int = 0
    """Decides the tasks, their rewards and the algorithms' draws."""
    output: Path | None = None
    """Also write the rows to this JSON file."""
    trust: TrustOptions = TrustOptions()

    def __post_init__(self) -> None:
        if not self.bandits and not self.mdps:
            raise ValueError("name a line at least: --bandits 5x10, --mdps 10")
        if self.num_tasks < 2:
            raise ValueError(f"--num-tasks must be at least 2, or there is no interval; got {self.num_tasks}")
        if min(self.mdps, default=1) < 1:
            raise ValueError(f"--mdps are numbers of episodes from 1, got {min(self.mdps)}")
        if self.output is not None:
            check_output(self.output)
        checks.seed(self.seed)
        _ = self.sizes

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Arms and pulls of each line of table 1.

        Raises:
            ValueError: one is not written so.
        """
        sizes: list[tuple[int, int]] = []
        for line in self.bandits:
            match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", line)
            if match is None:
                raise ValueError(f"--bandits are arms x pulls, such as 5x10; got {line!r}")
            sizes.append((int(match[1]), int(match[2])))
        return tuple(sizes)


def program(arguments: Sequence[str], name: str) -> None:
    """Plays, prints and writes."""
    options = parse(TablesOptions, arguments, name, __doc__)
    agents = [load_agent(folder, trust_code=options.trust.trust_code) for folder in options.runs]
    for agent in agents:
        if not (_in_mdps(agent, options.mdps) or any(_in_bandits(agent, *size) for size in options.sizes)):
            raise UsageError(f"{agent.run.folder} was trained on {agent.dist.id}, for no line that is asked for")
    rows: list[Row] = []
    with usage():
        for size in options.sizes:
            own = [agent for agent in agents if _in_bandits(agent, *size)]
            rows += _shown(bandit_table(*size, options.num_tasks, options.seed, agents=own))
        if options.mdps:
            own = [agent for agent in agents if _in_mdps(agent, options.mdps)]
            rows += _shown(mdp_table(options.mdps, options.num_tasks, seed=options.seed, agents=own))
    if options.output is not None:
        content: dict[str, Json] = {
            "command": shlex.join([*name.split(), *arguments]),
            "environment": provenance.environment(1).to_json(),
            "runs": [dataclasses.asdict(agent.ref) | {"command": command(agent.run)} for agent in agents],
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        write_atomically(options.output, encode_json(content))
        print(f"written to {options.output}")


def _in_bandits(agent: TrainedAgent, arms: int, pulls: int) -> bool:
    physics = agent.dist.physics
    return (physics.get("body"), physics.get("arms"), agent.dist.horizon) == ("bandit", arms, pulls)


def _in_mdps(agent: TrainedAgent, episodes: Sequence[int]) -> bool:
    return agent.dist.physics.get("body") == "mdp" and agent.agent.protocol.num_adaptations + 1 in episodes


def _shown(rows: Sequence[Row]) -> Sequence[Row]:
    print(*rows, sep="\n", flush=True)
    return rows
