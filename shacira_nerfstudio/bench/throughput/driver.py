"""Runs the rows that were asked for, writes each as a line of JSON, prints a table at the end."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from shacira_nerfstudio.bench.throughput import coding, cuda_ops, ops, processes, training
from shacira_nerfstudio.bench.throughput.timing import MIN_REPEATS, Row

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a run measures."""

    setting: ops.Setting
    runs: training.SceneRuns
    repeats: int


ROWS: dict[str, Callable[[Plan], Row]] = {
    "interpolate": lambda plan: ops.interpolate(plan.setting),
    "march": lambda plan: ops.march(plan.setting),
    "composite": lambda plan: ops.composite(plan.setting),
    "networks": lambda plan: ops.networks(plan.setting),
    "rate": lambda plan: ops.rate(plan.setting),
    "adam": lambda plan: cuda_ops.adam(plan.setting),
    "fused_networks": lambda plan: cuda_ops.fused_networks(plan.setting),
    "train_step": lambda plan: training.train_step(plan.runs, plan.repeats),
    "plain_step": lambda plan: training.plain_step(plan.runs, plan.repeats),
    "render": lambda plan: training.render(plan.runs, plan.repeats),
    **{
        name: lambda plan, name=name: coding.scene_row(name, plan.runs.file_bytes, plan.repeats)
        for name in ("encode_scene", "decode_scene")
    },
    "compile": lambda plan: processes.compile_time(plan.runs),
    "large_table": lambda plan: processes.large_table(plan.runs),
}
"""By name, in the order in which they run: those that need no scene first, new processes last."""
CPU_ROWS = ("encode_scene", "decode_scene", "compile", "large_table")
"""Rows of what a GPU has no part in, or that processes of their own measure on a CPU."""
CUDA_ROWS = ("adam", "fused_networks", "plain_step")
"""Rows that are for a GPU alone: choices that a card decides, and plain torch, which takes minutes
on a CPU."""
_FIGURES = ("ours", "rival", "ratio", "ours s (min)", "rival s (min)")


def run_throughput(
    data: Path,
    output: Path,
    *,
    scene_file: Path | None = None,
    dataparser: str | None = None,
    repeats: int = MIN_REPEATS,
    warmup_steps: int = 300,
    only: Sequence[str] = (),
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """See `shacira bench throughput --help`.

    Returns:
        What was written, one dictionary per line.
    """
    unknown = sorted(set(only) - set(ROWS))
    if unknown:
        raise ValueError(f"expected rows of {', '.join(ROWS)}, got {', '.join(unknown)}")
    absent = CPU_ROWS if check_device(device) == "cuda" else CUDA_ROWS
    if not_there := sorted(set(only) & set(absent)):
        raise ValueError(f"expected rows that {device} has, got {', '.join(not_there)}")
    if repeats < MIN_REPEATS:
        raise ValueError(f"expected --repeats of {MIN_REPEATS} or more, got {repeats}")
    if not data.is_dir():
        raise FileNotFoundError(f"expected a folder with a scene at {data}")
    with tempfile.TemporaryDirectory() as folder:
        runs = training.SceneRuns(
            data,
            Path(folder),
            dataparser,
            warmup_steps=warmup_steps,
            scene_file=scene_file,
            device=device,
        )
        plan = Plan(ops.Setting.create(repeats, device=device), runs, repeats)
        names = [name for name in ROWS if name in (only or ROWS) and name not in absent]
        return write_rows(plan, names, output)


def check_device(device: str) -> str:
    """The type of a device, cpu or cuda.

    Raises:
        ValueError: it is neither, or not there.
    """
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"expected --device of cpu or cuda, got {device}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected --device cuda on a machine with a CUDA device, found none")
    return kind


def write_rows(plan: Plan, names: Sequence[str], output: Path) -> list[dict[str, Any]]:
    """Runs rows and writes each as soon as it is known; a wrong result ends it all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with output.open("w", encoding="utf-8") as sink:
        for name in names:
            logger.warning("measuring %s", name)
            rows.append(ROWS[name](plan).as_dict())
            # A nan would not be JSON.
            sink.write(json.dumps(rows[-1], allow_nan=False) + "\n")
            sink.flush()
    print_table(rows, Console())
    return rows


def print_table(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """What a person reads; all figures are in the file."""
    table = Table(title="Throughput: medians; ratios above 1 are in our favour")
    for column in ("", "unit", *_FIGURES, "compared with"):
        table.add_column(column, justify="right" if column in _FIGURES else "left")
    for row in rows:
        figures = [_number(row[key]) for key in ("ours", "rival", "ratio")]
        seconds = [_seconds(row[f"{side}_times_s"]) for side in ("ours", "rival")]
        table.add_row(row["name"], row["unit"], *figures, *seconds, row["rival_what"])
    console.print(table)
    for row in rows:
        numbers = {n: v for n, v in row["more"].items() if isinstance(v, int | float)}
        if numbers:
            figures = ", ".join(f"{name} {_number(value)}" for name, value in numbers.items())
            console.print(f"{row['name']}: {figures}", highlight=False, soft_wrap=True)


def _seconds(times: dict[str, Any]) -> str:
    return f"{times['median']:.3g} ({times['min']:.3g})" if times else "-"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
