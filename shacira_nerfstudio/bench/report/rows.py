"""Rows of measured results: read from JSON lines, checked, and put together to curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NUMBERS = (
    *("rate_lambda", "psnr", "ssim", "bytes", "train_seconds", "steps", "seed"),
    *("paper_accounting_bytes", "encode_seconds", "decode_seconds", "render_seconds"),
)
_TEXTS = ("key", "scene", "method", "preset", "commit", "date", "machine", "backend")
Row = dict[str, Any]


def load_rows(paths: Iterable[Path]) -> list[Row]:
    """Rows of one or more files, in their order.

    Raises:
        ValueError: naming file and line of what is no row, or of a job that stands there twice.
    """
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: expected JSON, found {line[:60]!r}: {error}") from error
            _check_row(row, where)
            if row["key"] in seen:
                raise ValueError(
                    f"{where}: expected each job once, found that of {seen[row['key']]}"
                )
            seen[row["key"]] = where
            rows.append(row)
    return rows


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, found {type(row).__name__}")
    for name in _NUMBERS:
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}: expected a number for {name}, found {value!r}")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{where}: expected {name} of 0 or more, found {value!r}")
    for name in _TEXTS:
        if not isinstance(row.get(name), str):
            raise ValueError(f"{where}: expected a text for {name}, found {row.get(name)!r}")
    size, parts = row.get("resolution"), row.get("bytes_by_part")
    if not isinstance(size, list) or [type(side) for side in size] != [int, int]:
        raise ValueError(f"{where}: expected [width, height] for resolution, found {size!r}")
    if not isinstance(parts, dict) or sum(parts.values()) != row["bytes"]:
        raise ValueError(f"{where}: expected bytes_by_part that add up to bytes, found {parts!r}")


@dataclass(frozen=True)
class Point:
    """One setting of one method: the mean over its seeds."""

    label: str
    bytes: float
    psnr: float
    paper_bytes: float
    rows: tuple[Row, ...]

    def mean(self, name: str) -> float | None:
        """Of a column over seeds; None if a row does not have it."""
        values = [row.get(name) for row in self.rows]
        return None if None in values else sum(values) / len(values)  # pyright: ignore


@dataclass(frozen=True)
class Curve:
    """Points of one method on one scene that differ in their rate (or, of the baseline, in the size
    of the table), smallest first."""

    scene: str
    resolution: tuple[int, int]
    name: str
    points: tuple[Point, ...]

    def rate_distortion(self, *, paper: bool = False) -> list[tuple[float, float]]:
        """(bytes, PSNR) of each point, bytes by the paper's own accounting if asked for."""
        return [(p.paper_bytes if paper else p.bytes, p.psnr) for p in self.points]


def ablations(rows: Sequence[Row]) -> list[Row]:
    """Rows of ablation tables; all others belong to curves."""
    return [row for row in rows if row.get("ablation")]


def curves(rows: Sequence[Row]) -> list[Curve]:
    """All curves, by scene, resolution and name. What ablation tables are made of is no curve."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row.get("ablation"):
            continue
        scene = (row["scene"], *row["resolution"])
        groups.setdefault((*scene, row["method"], row["preset"], row["steps"]), []).append(row)
    result = []
    for (scene, width, height, method, preset, steps), members in groups.items():
        same = {key[4:] for key in groups if key[:4] == (scene, width, height, method)}
        # As much of a name as tells a curve from the others of its scene.
        name = method if len({preset for preset, _ in same}) == 1 else f"{method} {preset}"
        if len({s for p, s in same if p == preset}) > 1:
            name = f"{name}, {steps} steps"
        points = tuple(sorted(points_of(members), key=lambda point: (point.bytes, point.psnr)))
        result.append(Curve(scene, (width, height), name, points))
    return sorted(result, key=lambda curve: (curve.scene, curve.resolution, curve.name))


def points_of(rows: Sequence[Row]) -> list[Point]:
    """Rows that differ in nothing but their seed become one point."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        settings = [row.get(name) for name in ("settings", "rate_lambda", "downscale", "steps")]
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(row)
    return [
        Point(
            label=_label(members[0], rows),
            bytes=sum(row["bytes"] for row in members) / len(members),
            psnr=sum(row["psnr"] for row in members) / len(members),
            paper_bytes=sum(row["paper_accounting_bytes"] for row in members) / len(members),
            rows=tuple(members),
        )
        for members in groups.values()
    ]


def _label(row: Row, others: Sequence[Row]) -> str:
    """What distinguishes a point: its lambda, and settings in which rows of the curve differ."""
    settings = [other.get("settings") or {} for other in others]
    names = sorted({name for values in settings for name in values})
    varied = [n for n in names if len({repr(values.get(n)) for values in settings}) > 1]
    own = row.get("settings") or {}
    parts = [f"{n.rsplit('.', 1)[-1]} {own[n]}" for n in varied if n in own]
    rates = {other["rate_lambda"] for other in others}
    if len(rates) > 1 or not parts:
        parts.insert(0, f"lambda {row['rate_lambda']:g}" if row["rate_lambda"] else row["preset"])
    return ", ".join(parts)
