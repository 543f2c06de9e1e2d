"""Tables of a report, as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from shacira_nerfstudio.bench.plan import BASE
from shacira_nerfstudio.bench.report.bd_rate import bd_rate, bytes_at
from shacira_nerfstudio.bench.report.published import published_for
from shacira_nerfstudio.bench.report.rows import Curve, Point, Row, points_of

Points = list[tuple[float, float]]
NONE = "-"
BASE_RECODED = " (base, recoded)"
"""Marks lines that were not trained."""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose other columns are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def number(value: float | None, digits: int = 0) -> str:
    """With thousands separators; a dash for what was not measured."""
    return NONE if value is None else f"{value:,.{digits}f}"


def percent(value: float) -> str:
    """With a sign."""
    return f"{value:+.1f} %"


def quality_table(curves: Sequence[Curve]) -> str:
    """Every point: quality, the length of the file, and the same by the paper's accounting."""
    head = ["", "PSNR dB", "SSIM", "MS-SSIM", "LPIPS", "bytes (`ls -l`)", "paper's accounting"]
    rows = []
    for curve in curves:
        for point in curve.points:
            quality = [number(point.psnr, 2)]
            quality += [number(point.mean(name), 4) for name in ("ssim", "ms_ssim", "lpips")]
            sizes = [number(point.bytes), number(point.paper_bytes)]
            rows.append([_name(curve, point), *quality, *sizes])
    return markdown(head, rows)


def _name(curve: Curve, point: Point) -> str:
    seeds = f" ({len(point.rows)} seeds)" if len(point.rows) > 1 else ""
    return f"{curve.name}, {point.label}{seeds}"


def cost_table(curves: Sequence[Curve]) -> str:
    """Every point: steps, seconds and memory, and where they were measured."""
    seconds = ("train", "encode", "decode", "render")
    head = ["", "steps", *[f"{name} s" for name in seconds], "test views", "peak MB", "where"]
    rows = []
    for curve in curves:
        for point in curve.points:
            times = [
                number(point.mean(f"{name}_seconds"), 0 if name == "train" else 2)
                for name in seconds
            ]
            views = number(point.mean("num_views"))
            peak = number(point.mean("peak_rss_mb"))
            steps = number(point.mean("steps"))
            rows.append([_name(curve, point), steps, *times, views, peak, _wheres(point)])
    return markdown(head, rows)


def _wheres(point: Point) -> str:
    """Backend, machine, and what a row notes about its run, of all seeds."""
    names = ("backend", "machine", "note")
    texts = {", ".join(row[name] for name in names if row.get(name)) for row in point.rows}
    return "; ".join(sorted(texts))


def learning_table(curves: Sequence[Curve]) -> str:
    """What was trained for several numbers of steps and is else the same: PSNR over steps, and what
    doubling them gave; empty if there is nothing of the kind."""
    groups: dict[str, list[Point]] = {}
    for point in (point for curve in curves for point in curve.points):
        row = point.rows[0]
        names = ("method", "preset", "settings", "rate_lambda", "downscale")
        same = json.dumps([row.get(name) for name in names], sort_keys=True)
        groups.setdefault(same, []).append(point)
    lines = []
    for points in (sorted(group, key=_steps) for group in groups.values() if len(group) > 1):
        row = points[0].rows[0]
        name = f"{row['method']} {row['preset']}, {points[0].label}"
        for before, point in zip([None, *points], points, strict=False):
            gain = NONE
            if before is not None:
                doublings = math.log2(_steps(point) / _steps(before))
                gain = f"{(point.psnr - before.psnr) / doublings:+.2f}"
            times = [number(_steps(point)), number(point.mean("train_seconds"))]
            lines.append([name, *times, number(point.bytes), number(point.psnr, 2), gain])
    head = ["", "steps", "train s", "bytes", "PSNR dB", "dB per doubling of steps"]
    return markdown(head, lines) if lines else ""


def _steps(point: Point) -> int:
    return point.rows[0]["steps"]


def parts_table(curves: Sequence[Curve]) -> str:
    """Where the bytes of each file are."""
    points = [(curve, point) for curve in curves for point in curve.points]
    names = list(dict.fromkeys(n for _, p in points for r in p.rows for n in r["bytes_by_part"]))
    rows = []
    for curve, point in points:
        parts = [row["bytes_by_part"] for row in point.rows]
        cells = [
            number(sum(part[name] for part in parts) / len(parts))
            if all(name in part for part in parts)
            else NONE
            for name in names
        ]
        rows.append([_name(curve, point), *cells])
    return markdown(["", *names], rows)


