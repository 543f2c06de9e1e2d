"""The few lines of the results that the README shows, between two marks, from the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shacira_nerfstudio.bench.report import tables
from shacira_nerfstudio.bench.report.plot_data import plots
from shacira_nerfstudio.bench.report.rows import Row, curves

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_HEAD = ("", "preset", "steps", "train s", "PSNR dB", "SSIM", "bytes", "trained with")
EMPTY = "No results are committed yet."


def results_block(rows: Sequence[Row], folder: str) -> str:
    """Every point of every curve that was measured, a plot of each scene, and when and where.

    Args:
        folder: Where the report lies, seen from the README.
    """
    all_curves = curves(rows)
    if not all_curves:
        return EMPTY
    lines = []
    for curve in all_curves:
        width, height = curve.resolution
        for point in curve.points:
            row = point.rows[0]
            name = f"{curve.scene} {width}x{height}, {curve.name}, {point.label}"
            numbers = [
                tables.number(point.mean("steps")),
                tables.number(point.mean("train_seconds")),
            ]
            numbers += [tables.number(point.psnr, 2), tables.number(point.mean("ssim"), 3)]
            backends = "; ".join(sorted({row["backend"] for row in point.rows}))
            lines.append([name, row["preset"], *numbers, tables.number(point.bytes), backends])
    shown = [row for curve in all_curves for point in curve.points for row in point.rows]
    days, machines = ({row[name] for row in shown} for name in ("date", "machine"))
    dated = f"Measured {max(day[:10] for day in days)} on {'; '.join(sorted(machines))}."
    drawn = [f"![{plot.title}]({folder}/{plot.name}.png)" for plot in plots(all_curves)]
    return "\n\n".join([dated, tables.markdown(_HEAD, lines), *drawn])


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
    readme.write_text(replace_block(text, results_block(rows, where)), encoding="utf-8")
