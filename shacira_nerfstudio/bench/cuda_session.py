"""All that has to be run on a machine with an NVIDIA card, in one go of less than half an hour.

Such a machine is often lent for a short time. Each stage is a process of its own with a limit of
its own, and its row is written as soon as it ends: whatever fails or takes too long loses nothing
of the others, and a call that goes on later skips what is done. This process never loads torch.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shacira_nerfstudio.bench import environment
from shacira_nerfstudio.bench.scene_folders import guess_dataparser

SESSION_MINUTES = 28.0
LEGO_STEPS = 20_000
_TAIL_LINES = 30
_NCU_STEPS = 60
"""Before the launches that ncu looks at."""
_NCU_METRICS = (
    "Duration",
    "Compute (SM) Throughput",
    "Memory Throughput",
    "DRAM Throughput",
    "Achieved Occupancy",
    "Registers Per Thread",
)
_PACKAGE = __name__.partition(".")[0]
_WORKER = [sys.executable, "-m", f"{_PACKAGE}.bench.throughput.worker"]
_SHACIRA = [sys.executable, "-m", f"{_PACKAGE}.cli.main"]
Say = Callable[[str], None]


class StageError(RuntimeError):
    """A stage failed, or was not done in time."""


@dataclass(frozen=True)
class Session:
    """Where things are."""

    data_root: Path
    """Holds lego, bear and fox."""
    work_dir: Path
    """Gets logs, runs and files."""
    gpu: str
    deadline: float
    """On the clock of :func:`time.monotonic`, for the stage that runs."""

    def run(
        self, name: str, command: Sequence[str], *, environ: dict[str, str] | None = None
    ) -> str:
        """Runs a command until the deadline and returns what it printed, which is kept as a log.

        Raises:
            StageError: it failed or was ended; with the end of what it printed.
        """
        log = self.work_dir / f"{name}.log"
        variables = {**os.environ, "PYTHONWARNINGS": "ignore", "TERM": "dumb", "COLUMNS": "120"}
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**variables, **(environ or {})},
                start_new_session=True,
            )
            try:
                status = process.wait(max(self.deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                status = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        text = log.read_text(encoding="utf-8", errors="replace")
        if status != 0:
            reason = "took too long" if status is None else f"ended with status {status}"
            tail = "\n".join(text.splitlines()[-_TAIL_LINES:])
            raise StageError(f"{name} {reason}; the end of {log}:\n{tail}")
        return text

    def task(self, name: str, **arguments: Any) -> dict[str, Any]:
        """What a task of :mod:`shacira_nerfstudio.bench.throughput.worker` says."""
        return _last_json(self.run(name, [*_WORKER, name, json.dumps(arguments)]))

    def scene(self, name: str) -> dict[str, Any]:
        """Folder and data parser of a scene, as tasks take them."""
        folder = self.data_root / name
        if not folder.is_dir():
            raise StageError(f"expected a folder {folder}, found none")
        return {"data": str(folder.resolve()), "dataparser": guess_dataparser(folder)}


@dataclass(frozen=True)
class Stage:
    """One thing to find out."""

    limit_s: float
    figures: Callable[[Session], dict[str, Any]]


def tests(session: Session) -> dict[str, Any]:
    """The tests that need a card, and all those of backends on it."""
    root = Path(__file__).parents[2] / "tests"
    if not root.is_dir():
        raise StageError(f"expected the tests of a source checkout at {root}, found none")
    backends = {"SHACIRA_TEST_BACKENDS": "reference,reference@cuda,triton@cuda"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(root / "backends"), str(root / "plugin" / "test_cuda.py")]
    for name in ("interpreter", "compile"):  # need no card
        command += [f"--ignore={root / 'backends' / f'test_triton_{name}.py'}"]
    return {"summary": session.run("tests", command, environ=backends).splitlines()[-1]}


def throughput(session: Session) -> dict[str, Any]:
    """Operations, steps and views beside plain torch and nerfacto."""
    scene, output = session.scene("lego"), session.work_dir / "throughput.jsonl"
    command = [*_SHACIRA, "bench", "throughput", "--device", "cuda", "--output", str(output)]
    command += ["--data", scene["data"], "--dataparser", scene["dataparser"]]
    try:
        session.run("throughput", command)
    finally:  # rows that are there count
        lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
        rows = {row["name"]: row for row in map(json.loads, lines)}
    names = ("unit", "ours", "rival", "ratio", "rival_what", "backend", "more")
    return {key: {name: row[name] for name in names} for key, row in rows.items()}


def profile(session: Session) -> dict[str, Any]:
    """What a step costs the host and the card, and its slowest kernels."""
    return session.task("profile_steps", **session.scene("lego"))


def trained(name: str, *options: str) -> Callable[[Session], dict[str, Any]]:
    """Trains, exports, and measures the file on all held-out views."""

    def figures(session: Session) -> dict[str, Any]:
        scene, folder = session.scene(name), session.work_dir / name
        command = [*_SHACIRA, "train", "--vis", "tensorboard", "--output-dir", str(folder)]
        command += ["--experiment-name", name, "--timestamp", "run", *options]
        begin = time.monotonic()
        session.run(f"{name}-train", [*command, scene["dataparser"], "--data", scene["data"]])
        seconds = time.monotonic() - begin
        run, export = folder / name / "shacira" / "run", folder / "export"
        command = [*_SHACIRA, "export", "--load-config", str(run / "config.yml")]
        session.run(f"{name}-export", [*command, "--output-dir", str(export)])
        file = export / "scene.shacira"
        command = [*_SHACIRA, "eval", str(file), "--data", scene["data"], "--json"]
        metrics = _last_json(session.run(f"{name}-eval", command))
        size = file.stat().st_size
        return {"options": options, "train_seconds": seconds, "bytes": size, "metrics": metrics}

    return figures


def frames(session: Session) -> dict[str, Any]:
    """Frames per second at 800x800 from the file of lego."""
    file = session.work_dir / "lego" / "export" / "scene.shacira"
    if not file.is_file():
        raise StageError(f"expected the file of the stage lego at {file}, found none")
    return session.task("frames_per_second", file=str(file), side=800, num_frames=60)


def kernels(session: Session) -> dict[str, Any]:
    """Nsight Compute on the two slowest kernels of the stage profile."""
    if shutil.which("ncu") is None:
        raise StageError("expected ncu (Nsight Compute) on the PATH, found none")
    log = session.work_dir / "profile_steps.log"
    if not log.is_file():
        raise StageError(f"expected the log of the stage profile at {log}, found none")
    profiled = _last_json(log.read_text("utf-8"))["kernels"]
    slowest = [row for row in profiled if not row["name"].startswith("Mem")][:2]  # no copies
    names = [function_name(kernel["name"]) for kernel in slowest]
    skipped = int(_NCU_STEPS * sum(kernel["per_step"] for kernel in slowest))
    arguments = {**session.scene("lego"), "warmup_steps": _NCU_STEPS, "num_steps": 8}
    command = ["ncu", "--csv", "--set", "basic", "--launch-skip", str(skipped)]
    command += ["--launch-count", "4", "--kernel-name", f"regex:^({'|'.join(names)})$"]
    text = session.run("ncu", [*command, *_WORKER, "train_steps", json.dumps(arguments)])
    launches = ncu_launches(text)
    if not launches:  # it may lack the right to read counters, and says so
        tail = "\n".join(text.splitlines()[-_TAIL_LINES:])
        raise StageError(f"expected metrics of {names} from ncu, got none:\n{tail}")
    return {"kernels": names, "launches": launches}


def function_name(kernel: str) -> str:
    """The name alone of a kernel as the profiler writes it, with types and arguments: what ncu
    compares."""
    text = kernel.replace("(anonymous namespace)::", "")
    return re.split(r"[<(]", text)[0].rpartition("::")[2].split()[-1]


def ncu_launches(text: str) -> list[dict[str, str]]:
    """Metrics of each launch from ncu's CSV, which follows what the program printed."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    launches: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(lines):
        launch = launches.setdefault(row["ID"], {"kernel": row["Kernel Name"]})
        if row["Metric Name"] in _NCU_METRICS:
            launch[row["Metric Name"]] = f"{row['Metric Value']} {row['Metric Unit']}".strip()
    return list(launches.values())


