"""One run: train, export, decode the file, render all test views; ends with the row of the results.

Each step is a process of its own, so that memory, crashes and threads are its own, too. What is
finished is written down at once and not done again: a step by ``STEP.json``, the whole by
``row.json``. Training that was killed goes on from its newest whole checkpoint.

This process never loads torch: the peak memory that the system reports of a child is never below
what its parent held when it was started.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shacira_nerfstudio.bench import environment
from shacira_nerfstudio.bench.plan import Job
from shacira_nerfstudio.bench.sweep.locks import locked
from shacira_nerfstudio.output_files import write_file
from shacira_nerfstudio.plugin.presets import preset_flags, save_preset
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

ROW = "row.json"
_TAIL_LINES = 20
"""Of a failed step's log, in the report."""
WRONG_INPUT = 2
"""Exit status of our commands for what no second try would change."""
_SCENE_WAIT_S = 3600.0
"""For another run to write the procedural scene that both take."""


class JobError(RuntimeError):
    """A step of a job failed; the message ends with the end of its log."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final
        """Whether another try would end the same."""


@dataclass(frozen=True)
class Step:
    """One finished step."""

    seconds: float
    peak_rss_mb: float | None
    commit: str
    note: str = ""


def run_job(
    job: Job, *, data: Path | None, folder: Path, scenes: Path, handles: Sequence[int] = ()
) -> dict[str, Any]:
    """Trains, exports and measures what is not done yet; returns the row of the results.

    Args:
        data: The scene's folder; None for a procedural scene.
        folder: Gets run, export and logs.
        scenes: Gets procedural scenes.
        handles: Of files that the steps' processes keep open.

    Raises:
        JobError: a step failed.
    """
    if (folder / ROW).exists():
        return json.loads((folder / ROW).read_text(encoding="utf-8"))
    data = _demo_scene(job, scenes) if data is None else data
    if not data.is_dir():
        raise JobError(f"expected a folder {data}, found none", is_final=True)
    run = folder / "train" / job.scene / "shacira" / "run" / "config.yml"
    measure = [*_python("bench.rate_distortion"), "--run", str(run)]
    steps, figures = {"train": _train(job, folder, data, run, handles)}, folder / "figures.json"
    if not job.is_baseline:
        export = folder / "export"
        command = [*_python("cli.main"), "export", "--load-config", str(run)]
        command += ["--output-dir", str(export)]
        made = [export / "scene.shacira", export / "config.yml"]
        steps["export"] = run_step(folder, "export", command, made, handles=handles)
        measure += ["--export", str(export / "config.yml")]
    measure += ["--output", str(figures)]
    steps["measure"] = run_step(folder, "measure", measure, [figures], handles=handles)
    row = _row(job, steps, json.loads(figures.read_text(encoding="utf-8")))
    write_file(folder / ROW, json.dumps(row))
    return row


def _demo_scene(job: Job, scenes: Path) -> Path:
    """Several runs may want the same at once: the first writes it."""
    sizes = job.demo_scene
    assert sizes is not None
    name = "-".join(f"{key}{value}" for key, value in sorted(sizes.items()))
    folder = scenes / f"{job.scene.replace('/', '-')}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", wait_s=_SCENE_WAIT_S):
        if not (folder / "complete").exists():
            write_demo_scene(
                folder / "data",
                num_views=sizes["num_views"],
                size=sizes["size"],
                seed=sizes["seed"],
            )
            (folder / "complete").touch()
    return folder / "data"


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", f"shacira_nerfstudio.{module}"]


def _train(job: Job, folder: Path, data: Path, run: Path, handles: Sequence[int]) -> Step:
    """`shacira train` with all settings of the job in one preset, from the newest checkpoint on."""
    preset = folder / "preset.yaml"
    save_preset(preset, job.preset_values())
    command = [*_python("cli.main"), "train", str(preset), "--vis", "tensorboard"]
    command += ["--output-dir", str(folder / "train"), "--experiment-name", job.scene]
    command += ["--timestamp", "run"]
    note, checkpoints = "", run.parent / "nerfstudio_models"
    last = None if (folder / "train.json").exists() else newest_checkpoint(checkpoints)
    if last is not None:
        note = f"resumed from step {last + 1}"
        if last + 1 == _planned_steps(run):  # it was killed after its last step
            record = Step(0.0, None, environment.commit(), "killed after training, before its end")
            write_file(folder / "train.json", json.dumps(asdict(record)))
        command += ["--load-dir", str(checkpoints)]
    command += [job.dataparser, *preset_flags(job.dataparser_settings), "--data", str(data)]
    return run_step(folder, "train", command, [run], handles=handles, note=note)


def newest_checkpoint(folder: Path) -> int | None:
    """Step of the newest whole checkpoint; those that a killed process did not finish are
    removed."""
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        try:
            with zipfile.ZipFile(path) as archive:
                is_whole = archive.testzip() is None
        except zipfile.BadZipFile:
            is_whole = False
        if is_whole:
            return int(path.stem.partition("-")[2])
        path.unlink()
    return None


def _planned_steps(config: Path) -> int | None:
    """Of the whole run, as its configuration says."""
    text = config.read_text(encoding="utf-8") if config.exists() else ""
    found = re.search(r"^max_num_iterations: (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def run_step(
    folder: Path,
    name: str,
    command: list[str],
    made: list[Path],
    *,
    handles: Sequence[int] = (),
    note: str = "",
) -> Step:
    """Runs a step, or returns what it measured when an earlier call ran it.

    Args:
        made: What the step leaves behind.

    Raises:
        JobError: it ended with another status than 0, or left something out.
    """
    record, log = folder / f"{name}.json", folder / f"{name}.log"
    if record.exists() and all(path.exists() for path in made):
        return Step(**json.loads(record.read_text(encoding="utf-8")))
    record.unlink(missing_ok=True)
    begin, commit = time.perf_counter(), environment.commit()
    status, peak = run_logged(command, log, handles)
    seconds = time.perf_counter() - begin
    missing = [path.name for path in made if not path.exists()]
    if status or missing:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        reason = f"status {status}" if status else f"no {', '.join(missing)}"
        message = f"{name} ended with {reason}; the end of {log}:\n" + "\n".join(lines)
        raise JobError(message, is_final=status == WRONG_INPUT)
    step = Step(seconds, peak, commit, note)
    write_file(record, json.dumps(asdict(step)))
    return step


def run_logged(
    command: list[str], log: Path, handles: Sequence[int] = ()
) -> tuple[int, float | None]:
    """Exit status and peak resident memory in MB (1e6 bytes) of a command; its output is added to a
    log."""
    environ = {**os.environ, "PYTHONWARNINGS": "ignore", "COLUMNS": "120", "TERM": "dumb"}
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environ,
            pass_fds=handles,
        )
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
    trained_steps = figures.pop("trained_steps", 0)
    row = {
        "key": job.key,
        "scene": job.scene,
        "method": job.method,
        "ablation": job.ablation,
        "preset": job.preset,
        "rate_lambda": job.rate_lambda,
        "seed": job.seed,
        "steps": job.steps or trained_steps,
        **figures,
        "train_seconds": steps["train"].seconds,
        **({"note": steps["train"].note} if steps["train"].note else {}),
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