def compare(anchor: Points, test: Points) -> str:
    """BD-rate; against a single point the difference of bytes at its PSNR; a dash if neither
    exists."""
    try:
        if len(anchor) == 1 and len(test) > 1:
            size, psnr = anchor[0]
            return f"{percent(100 * (bytes_at(test, psnr) / size - 1))} at {psnr:.2f} dB"
        return percent(bd_rate(anchor, test))
    except ValueError:  # no PSNR in common, or too few points: the text around says so
        return NONE


def bd_table(curves: Sequence[Curve]) -> str:
    """BD-rate of curves (row, always the bytes of files) against others (column): all that have a
    PSNR in common with some other; empty if none have."""
    anchors: list[tuple[str, Points]] = []
    for curve in curves:
        anchors.append((curve.name, curve.rate_distortion()))
        anchors.append((f"{curve.name}, paper's accounting", curve.rate_distortion(paper=True)))
    scene, resolution = curves[0].scene, curves[0].resolution
    for entry in published_for(scene):
        points = [(size, psnr) for size, psnr in entry.points if psnr is not None]
        if points and entry.resolution == resolution:
            anchors.append((f"{entry.system} (published)", points))
    rows = []
    for curve in curves:
        test = curve.rate_distortion()
        cells = [NONE if name == curve.name else compare(points, test) for name, points in anchors]
        if any(cell != NONE for cell in cells):
            rows.append([curve.name, *cells])
    used = [0] + [n for n in range(1, len(anchors) + 1) if any(row[n] != NONE for row in rows)]
    head = ["", *[name for name, _ in anchors]]
    table = [[line[n] for n in used] for line in [head, *rows]]
    return markdown(table[0], table[1:]) if rows else ""


def published_table(scene: str) -> str:
    """What others report on this scene; empty if nothing is known."""
    rows = []
    for entry in published_for(scene):
        size = entry.resolution
        where = f"{size[0]}x{size[1]}" if size else "not stated"
        for count, psnr in entry.points:
            rows.append([entry.system, number(count), number(psnr, 2), where, entry.counted])
            rows[-1].append(entry.source)
    head = ["", "bytes", "PSNR dB", "resolution", "what is counted", "source"]
    return markdown(head, rows) if rows else ""


def ablation_table(rows: Sequence[Row]) -> str:
    """Rows of one scene: each against the base row of its lambda, or else of the nearest PSNR, and
    against the base's curve at its own PSNR; and where they were measured, if not all in one
    place."""
    bases = points_of([row for row in rows if row["ablation"] == BASE])
    curve = [(point.bytes, point.psnr) for point in bases]
    head = ["", "lambda", "PSNR dB", "bytes", "dB to base", "bytes to base", "bytes at its PSNR"]
    lines: list[list[str]] = []
    names = dict.fromkeys(row["ablation"] for row in rows)
    for name in sorted(names, key=lambda name: name != BASE):
        for point in points_of([row for row in rows if row["ablation"] == name]):
            rate = point.rows[0]["rate_lambda"]
            line = [name, f"{rate:g}", number(point.psnr, 2), number(point.bytes)]
            line += _deltas(point, rate, bases, curve, is_base=name == BASE)
            lines.append([*line, _wheres(point)])
    lines += [[*line, _wheres(base)] for base in bases for line in _recoded(base, bases, curve)]
    if len({line[-1] for line in lines}) > 1:
        head.append("where")
    else:
        lines = [line[:-1] for line in lines]
    return markdown(head, lines)


def _recoded(base: Point, bases: list[Point], curve: Points) -> list[list[str]]:
    """The base's own integers in other files: a line for each."""
    rate = base.rows[0]["rate_lambda"]
    sizes_by_name: dict[str, list[int]] = {}
    for row in base.rows:
        for name, size in row.get("codec_ablation_bytes", {}).items():
            sizes_by_name.setdefault(name, []).append(size)
    lines = []
    for name, sizes in sizes_by_name.items():
        if len(sizes) == len(base.rows):
            point = replace(base, bytes=sum(sizes) / len(sizes))
            line = [name + BASE_RECODED, f"{rate:g}", number(point.psnr, 2), number(point.bytes)]
            lines.append([*line, *_deltas(point, rate, bases, curve, is_base=False)])
    return lines


def _deltas(
    point: Point, rate: float, bases: list[Point], curve: Points, *, is_base: bool
) -> list[str]:
    if is_base or not bases:
        return [NONE] * 3
    same = [base for base in bases if base.rows[0]["rate_lambda"] == rate]
    base = (same or sorted(bases, key=lambda base: abs(base.psnr - point.psnr)))[0]
    try:
        at_psnr = percent(100 * (point.bytes / bytes_at(curve, point.psnr) - 1))
    except ValueError:  # outside the base's curve, or the base is one point
        at_psnr = NONE
    difference = f"{point.psnr - base.psnr:+.2f}"
    return [difference, percent(100 * (point.bytes / base.bytes - 1)), at_psnr]
