"""Many scenes in one table: means over scenes of each setting, as the paper's table of RTMV."""

from __future__ import annotations

from collections.abc import Sequence

from shacira_nerfstudio.bench.report.rows import Point, Row, points_of
from shacira_nerfstudio.bench.report.tables import markdown, number

_COLUMNS = ("psnr", "ssim", "bytes", "paper_accounting_bytes", "train_seconds")


def collection_text(rows: Sequence[Row], scenes: Sequence[str]) -> str:
    """A Markdown table with a line per setting, and which scenes it is about.

    A scene counts once, with the mean of its seeds. Where some setting has no result of some scene,
    all lines are about the scenes that have all of them, so that lines can be compared; if there is
    none such, each is about its own.

    Args:
        scenes: All that there should be.
    """
    points = _points(rows)
    if not points:
        return "No results."
    common = set.intersection(*(_scenes(point) for _, point in points))
    head = ["", "scenes", "PSNR dB", "SSIM", "bytes", "paper's accounting", "train s"]
    lines = []
    for name, point in points:
        members = common or _scenes(point)
        means = [_mean(point, column, members) for column in _COLUMNS]
        digits = (2, 4, 0, 0, 0)
        cells = [number(value, count) for value, count in zip(means, digits, strict=True)]
        lines.append([name, str(len(members)), *cells])
    return "\n".join([markdown(head, lines), *_about(points, common, scenes)])


def _points(rows: Sequence[Row]) -> list[tuple[str, Point]]:
    """Settings with their names; qualities take other numbers of steps for other scenes."""
    found = []
    names = list(dict.fromkeys((row["method"], row["preset"]) for row in rows))
    for method, preset in names:
        own = [row for row in rows if (row["method"], row["preset"]) == (method, preset)]
        name = method if [m for m, _ in names].count(method) == 1 else f"{method} {preset}"
        points = points_of([{**row, "steps": 0} for row in own])
        found += [(f"{name}, {point.label}", point) for point in points]
    return found


def _scenes(point: Point) -> set[str]:
    return {row["scene"] for row in point.rows}


def _mean(point: Point, column: str, scenes: set[str]) -> float:
    """Over scenes of the means over seeds."""
    means = []
    for scene in sorted(scenes):
        values = [row[column] for row in point.rows if row["scene"] == scene]
        means.append(sum(values) / len(values))
    return sum(means) / len(means)


def _about(
    points: Sequence[tuple[str, Point]], common: set[str], scenes: Sequence[str]
) -> list[str]:
    names = list(dict.fromkeys(scenes))
    if common == set(names):
        return []
    missing = [name for name in names if name not in common]
    if not common:
        return ["", "No scene has results of every line: each line is about its own scenes."]
    some = [name for name in missing if any(name in _scenes(point) for _, point in points)]
    parts = f" (of {', '.join(some)} some lines have results)" if some else ""
    return [
        "",
        f"Means over {len(common)} of {len(names)} scenes; without {', '.join(missing)}{parts}.",
    ]
