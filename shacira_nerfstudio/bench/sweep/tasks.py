"""One run as executors handle it: what it needs, how it is watched, how it ended.

The same on this machine and on a node of a cluster: a process for the run, which ends when this one
does, and which is ended when it takes too long.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from shacira_nerfstudio.bench.plan import Job
from shacira_nerfstudio.bench.sweep.job_steps import ROW
from shacira_nerfstudio.bench.sweep.locks import LockedError, locked
from shacira_nerfstudio.bench.sweep.worker import FAILURE, TASK, WORKER_LOCK, end_orphans
from shacira_nerfstudio.output_files import write_file

WORKER = [sys.executable, "-m", "shacira_nerfstudio.bench.sweep.worker"]
_POLL_S = 0.5


@dataclass(frozen=True)
class Task:
    """A job and where it happens."""

    job: Job
    data: Path | None
    """The scene's folder; None for a procedural scene."""
    folder: Path
    """Gets run, export and logs."""
    scenes: Path
    """Gets procedural scenes."""
    environ: dict[str, str] = field(default_factory=dict)
    """Threads and cards that it may use."""
    worker: list[str] = field(default_factory=lambda: WORKER)
    """Command that runs what a folder says."""


@dataclass(frozen=True)
class Outcome:
    """How one try ended."""

    key: str
    row: dict[str, Any] | None = None
    error: str = ""
    is_final: bool = False
    """Whether another try would end the same."""


class Executor(Protocol):
    """Where runs happen."""

    def try_submit(self, task: Task) -> bool:
        """Starts a run, or says that there is no room now."""
        ...

    def outcomes(self, timeout_s: float) -> list[Outcome]:
        """Of the runs that ended; waits so long for the first."""
        ...

    def close(self) -> None:
        """Ends what runs."""
        ...


def run_task(task: Task, stop: threading.Event | None = None) -> Outcome:
    """Runs a job in a process of its own until it ends, or has taken too long, or is told to."""
    key, folder = task.job.key, task.folder
    folder.mkdir(parents=True, exist_ok=True)
    row = folder / ROW
    if row.exists():
        return Outcome(key, json.loads(row.read_text(encoding="utf-8")))
    (folder / FAILURE).unlink(missing_ok=True)
    data = None if task.data is None else str(task.data)
    content = {"job": asdict(task.job), "data": data, "scenes": str(task.scenes)}
    write_file(folder / TASK, json.dumps(content))
    status = _run_worker(task, stop or threading.Event())
    if row.exists():
        return Outcome(key, json.loads(row.read_text(encoding="utf-8")))
    if (folder / FAILURE).exists():
        failure = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        return Outcome(key, error=failure["error"], is_final=failure["is_final"])
    if status is None:
        error = f"took longer than {task.job.limits.minutes:g} minutes; {folder} has its logs"
        return Outcome(key, error=error, is_final=True)
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return Outcome(key, error=f"its process {how}; {folder} has its logs")


def _run_worker(task: Task, stop: threading.Event) -> int | None:
    """Exit status, negative for a signal; None if it was ended here."""
    deadline = time.monotonic() + 60 * task.job.limits.minutes
    with (task.folder / "worker.log").open("ab") as sink:
        worker = subprocess.Popen(
            [*task.worker, str(task.folder)],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **task.environ},
            start_new_session=True,
        )
        try:
            while worker.poll() is None and time.monotonic() < deadline and not stop.is_set():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(_POLL_S)
            return worker.poll()
        finally:
            if worker.poll() is None:
                _end(worker)
            assert worker.stdin is not None
            worker.stdin.close()
            with contextlib.suppress(LockedError), locked(task.folder / WORKER_LOCK):
                end_orphans(task.folder)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """With all that it started."""
    if os.name == "nt":
        worker.kill()
    else:
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def doing(folder: Path) -> str:
    """What a run does now, in a few words: the step whose log is newest, and its last line."""
    logs = [folder / f"{name}.log" for name in ("train", "export", "measure")]
    there = [(path.stat().st_mtime, path) for path in logs if path.exists()]
    if not there:
        return "starts"
    path = max(there)[1]
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 400))
        lines = file.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    idle = time.time() - path.stat().st_mtime
    silent = f" (silent for {idle / 60:.0f} min)" if idle > 120 else ""
    return f"{path.stem}: {said[-1] if said else 'starts'}{silent}"
