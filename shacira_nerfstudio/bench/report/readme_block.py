"""The few lines of the results that the README shows, between two marks, from the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shacira_nerfstudio.bench.report import tables
from shacira_nerfstudio.bench.report.plot_data import plots
from shacira_nerfstudio.bench.report.rows import Curve, Point, Row, curves
from shacira_nerfstudio.output_files import write_file

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_HEAD = ("", "PSNR dB", "SSIM", "bytes", "steps", "train s", "trained with")
_BASELINE = "ngp-fp16"
EMPTY = "No results are committed yet."


def results_block(rows: Sequence[Row], folder: str) -> str:
    """Of each scene the uncompressed baseline at its best, and the method at each of its rates, or,
    where there is no such run, at each of its targets; and when and where they were measured. All
    else stands in the report alone.

    Args:
        folder: Where the report lies, seen from the README.
    """
    shown = _headline(curves(rows))
    if not shown:
        return EMPTY
    lines = []
    for curve, point in shown:
        width, height = curve.resolution
        backends = "; ".join(sorted({row["backend"] for row in point.rows}))
        lines.append(
            [
                f"{curve.scene} {width}x{height}, {curve.name}, {point.label}",
                tables.number(point.psnr, 2),
                tables.number(point.mean("ssim"), 3),
                tables.number(point.bytes),
                tables.number(point.mean("steps")),
                tables.number(point.mean("train_seconds")),
                backends,
            ]
        )
    measured = [row for _, point in shown for row in point.rows]
    days, machines = ({row[name] for row in measured} for name in ("date", "machine"))
    dated = f"Measured {max(day[:10] for day in days)} on {'; '.join(sorted(machines))}."
    names = [f"[{plot.title}]({folder}/{plot.name}.png)" for plot in plots(curves(rows))]
    return "\n\n".join([dated, tables.markdown(_HEAD, lines), f"Plots: {'; '.join(names)}."])


def _headline(all_curves: Sequence[Curve]) -> list[tuple[Curve, Point]]:
    """The points that the README shows, each with its curve."""
    shown = []
    for scene in dict.fromkeys((curve.scene, curve.resolution) for curve in all_curves):
        points = [(c, p) for c in all_curves if (c.scene, c.resolution) == scene for p in c.points]
        baseline = [pair for pair in points if _method(pair[1]) == _BASELINE]
        ours = [pair for pair in points if _method(pair[1]) == "shacira"]
        plain = [pair for pair in ours if not _has_target(pair[1])]
        best = sorted(baseline, key=lambda pair: pair[1].psnr)[-1:]
        shown += best + (plain or ours)
    return shown


def _method(point: Point) -> str:
    return point.rows[0]["method"]


def _has_target(point: Point) -> bool:
    settings = point.rows[0].get("settings") or {}
    return not {"model.target_size_kb", "model.target_psnr"}.isdisjoint(settings)


def replace_block(text: str, block: str) -> str:
    """A text with another block between the marks.

    Raises:
        ValueError: the marks are not there once each, in their order.
    """
    begin, end = text.find(BEGIN), text.find(END)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or end < begin:
        raise ValueError(f"expected {BEGIN} and then {END}, once each, found others")
    return f"{text[: begin + len(BEGIN)]}\n{block}\n{text[end:]}"


def write_readme(rows: Sequence[Row], readme: Path, folder: Path) -> None:
    """Replaces the block of a README.

    Args:
        folder: The report's, below that of the README.
    """
    where = folder.resolve().relative_to(readme.resolve().parent).as_posix()
    text = readme.read_text(encoding="utf-8")
    write_file(readme, replace_block(text, results_block(rows, where)))
