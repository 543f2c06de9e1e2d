"""The whole path on a small scene of our own: what `make demo` runs and shows.

Each step is the command that a user would type, in a process of its own; figures come from what
those commands wrote.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from shacira_nerfstudio.codec.file_tools import bytes_by_part
from shacira_nerfstudio.plugin.presets import load_preset, preset_flags
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

PRESET = Path(__file__).parents[2] / "configs" / "shacira-tiny.yaml"
"""A small scene needs a small grid. Presets lie beside the package, in a clone."""
_STEP_LINE = re.compile(r"^(\d+) \(([\d.]+)%\)")
_PICTURE_VIEWS = (2, 9)
"""Test views in the picture."""


@dataclass
class Timed:
    """Seconds of one command."""

    name: str
    seconds: float


def _command(name: str) -> str:
    """The script that belongs to this Python, not just any on the path."""
    return str(Path(sys.executable).parent / name)


def _host_export_problem() -> str | None:
    """What keeps ``ns-export`` from starting on this machine, if anything does: before all else it
    imports open3d, which wants system libraries."""
    importing = [sys.executable, "-c", "import open3d"]
    done = subprocess.run(importing, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    return lines[-1] if done.returncode else None


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "ignore", "COLUMNS": "100", "TERM": "dumb"}


def _run(arguments: list[str], log: Path, progress: Progress, title: str) -> float:
    """Runs a command with its output in a log, and a bar that follows training steps."""
    begin = time.perf_counter()
    task = progress.add_task(title, total=100)
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(),
        )
        assert process.stdout is not None
        for line in process.stdout:
            sink.write(line)
            match = _STEP_LINE.match(line.strip())
            if match:
                progress.update(task, completed=float(match.group(2)))
    if process.wait():
        tail = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-30:])
        raise RuntimeError(
            f"{' '.join(arguments[:2])} failed with status {process.returncode}; the end of "
            f"{log}:\n{tail}"
        )
    progress.update(task, completed=100)
    return time.perf_counter() - begin


def _write_scene(folder: Path, progress: Progress) -> float:
    begin = time.perf_counter()
    task = progress.add_task("write the scene", total=100)
    write_demo_scene(
        folder, progress=lambda done, total: progress.update(task, completed=100 * done / total)
    )
    progress.update(task, completed=100)
    return time.perf_counter() - begin


def _evaluate(config: Path, output: Path, pictures: Path | None) -> list[str]:
    arguments = [_command("ns-eval"), "--load-config", str(config), "--output-path", str(output)]
    return arguments + (["--render-output-path", str(pictures)] if pictures else [])


def _results(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8"))["results"]


def run_demo(output_dir: Path) -> dict[str, float]:
    """Writes a scene, trains, exports, verifies, evaluates checkpoint and file, and shows it all.

    Args:
        output_dir: Gets the scene, the run, the export, logs and ``comparison.png``.

    Returns:
        The figures of the table.
    """
    console = Console()
    output_dir = output_dir.resolve()
    logs = output_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    run, export = output_dir / "run" / "demo" / "shacira" / "run", output_dir / "export"
    training = [_command("ns-train"), "shacira", *preset_flags(load_preset(PRESET))]
    training += ["--vis", "tensorboard", "--output-dir", str(output_dir / "run")]
    training += ["--experiment-name", "demo", "--timestamp", "run"]
    training += ["rtmv-data", "--data", str(output_dir / "scene")]
    file = export / "scene.shacira"
    exporting = [_command("ns-export"), "shacira"]
    problem = _host_export_problem()
    if problem is not None:
        console.print(f"ns-export does not start here ({problem}); using its twin, shacira export")
        exporting = [_command("shacira"), "export"]
    exporting += ["--load-config", str(run / "config.yml"), "--output-dir", str(export)]
    steps = [
        ("train", training),
        ("export", exporting),
        ("verify", [_command("shacira"), "verify", str(file)]),
        (
            "evaluate checkpoint",
            _evaluate(run / "config.yml", output_dir / "checkpoint.json", None),
        ),
        (
            "evaluate file",
            _evaluate(export / "config.yml", output_dir / "file.json", output_dir / "views"),
        ),
    ]
    columns = (TextColumn("{task.description:>20}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        times = [Timed("write the scene", _write_scene(output_dir / "scene", progress))]
        for title, arguments in steps:
            log = logs / f"{title.replace(' ', '_')}.log"
            times.append(Timed(title, _run(arguments, log, progress, title)))
    _write_picture(output_dir / "views", output_dir / "comparison.png")
    return _report(console, output_dir, file, times)


def _write_picture(views: Path, path: Path) -> None:
    """Ground truth | rendered from the file | error, for a few test views."""
    rows = [Image.open(views / f"eval_img_{index:04d}.png") for index in _PICTURE_VIEWS]
    width, height, scale, margin = rows[0].width, rows[0].height, 2, 24
    sheet = Image.new("RGB", (width * scale, (height * scale) * len(rows) + margin), "white")
    draw = ImageDraw.Draw(sheet)
    for index, title in enumerate(("ground truth", "rendered from scene.shacira", "error")):
        draw.text((index * width * scale // 3 + 6, 6), title, fill="black")
    for index, row in enumerate(rows):
        enlarged = row.convert("RGB").resize(
            (width * scale, height * scale), Image.Resampling.NEAREST
        )
        sheet.paste(enlarged, (0, margin + index * height * scale))
    sheet.save(path)


def _report(console: Console, folder: Path, file: Path, times: list[Timed]) -> dict[str, float]:
    checkpoint, decoded = _results(folder / "checkpoint.json"), _results(folder / "file.json")
    table = Table(title="Demo scene, 128x128, held-out views")
    for column in ("", "PSNR dB", "SSIM", "bytes"):
        table.add_column(column, justify="right" if column else "left")
    saved = sorted((folder / "run").rglob("*.ckpt"))[-1]
    for name, result, path in (("checkpoint", checkpoint, saved), ("scene.shacira", decoded, file)):
        size = f"{path.stat().st_size:,}"
        table.add_row(name, f"{result['psnr']:.2f}", f"{result['ssim']:.4f}", size)
    table.add_section()
    for part, count in bytes_by_part(file.read_bytes()).items():
        table.add_row(f"  {part}", "", "", f"{count:,}")
    table.add_section()
    for timed in times:
        table.add_row(timed.name, "", "", f"{timed.seconds:.1f} s")
    total = sum(timed.seconds for timed in times)
    table.add_row("total", "", "", f"{total:.1f} s")
    console.print(table)
    console.print(f"Picture: {folder / 'comparison.png'}")
    console.print(f"Look around: ns-viewer --load-config {folder / 'export' / 'config.yml'}")
    figures = {
        "psnr_checkpoint": checkpoint["psnr"],
        "psnr": decoded["psnr"],
        "ssim": decoded["ssim"],
        "bytes": file.stat().st_size,
        "seconds": total,
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return figures
