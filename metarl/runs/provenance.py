"""What a run ran in: versions, thread count, git revision."""

import dataclasses
import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import final

from metarl.tasks import Json

PACKAGES = ("metarl-suite", "torch", "numpy", "mujoco", "gymnasium")


@final
@dataclasses.dataclass(frozen=True)
class Environment:
    """What should not change results, but could in the last bit."""

    threads: int
    versions: Mapping[str, str]
    """Of Python and the packages that compute; `none` where a package is not installed."""
    revision: str
    """The git commit of the checkout that metarl is imported from, or `none`."""
    dirty: bool
    """Tracked files of the checkout differed from that commit."""

    def differences(self, other: "Environment") -> tuple[str, ...]:
        """What differs, one phrase each: `threads 2 before, 4 now`."""
        now, before = self._flat(), other._flat()
        return tuple(
            f"{name} {before.get(name)} before, {now.get(name)} now"
            for name in sorted(now.keys() | before.keys())
            if now.get(name) != before.get(name)
        )

    def _flat(self) -> dict[str, str]:
        revision = f"{self.revision[:12]}{' with changes' if self.dirty else ''}"
        return {**self.versions, "threads": str(self.threads), "git revision": revision}

    def to_json(self) -> dict[str, Json]:
        return {
            "threads": self.threads,
            "versions": dict(self.versions),
            "revision": self.revision,
            "dirty": self.dirty,
        }


def environment(threads: int) -> Environment:
    """What this process runs in."""
    revision, dirty = _revision(Path(__file__).resolve().parent)
    return Environment(threads, _versions(), revision, dirty)


@functools.cache
def _versions() -> Mapping[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    return versions


@functools.cache
def _revision(folder: Path) -> tuple[str, bool]:
    """Commit and dirtiness of the checkout this module is tracked in; an installed copy is in nobody's checkout."""
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return "none", False
    return _git(folder, "rev-parse", "HEAD") or "none", bool(_git(folder, "status", "--porcelain", "-uno"))


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, no checkout, or git refuses."""
    # GIT_DIR and its kin, set in a git hook, would name another checkout.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=variables | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
