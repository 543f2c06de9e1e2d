"""Where a measurement was made: code, date and machine, without names of people or hosts."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import shacira_nerfstudio


def commit() -> str:
    """Commit of the running code, ``+changes`` if it was edited since; outside git, the version."""
    folder = Path(shacira_nerfstudio.__file__).parent
    name = _git(folder, "rev-parse", "--short=12", "HEAD")
    if name is None:
        return f"version {shacira_nerfstudio.__version__}"
    edited = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return name + ("+changes" if edited else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> str:
    """Processor, cores that this process may use, operating system."""
    system, cores = platform.system(), num_cores()
    count = f"{cores} core{'s' if cores != 1 else ''}"
    return f"{_processor()}, {count}, {system} {platform.machine()}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Of Python and the packages that decide speed and results."""
    packages = {name: metadata.version(name) for name in ("nerfstudio", "numba", "numpy", "torch")}
    return {"python": platform.python_version(), **packages}


def date() -> str:
    """Now, as ISO 8601 in UTC, to the second."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
