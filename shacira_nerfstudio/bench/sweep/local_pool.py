"""Runs on this machine, as many at once as there are cores, memory and cards for."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

from shacira_nerfstudio.bench import environment
from shacira_nerfstudio.bench.plan import Limits
from shacira_nerfstudio.bench.sweep.tasks import Outcome, Task, run_task

_ROUNDING = 1e-9
"""Of shares of a card that add up to one."""


class LocalPool:
    """An executor, see :class:`tasks.Executor`.

    Args:
        num_workers: At most so many runs at once; by default what resources allow.
        whole_machine: A run gets all cores, and nothing is asked about its memory.
    """

    def __init__(self, num_workers: int | None = None, *, whole_machine: bool = False) -> None:
        self._max_runs = 1 if whole_machine else num_workers
        self._whole_machine = whole_machine
        self._cpus, self._memory = environment.num_cores(), _memory_bytes()
        self._cards = [1.0] * num_cards()
        self._ended: queue.Queue[Outcome] = queue.Queue()
        self._running: dict[str, tuple[Limits, int | None]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stop = threading.Event()

    def try_submit(self, task: Task) -> bool:
        """Starts a run, or says that there is no room now. One that never finds room runs alone."""
        limits, key = task.job.limits, task.job.key
        card = self._card_for(limits)
        if self._running and not self._has_room(limits, card):
            return False
        environ = {} if self._whole_machine else _environment_of(limits, card)
        self._running[key] = limits, card
        self._take(limits, card, -1)
        task = replace(task, environ=environ)
        thread = threading.Thread(target=self._run, args=(task,), daemon=True)
        self._threads[key] = thread
        thread.start()
        return True

    def outcomes(self, timeout_s: float) -> list[Outcome]:
        """Of the runs that ended; waits so long for the first."""
        found = []
        try:
            found.append(self._ended.get(timeout=timeout_s))
            while True:
                found.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        for outcome in found:
            self._take(*self._running.pop(outcome.key), 1)
            self._threads.pop(outcome.key).join()
        return found

    def close(self) -> None:
        """Ends what runs."""
        self._stop.set()
        for thread in self._threads.values():
            thread.join()

    def _run(self, task: Task) -> None:
        try:
            outcome = run_task(task, self._stop)
        except Exception as error:  # whatever it is must not be lost with this thread
            outcome = Outcome(task.job.key, error=f"{type(error).__name__}: {error}")
        self._ended.put(outcome)

    def _card_for(self, limits: Limits) -> int | None:
        """Number of the card with the most room; None for none."""
        share = _share(limits, len(self._cards))
        if not share:
            return None
        return max(range(len(self._cards)), key=self._cards.__getitem__) if self._cards else None

    def _has_room(self, limits: Limits, card: int | None) -> bool:
        if self._max_runs is not None and len(self._running) >= self._max_runs:
            return False
        if self._whole_machine:
            return True
        share = _share(limits, len(self._cards))
        has_card = card is None or self._cards[card] + _ROUNDING >= min(share, 1.0)
        return self._cpus >= limits.cpus and self._memory >= limits.memory_gb * 1e9 and has_card

    def _take(self, limits: Limits, card: int | None, sign: int) -> None:
        self._cpus += sign * limits.cpus
        self._memory += sign * int(limits.memory_gb * 1e9)
        if card is not None:
            self._cards[card] += sign * min(_share(limits, len(self._cards)), 1.0)


def _share(limits: Limits, num_cards: int) -> float:
    return float(num_cards > 0) if limits.gpus is None else limits.gpus


def _environment_of(limits: Limits, card: int | None) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = dict.fromkeys(names, str(limits.cpus))
    visible = _visible_cards()
    name = "" if card is None else (visible[card] if visible else str(card))
    return {**threads, "CUDA_VISIBLE_DEVICES": name}


def _visible_cards() -> list[str]:
    return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]


def num_cards() -> int:
    """NVIDIA cards that this process may use; this asks no driver, as torch is never loaded
    here."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return len(_visible_cards())
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return 0
    return len(re.findall(r"^GPU \d+:", listed.stdout, re.MULTILINE))


def _memory_bytes() -> int:
    """Of the machine; without bounds where it cannot be told."""
    path = Path("/proc/meminfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 1 << 60
