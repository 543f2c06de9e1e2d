"""Runs a plan: train, export, decode the file, render all test views, one JSON line per job.

Each step of a job is a process of its own, so that memory, crashes and threads are its own, too. A
job that is already in the results is skipped; one that fails is reported, and the others go on.
Steps that a job had finished before it failed are not repeated by the next call.

This process never loads torch: the peak memory that the system reports of a child is never below
what its parent held when it was started.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shacira_nerfstudio.bench import environment
from shacira_nerfstudio.bench.plan import Job, load_plan
from shacira_nerfstudio.bench.report.rows import load_rows
from shacira_nerfstudio.plugin.presets import check_options, preset_flags, save_preset
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

_TAIL_LINES = 20
"""Of a failed step's log, in the report."""


class JobError(RuntimeError):
    """A step of a job failed; the message ends with the end of its log."""


@dataclass(frozen=True)
class Step:
    """One finished step."""

    seconds: float
    peak_rss_mb: float | None
    commit: str


def run_plan(
    path: Path,
    output: Path,
    *,
    data_root: Path | None = None,
    work_dir: Path = Path("bench_work"),
    say: Callable[[str], None] = print,
) -> list[Job]:
    """Runs the jobs of a plan that the results do not have yet.

    Args:
        output: JSON lines; new rows are appended.
        data_root: Folder of the scenes' folders.
        work_dir: Gets runs, exports and logs, in a folder per job.

    Returns:
        The jobs that failed.
    """
    jobs = load_plan(path)
    check_jobs(jobs, path, data_root)
    done = keys_of(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, job in enumerate(jobs, start=1):
        head = f"[{number}/{len(jobs)}] {job.title} ({job.key})"
        if job.key in done:
            say(f"{head}: there already")
            continue
        say(head)
        try:
            row = run_job(job, data_root=data_root, work_dir=work_dir)
        except JobError as error:
            say(f"{head}: failed: {error}")
            failed.append(job)
            continue
        row["plan"] = path.name
        with output.open("a", encoding="utf-8") as sink:
            sink.write(json.dumps(row) + "\n")
        say(f"{head}: {row['psnr']:.2f} dB, {row['bytes']:,} bytes, {row['train_seconds']:.0f} s")
    return failed


def keys_of(output: Path) -> set[str]:
    """Jobs whose results are there."""
    return {row["key"] for row in load_rows([output])} if output.exists() else set()


def check_jobs(jobs: list[Job], where: Path, data_root: Path | None) -> None:
    """Raises ValueError for what would only show hours later: options and folders that are not."""
    named = [(job.preset_values(), f"{where}: {job.title}") for job in jobs]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        other.submit(_check_options, named).result()
    for job in jobs:
        if job.demo_scene is not None:
            continue
        if data_root is None:
            raise ValueError(f"{where}: expected --data-root, which holds the scene {job.scene}")
        if not (data_root / job.scene).is_dir():
            raise ValueError(f"{where}: expected a folder {data_root / job.scene}, found none")


def _check_options(named: list[tuple[dict[str, Any], str]]) -> None:
    """In a process of its own, because it loads the host."""
    warnings.simplefilter("ignore")
    for values, where in named:
        check_options(values, where)


def run_job(job: Job, *, data_root: Path | None, work_dir: Path) -> dict[str, Any]:
    """Trains, exports and measures; returns the row of the results.

    Raises:
        JobError: a step failed.
    """
    folder = work_dir.resolve() / job.key
    folder.mkdir(parents=True, exist_ok=True)
    data = _scene_folder(job, data_root, work_dir.resolve())
    run = folder / "train" / job.scene / "shacira" / "run" / "config.yml"
    steps = {"train": _step(folder, "train", _train_command(job, folder, data), [run])}
    measure = [*_python("bench.rate_distortion"), "--run", str(run)]
    figures = folder / "figures.json"
    if not job.is_baseline:
        export = folder / "export"
        command = [*_python("cli.main"), "export", "--load-config", str(run)]
        command += ["--output-dir", str(export)]
        made = [export / "scene.shacira", export / "config.yml"]
        steps["export"] = _step(folder, "export", command, made)
        measure += ["--export", str(export / "config.yml")]
    steps["measure"] = _step(folder, "measure", [*measure, "--output", str(figures)], [figures])
    return _row(job, steps, json.loads(figures.read_text(encoding="utf-8")))


def _scene_folder(job: Job, data_root: Path | None, work_dir: Path) -> Path:
    if job.demo_scene is None:
        assert data_root is not None
        return data_root.resolve() / job.scene
    name = "-".join(f"{key}{value}" for key, value in sorted(job.demo_scene.items()))
    folder = work_dir / "scenes" / f"{job.scene}-{name}"
    if not (folder / "complete").exists():
        sizes = job.demo_scene
        write_demo_scene(
            folder / "data", num_views=sizes["num_views"], size=sizes["size"], seed=sizes["seed"]
        )
        (folder / "complete").touch()
    return folder / "data"


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", f"shacira_nerfstudio.{module}"]


def _train_command(job: Job, folder: Path, data: Path) -> list[str]:
    """`shacira train` with all settings of the job in one preset."""
    preset = folder / "preset.yaml"
    save_preset(preset, job.preset_values())
    command = [*_python("cli.main"), "train", str(preset), "--vis", "tensorboard"]
    command += ["--output-dir", str(folder / "train"), "--experiment-name", job.scene]
    command += ["--timestamp", "run", job.dataparser]
    return [*command, *preset_flags(job.dataparser_settings), "--data", str(data)]


def _step(folder: Path, name: str, command: list[str], made: list[Path]) -> Step:
    """Runs a step, or returns what it measured when an earlier call ran it.

    Args:
        made: What the step leaves behind.
    """
    record, log = folder / f"{name}.json", folder / f"{name}.log"
    if record.exists() and all(path.exists() for path in made):
        return Step(**json.loads(record.read_text(encoding="utf-8")))
    record.unlink(missing_ok=True)
    begin, commit = time.perf_counter(), environment.commit()
    status, peak = _run(command, log)
    seconds = time.perf_counter() - begin
    missing = [path.name for path in made if not path.exists()]
    if status or missing:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        reason = f"status {status}" if status else f"no {', '.join(missing)}"
        raise JobError(f"{name} ended with {reason}; the end of {log}:\n" + "\n".join(lines))
    step = Step(seconds, peak, commit)
    record.write_text(json.dumps(asdict(step)), encoding="utf-8")
    return step


def _run(command: list[str], log: Path) -> tuple[int, float | None]:
    """Exit status and peak resident memory in MB (1e6 bytes) of a command; its output goes to a
    log."""
    environ = {**os.environ, "PYTHONWARNINGS": "ignore", "COLUMNS": "120", "TERM": "dumb"}
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environ)
        try:
            if not hasattr(os, "wait4"):
                return process.wait(), None
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.terminate()
            raise
    unit = 1 if sys.platform == "darwin" else 1024
    return process.returncode, usage.ru_maxrss * unit / 1e6


def _row(job: Job, steps: dict[str, Step], figures: dict[str, Any]) -> dict[str, Any]:
    peaks = {name: step.peak_rss_mb for name, step in steps.items() if step.peak_rss_mb is not None}
    row = {
        "key": job.key,
        "scene": job.scene,
        "method": job.method,
        "ablation": job.ablation,
        "preset": job.preset,
        "rate_lambda": job.rate_lambda,
        "seed": job.seed,
        "steps": job.steps,
        **figures,
        "train_seconds": steps["train"].seconds,
        "peak_rss_mb": max(peaks.values()) if peaks else None,
        "peak_rss_mb_by_step": peaks,
        "commit": steps["train"].commit,
        "measured_commit": steps["measure"].commit,
        "date": environment.date(),
        "machine": environment.machine(),
        "versions": environment.versions(),
        "dataparser": job.dataparser,
        "dataparser_settings": job.dataparser_settings,
        "downscale": job.downscale,
        "settings": job.settings,
    }
    # Seconds, decibels and megabytes to four decimals; a small rate stays what it is.
    return {name: round(v, 4) if isinstance(v, float) and v > 1 else v for name, v in row.items()}
