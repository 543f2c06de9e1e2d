"""The process of one run; started and watched by :mod:`tasks`.

    python -m shacira_nerfstudio.bench.sweep.worker FOLDER < what its parent holds open

FOLDER has ``task.json``. It ends with all that it started as soon as standard input ends, which is
when the process that asked for the run has ended, however that was.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from shacira_nerfstudio.bench.plan import job_of
from shacira_nerfstudio.bench.sweep.job_steps import JobError, run_job
from shacira_nerfstudio.bench.sweep.locks import LockedError, is_locked, locked
from shacira_nerfstudio.output_files import write_file

TASK, FAILURE = "task.json", "failure.json"
WORKER_LOCK, _STEPS_LOCK, _GROUP = "worker.lock", "steps.lock", "group.json"
_WAIT_S = 30.0
"""For the processes of an earlier try to end."""


def end_orphans(folder: Path) -> None:
    """Kills the steps that are left of a worker which was killed itself, and waits for their end;
    to be called by whoever holds the worker's lock. While one of them lives it holds the other
    lock, so that the number of the group is still theirs.

    Raises:
        LockedError: they did not end, as those of another machine.
    """
    group = folder / _GROUP
    if is_locked(folder / _STEPS_LOCK) and group.exists():
        content = json.loads(group.read_text(encoding="utf-8"))
        if content["host"] == socket.gethostname():
            with contextlib.suppress(ProcessLookupError):  # they have ended meanwhile
                os.killpg(content["group"], signal.SIGKILL)
        with locked(folder / _STEPS_LOCK, wait_s=_WAIT_S):
            pass


def main() -> int:
    """Runs what the folder says; a failure is left there as JSON."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task = json.loads((folder / TASK).read_text(encoding="utf-8"))
    try:
        with locked(folder / WORKER_LOCK, wait_s=_WAIT_S):
            end_orphans(folder)
            with locked(folder / _STEPS_LOCK, wait_s=_WAIT_S) as handle:
                own = {"group": os.getpgid(0), "host": socket.gethostname()}
                write_file(folder / _GROUP, json.dumps(own))
                run_job(
                    job_of(task["job"]),
                    data=None if task["data"] is None else Path(task["data"]),
                    folder=folder,
                    scenes=Path(task["scenes"]),
                    handles=[handle] if os.name != "nt" else [],
                )
    except (JobError, LockedError, OSError, ValueError) as error:
        is_final = isinstance(error, JobError) and error.is_final
        content = {"error": str(error), "is_final": is_final}
        write_file(folder / FAILURE, json.dumps(content))
        return 1
    return 0


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1 << 10):
        pass
    if os.name != "nt" and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
