"""Runs the rows that were asked for, writes each as a line of JSON, prints a table at the end."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from shacira_nerfstudio.bench.throughput import (
    coding,
    field_ops,
    ops,
    processes,
    profiler,
    rendering,
    training,
)
from shacira_nerfstudio.bench.throughput.rivals import CODERS, COMPRESSORS
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
    "interpolate_int8": lambda plan: ops.interpolate_int8(plan.setting),
    "march": lambda plan: ops.march(plan.setting),
    "composite": lambda plan: ops.composite(plan.setting),
    "networks": lambda plan: field_ops.networks(plan.setting),
    "rate": lambda plan: field_ops.rate(plan.setting),
    "train_step": lambda plan: training.train_step(plan.runs, plan.repeats),
    "latent_optimizer": lambda plan: training.latent_optimizer(plan.runs, plan.repeats),
    "profile": lambda plan: profiler.profile(plan.runs, plan.repeats),
    "render": lambda plan: rendering.render(plan.runs, plan.repeats),
    **{
        name: lambda plan, name=name: coding.scene_row(name, plan.runs.file_bytes, plan.repeats)
        for name in ("encode_scene", "decode_scene")
    },
    **{
        f"{what}_{rival}": lambda plan, what=what, rival=rival: coding.coder_row(
            what, rival, plan.runs.file_bytes, plan.repeats
        )
        for what in ("encode", "decode")
        for rival in CODERS
    },
    **{
        f"size_{name}": lambda plan, name=name: coding.size_row(name, plan.runs.file_bytes)
        for name in COMPRESSORS
    },
    "first_frame": lambda plan: processes.first_frame(plan.runs, plan.repeats),
    "compile": lambda plan: processes.compile_time(plan.runs),
    "large_table": lambda plan: processes.large_table(plan.runs),
}
"""By name, in the order in which they run: those that need no scene first, new processes last."""
ON_REQUEST = ("profile",)
_FIGURES = ("ours", "rival", "ratio", "ours s (min)", "rival s (min)")
_HIGHLIGHTS = {
    "train_step": ("ours_samples_per_s", "rival_samples_per_s", "ours_step_s", "rival_step_s"),
    "profile": ("samples_per_step", "marched_per_step", "rays_per_step"),
    "render": ("ours_view_s",),
    "encode_scene": ("ours_s", "numpy_s", "file_mb_per_s"),
    "decode_scene": ("ours_s", "numpy_s", "file_mb_per_s"),
    "encode_torchac": ("numpy_symbols_per_s",),
    "decode_torchac": ("numpy_symbols_per_s",),
    "first_frame": ("decode_s", "process_peak_rss_bytes"),
    "compile": ("cached_s",),
    "large_table": ("slowdown", "peak_rss_bytes_19", "peak_rss_bytes_22"),
}
"""Further figures that a person wants to see; all are in the file."""


def run_throughput(
    data: Path,
    output: Path,
    *,
    scene_file: Path | None = None,
    dataparser: str | None = None,
    repeats: int = MIN_REPEATS,
    warmup_steps: int = 300,
    only: Sequence[str] = (),
    profile: bool = False,
) -> list[dict[str, Any]]:
    """See `shacira bench throughput --help`.

    Returns:
        What was written, one dictionary per line.
    """
    unknown = sorted(set(only) - set(ROWS))
    if unknown:
        raise ValueError(f"expected rows of {', '.join(ROWS)}, got {', '.join(unknown)}")
    if repeats < MIN_REPEATS:
        raise ValueError(f"expected --repeats of {MIN_REPEATS} or more, got {repeats}")
    if not data.is_dir():
        raise FileNotFoundError(f"expected a folder with a scene at {data}")
    with tempfile.TemporaryDirectory() as folder:
        runs = training.SceneRuns(
            data, Path(folder), dataparser, warmup_steps=warmup_steps, scene_file=scene_file
        )
        plan = Plan(ops.Setting.create(repeats), runs, repeats)
        wanted = set(only) or set(ROWS) - set(ON_REQUEST)
        wanted |= {"profile"} if profile else set()
        return write_rows(plan, [name for name in ROWS if name in wanted], output)


def write_rows(plan: Plan, names: Sequence[str], output: Path) -> list[dict[str, Any]]:
    """Runs rows and writes each as soon as it is known; a wrong result ends it all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with output.open("w", encoding="utf-8") as sink:
        for row in _rows(plan, names):
            rows.append(row.as_dict())
            # A nan would not be JSON.
            sink.write(json.dumps(rows[-1], allow_nan=False) + "\n")
            sink.flush()
    print_table(rows, Console())
    return rows


def _rows(plan: Plan, names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        logger.warning("measuring %s", name)
        yield ROWS[name](plan)


def print_table(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """What a person reads."""
    table = Table(title="Throughput: medians; ratios above 1 are in our favour")
    for column in ("", "unit", *_FIGURES, "compared with"):
        table.add_column(column, justify="right" if column in _FIGURES else "left")
    for row in rows:
        figures = [_number(row[key]) for key in ("ours", "rival", "ratio")]
        seconds = [_seconds(row[f"{side}_times_s"]) for side in ("ours", "rival")]
        table.add_row(row["name"], row["unit"], *figures, *seconds, row["rival_what"])
    console.print(table)
    for row in rows:
        names = [name for name in _HIGHLIGHTS.get(row["name"], ()) if name in row["more"]]
        if names:
            figures = ", ".join(f"{name} {_number(row['more'][name])}" for name in names)
            console.print(f"{row['name']}: {figures}", highlight=False, soft_wrap=True)
    for row in rows:
        if row["name"] == "profile":
            _print_profile(row, console)


def _print_profile(row: dict[str, Any], console: Console) -> None:
    table = Table(title=f"A training step: {row['ours']:.1f} ms")
    for column in ("", "ms", "share", "calls"):
        table.add_column(column, justify="right" if column else "left")
    for name, part in row["more"]["parts"].items():
        figures = f"{part['ms_per_step']:.2f}", f"{part['share']:.1%}"
        table.add_row(name, *figures, f"{part['calls_per_step']:.3g}")
    console.print(table)


def _seconds(times: dict[str, Any]) -> str:
    return f"{times['median']:.3g} ({times['min']:.3g})" if times else "-"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