Bar = tuple[str, Callable[[dict[str, Any]], float], float, bool]
"""What is asked for, the figure of a stage, the limit, and whether more is better."""
BARS: dict[str, tuple[Bar, ...]] = {
    "throughput": (("times plain torch", lambda f: f["plain_step"]["ratio"], 15, True),),
    "profile": (
        ("training samples/s", lambda f: f["default_samples_per_s"], 40e6, True),
        ("seconds of Python per step", lambda f: f["host_step_s"], 2e-3, False),
        ("share of refreshes", lambda f: f["refresh_share"], 0.05, False),
    ),
    "lego": (
        ("dB", lambda f: f["metrics"]["psnr"], 35.5, True),
        ("bytes", lambda f: f["bytes"], 600_000, False),
        ("seconds", lambda f: f["train_seconds"], 240, False),
    ),
    "frames": (("frames/s", lambda f: f["frames_per_s"], 60, True),),
    # 10 minutes on two cores of a CPU gave 22.60 dB.
    "bear": (("dB", lambda f: f["metrics"]["psnr"], 22.60 + 1.5, True),),
}
"""Of an H100. What a card misses is said; the stage is done all the same."""


def held_against_bars(stage: str, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What the figures of a stage are asked for, and whether they are."""
    rows = []
    for what, of, limit, is_least in BARS.get(stage, ()):
        value = float(of(figures))
        is_met = value >= limit if is_least else value <= limit
        rows.append({"what": what, "value": value, "bar": limit, "is_met": is_met})
    return rows


_QUICK = ("--pipeline.model.networks.precision", "auto")
STAGES: dict[str, Stage] = {
    "tests": Stage(270, tests),
    "throughput": Stage(270, throughput),
    "profile": Stage(160, profile),
    "lego": Stage(
        400,
        trained(
            "lego",
            *("--max-num-iterations", str(LEGO_STEPS), "--quality", "max"),
            *("--pipeline.model.target-size-kb", "600", *_QUICK),
        ),
    ),
    "frames": Stage(60, frames),
    "bear": Stage(240, trained("bear", *_QUICK)),
    "fox": Stage(180, trained("fox", *_QUICK)),
    "kernels": Stage(100, kernels),
}
"""In the order in which they run: what others need first. The limits add up to 28 minutes."""


def run_session(
    data_root: Path,
    output: Path,
    *,
    work_dir: Path,
    only: Sequence[str] = (),
    minutes: float = SESSION_MINUTES,
    say: Say = print,
) -> list[str]:
    """Runs the stages that the results do not have yet for this card and commit.

    Args:
        output: JSON lines; a row is appended after each stage.
        minutes: For all of them.

    Returns:
        The stages that failed.
    """
    unknown = sorted(set(only) - set(STAGES))
    if unknown:
        raise ValueError(f"expected stages of {', '.join(STAGES)}, got {', '.join(unknown)}")
    if not minutes > 0:
        raise ValueError(f"expected --minutes above 0, got {minutes}")
    gpu, commit = find_gpu(), environment.commit()
    done, failed = _done(output, gpu, commit), []
    work_dir.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    for name, stage in STAGES.items():
        if only and name not in only:
            continue
        if name in done:
            say(f"{name}: there already")
            continue
        begin = time.monotonic()
        session = Session(data_root, work_dir, gpu, min(begin + stage.limit_s, end))
        row = _stage_row(session, name, stage)
        row = {"stage": name, "gpu": gpu, "seconds": time.monotonic() - begin, **row}
        row |= {"commit": commit, "date": environment.date(), "machine": environment.machine()}
        row["versions"] = environment.versions()
        with output.open("a", encoding="utf-8") as sink:
            sink.write(json.dumps(row) + "\n")
        if not row["is_done"]:
            failed.append(name)
        say(f"{name}: {json.dumps(row['figures']) if row['is_done'] else row['error']}")
        for bar in row["bars"]:
            met = "met" if bar["is_met"] else "missed"
            say(f"  {bar['what']}: {bar['value']:,.4g}, bar {bar['bar']:,g}: {met}")
    return failed


def _stage_row(session: Session, name: str, stage: Stage) -> dict[str, Any]:
    failed = {"is_done": False, "figures": {}, "bars": []}
    if time.monotonic() >= session.deadline:
        return {**failed, "error": "no time is left"}
    try:
        figures = stage.figures(session)
        bars = held_against_bars(name, figures)
    except Exception as error:  # whatever it is, the stages that follow are worth their time
        return {**failed, "error": f"{type(error).__name__}: {error}"}
    return {"is_done": True, "error": "", "figures": figures, "bars": bars}


def _done(output: Path, gpu: str, commit: str) -> set[str]:
    if not output.exists():
        return set()
    rows = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    return {
        row["stage"]
        for row in rows
        if row["is_done"] and (row["gpu"], row["commit"]) == (gpu, commit)
    }


def find_gpu() -> str:
    """Name of the card, its memory and driver.

    Raises:
        ValueError: there is none.
    """
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"expected a machine with an NVIDIA card, but nvidia-smi finds none: {error}"
        ) from error
    return text.strip().splitlines()[0]


def _last_json(text: str) -> dict[str, Any]:
    """The last line or lines of what a command printed."""
    at = text.rfind("\n{")
    return json.loads(text[at + 1 :] if not text.startswith("{") or at >= 0 else text)
