"""What is shown of rows: a plot of mean curves, and a page of tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shacira_nerfstudio.bench.pictures.summary import (
    Row,
    curves_of,
    mean_rows,
    published_curves,
    summary_text,
    video_text,
)
from shacira_nerfstudio.bench.report.plot_data import COLORS
from shacira_nerfstudio.output_files import replacing_file, write_file

_MOST_BPP = 2.0
"""Of a plot of pictures: what lies beyond is of no use to anybody."""


def write_pages(rows: Sequence[Row], folder: Path, *, name: str, is_video: bool) -> list[Path]:
    """Writes NAME.png and NAME.md.

    Returns:
        Their paths.
    """
    paths = [folder / f"{name}.png", folder / f"{name}.md"]
    _write_plot(rows, paths[0], name=name, is_video=is_video)
    text = video_text(rows) if is_video else summary_text(rows)
    lines = [f"# {name}", "", "Measured on decoded files, all bytes counted.", ""]
    lines += [f"![bits per pixel and PSNR]({paths[0].name})", "", "```", text, "```", ""]
    if not is_video:
        lines += ["## Each picture", "", *_by_image(rows), ""]
    commits = sorted({str(row.get("commit")) for row in rows})
    machines = sorted({str(row.get("machine")) for row in rows})
    lines += [f"Commits {', '.join(commits)}; machines {', '.join(machines)}.", ""]
    write_file(paths[1], "\n".join(lines))
    return paths


def _by_image(rows: Sequence[Row]) -> list[str]:
    """A table with a line per picture and a column per method and setting: bpp / dB."""
    columns = [(row["method"], row["setting"]) for row in mean_rows(rows)]
    found = {(row["image"], row["method"], row["setting"]): row for row in rows}
    lines = ["| picture | " + " | ".join(f"{m} {s}" for m, s in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for image in sorted({row["image"] for row in rows}):
        cells = [found.get((image, *column)) for column in columns]
        texts = ["" if c is None else f"{c['bpp']:.3f} / {c['psnr']:.2f}" for c in cells]
        lines.append(f"| {image} | " + " | ".join(texts) + " |")
    return lines


def _write_plot(rows: Sequence[Row], path: Path, *, name: str, is_video: bool) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    curves, published = curves_of(mean_rows(rows)), {} if is_video else published_curves()
    for number, (method, curve) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        axes.plot(*zip(*sorted(curve), strict=True), marker="o", label=method, color=color)
    for number, (method, curve) in enumerate(published.items()):
        color = COLORS[(len(curves) + number) % len(COLORS)]
        points = zip(*sorted(curve), strict=True)
        axes.plot(*points, linestyle=":", marker="s", markersize=4, label=method, color=color)
    if is_video:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, _MOST_BPP)
    axes.grid(color="#e5e7eb")
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel("PSNR, dB")
    count = len({row["image"] for row in rows})
    axes.set_title(name if is_video else f"{name}, means over {count} pictures")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    with replacing_file(path) as part:
        # No date and no version in it: the same results give the same bytes.
        figure.savefig(part, format="png", metadata={"Software": None})
