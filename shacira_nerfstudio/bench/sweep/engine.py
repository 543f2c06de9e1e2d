"""Runs a plan: every job once, whatever fails, and whoever is killed meanwhile.

A job that is in the results already is skipped; one that fails is started again a few times, then
reported, and the others go on. The next call does what is left.
"""

from __future__ import annotations

import json
import multiprocessing
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shacira_nerfstudio.bench.plan import Job, load_plan
from shacira_nerfstudio.bench.sweep.job_steps import ROW
from shacira_nerfstudio.bench.sweep.local_pool import LocalPool
from shacira_nerfstudio.bench.sweep.results import Results, open_results
from shacira_nerfstudio.bench.sweep.tasks import Executor, Outcome, Task
from shacira_nerfstudio.plugin.presets import check_options

_LOOK_S = 0.5
"""Between two looks at what runs."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Failure:
    """A job without a result, and why."""

    job: Job
    error: str


@dataclass
class Progress:
    """Of a sweep, for whoever shows it."""

    jobs: list[Job]
    work_dir: Path
    waiting: deque[Job] = field(default_factory=deque)
    running: dict[str, float] = field(default_factory=dict)
    """Keys of jobs, and since when, on the clock of ``time.monotonic``."""
    num_done: int = 0
    """With those that were there before."""
    failures: list[Failure] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)

    def folder(self, key: str) -> Path:
        """Of a job: its run, its export, its logs."""
        return self.work_dir / key


def run_plan(
    path: Path,
    output: Path,
    *,
    data_root: Path | None = None,
    work_dir: Path = Path("bench_work"),
    executor: Executor | None = None,
    retries: int | None = None,
    say: Say = print,
    show: Callable[[Progress], None] = lambda progress: None,
) -> list[Failure]:
    """Runs the jobs of a plan that the results do not have yet.

    Args:
        output: JSON lines; new rows are appended.
        data_root: Folder of the scenes' folders.
        work_dir: Gets runs, exports and logs, in a folder per job.
        executor: By default one run after the other, each with the whole machine.
        retries: Instead of what the plan says.
        show: Called every now and then with how far it is.
    """
    jobs = load_plan(path, data_root)
    check_jobs(jobs, path, data_root)
    executor = executor or LocalPool(whole_machine=True)
    try:
        with open_results(output) as results:
            progress = Progress(jobs, work_dir.resolve())
            sweep = _Sweep(progress, results, data_root, retries, path.name, say)
            sweep.run(executor, show)
    finally:
        executor.close()
    return progress.failures


def check_jobs(jobs: list[Job], where: Path, data_root: Path | None) -> None:
    """Raises ValueError for what would only show hours later: options that are none, and data that
    nobody said the place of."""
    titles: dict[str, tuple[dict[str, Any], str]] = {}
    for job in jobs:
        values = job.preset_values()
        titles.setdefault(repr(sorted(values.items())), (values, f"{where}: {job.title}"))
        if job.demo_scene is None and data_root is None:
            raise ValueError(f"{where}: expected --data-root, which holds the scene {job.scene}")
    if data_root is not None and not data_root.is_dir():
        raise ValueError(f"expected a folder {data_root} as --data-root, found none")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        other.submit(_check_options, list(titles.values())).result()


def _check_options(named: list[tuple[dict[str, Any], str]]) -> None:
    """In a process of its own, because it loads the host."""
    warnings.simplefilter("ignore")
    for values, where in named:
        check_options(values, where)


@dataclass
class _Sweep:
    """The jobs of one call."""

    progress: Progress
    results: Results
    data_root: Path | None
    retries: int | None
    plan: str
    say: Say

    def run(self, executor: Executor, show: Callable[[Progress], None]) -> None:
        """Until every job has ended."""
        progress = self.progress
        for job in progress.jobs:
            if job.key in self.results.keys:
                progress.num_done += 1
                self.say(f"{self._head(job)}: there already")
                continue
            progress.waiting.append(job)
            row = progress.folder(job.key) / ROW
            if row.exists():  # whoever ran it was killed before the results had it
                progress.running[progress.waiting.pop().key] = time.monotonic()
                content = json.loads(row.read_text(encoding="utf-8"))
                self._finish(Outcome(job.key, content))
        while progress.waiting or progress.running:
            while progress.waiting and executor.try_submit(self._task(progress.waiting[0])):
                job = progress.waiting.popleft()
                progress.running[job.key] = time.monotonic()
                self.say(self._head(job))
            show(progress)
            for outcome in executor.outcomes(_LOOK_S):
                self._finish(outcome)
        show(progress)

    def _task(self, job: Job) -> Task:
        root = None if job.demo_scene is not None else self.data_root
        work_dir = self.progress.work_dir
        return Task(
            job,
            data=None if root is None else root.resolve() / job.scene,
            folder=self.progress.folder(job.key),
            scenes=work_dir / "scenes",
        )

    def _finish(self, outcome: Outcome) -> None:
        progress = self.progress
        del progress.running[outcome.key]
        job = next(job for job in progress.jobs if job.key == outcome.key)
        head = self._head(job)
        if outcome.row is not None:
            row = {**outcome.row, "plan": self.plan}
            self.results.append(row)
            progress.num_done += 1
            figures = f"{row['psnr']:.2f} dB, {row['bytes']:,} bytes, {row['train_seconds']:.0f} s"
            self.say(f"{head}: {figures}")
            return
        progress.tries[job.key] += 1
        allowed = job.limits.retries if self.retries is None else self.retries
        if outcome.is_final or progress.tries[job.key] > allowed:
            self.say(f"{head}: failed: {outcome.error}")
            progress.failures.append(Failure(job, outcome.error))
            return
        self.say(f"{head}: starts again: {outcome.error.splitlines()[0]}")
        progress.waiting.append(job)

    def _head(self, job: Job) -> str:
        number = self.progress.jobs.index(job) + 1
        return f"[{number}/{len(self.progress.jobs)}] {job.title} ({job.key})"
