"""From results to what one reads: RESULTS.md, 3DGS.zip's CSV, plots as PNG and HTML.

Nothing here is measured and nothing is added: the same rows give the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from shacira_nerfstudio.bench.report import tables
from shacira_nerfstudio.bench.report.plot_data import Plot, file_name, plots
from shacira_nerfstudio.bench.report.plot_html import render_page
from shacira_nerfstudio.bench.report.plot_png import write_png
from shacira_nerfstudio.bench.report.rows import Curve, Row, ablations, curves, load_rows

CSV_HEAD = ("Submethod", "PSNR", "SSIM", "LPIPS", "Size [Bytes]")
"""Of w-m/3dgs-compression-survey."""
_INTRO = """\
Generated from the lines of {files} by `shacira bench report`; do not edit.

- **bytes** is the length of the one file that was decoded, and PSNR, SSIM, MS-SSIM and LPIPS
  (AlexNet) are of what it decodes to, over the held-out test views. A dash is what was not or could
  not be measured. `ngp-fp16` is the uncompressed field: its parameters as half floats in {packed},
  without its occupancy grid; its quality is that of the half floats.
- **paper's accounting** is how SHACIRA's own figures are counted: pooled zeroth-order entropy of
  the rounded latents of the whole table, networks and latent decoder at 32 bits, no occupancy, no
  tables, no header. It is an estimate, no file. For `ngp-fp16` it is all parameters at 32 bits.
- **BD-rate** is the mean difference of bytes at equal PSNR (PCHIP over the logarithm of bytes) of
  the row's files against the column; negative is smaller. Against a column of one point it is the
  difference at that point's PSNR. A dash stands where two curves have no PSNR in common.
- **bytes by part**: latents are counted with their frequency tables and context models.
- Published figures were not measured here, count different things (see their tables), and are of
  all test views of a scene; the number of views that was measured here stands in the cost tables.
"""
_ABLATIONS = f"""\
Each line is trained anew with one choice changed, but for those marked
"{tables.BASE_RECODED.strip()}": they are the base's own integers in another file. Contexts off:
one frequency table per level and channel. Skipping off: every entry of the table is coded, with the
integer that training left there. Both are lengths of real bytes that were decoded again. Weights at
32 bits are counted.
"""


def write_report(results: Sequence[Path], folder: Path) -> list[Path]:
    """Writes the report of one or more files of results.

    Returns:
        Every file written.
    """
    rows = load_rows(results)
    if not rows:
        raise ValueError(f"expected results, found none in {', '.join(map(str, results))}")
    all_curves = curves(rows)
    drawn = plots(all_curves)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "RESULTS.md"]
    text = render_results(rows, drawn, [path.name for path in results])
    written[0].write_text(text, encoding="utf-8")
    if drawn:
        written.append(folder / "rd.html")
        written[-1].write_text(render_page(drawn, _dated(rows)), encoding="utf-8")
    for plot in drawn:
        written.append(folder / f"{plot.name}.png")
        write_png(plot, written[-1])
    for members in _by_scene(all_curves):
        name = f"{file_name(members[0].scene)}-{'x'.join(map(str, members[0].resolution))}.csv"
        written.append(folder / "csv" / name)
        written[-1].parent.mkdir(exist_ok=True)
        written[-1].write_text(survey_csv(members), encoding="utf-8")
    return written


def survey_csv(members: Sequence[Curve]) -> str:
    """All points of one scene in the layout of the 3DGS.zip survey; LPIPS is empty if unknown."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for curve in members:
        for point in curve.points:
            quality = [point.mean(name) for name in ("psnr", "ssim", "lpips")]
            cells = ["" if value is None else f"{value:.6g}" for value in quality]
            writer.writerow([f"{curve.name}, {point.label}", *cells, round(point.bytes)])
    return sink.getvalue()


def render_results(rows: Sequence[Row], drawn: Sequence[Plot], files: Sequence[str]) -> str:
    """RESULTS.md."""
    packed = sorted({row["compressor"] for row in rows if "compressor" in row}) or ["a compressor"]
    intro = _INTRO.format(
        files=", ".join(f"`{name}`" for name in files), packed=" or ".join(packed)
    )
    parts = ["# Results", _dated(rows), intro]
    if drawn:
        parts.append("The plots with a tooltip on each point: [rd.html](rd.html).")
    for members, plot in zip(_by_scene(curves(rows)), drawn, strict=True):
        parts += [f"## {plot.title}", f"![rate and distortion]({plot.name}.png)"]
        parts += ["### Quality and bytes", tables.quality_table(members)]
        rates = tables.bd_table(members)
        parts += ["### BD-rate", rates] if rates else []
        parts += ["### Bytes by part", tables.parts_table(members)]
        parts += ["### Cost", tables.cost_table(members)]
        learning = tables.learning_table(members)
        parts += ["### Learning curves", learning] if learning else []
        others = tables.published_table(members[0].scene)
        parts += ["### Published by others, not measured here", others] if others else []
    for title, members in _ablation_groups(rows).items():
        parts += [f"## Ablations: {title}", _ABLATIONS, tables.ablation_table(members)]
    return "\n\n".join([*parts, "## How it was made", _provenance(rows, files)]) + "\n"


def _by_scene(all_curves: Sequence[Curve]) -> list[list[Curve]]:
    groups: dict[tuple, list[Curve]] = {}
    for curve in all_curves:
        groups.setdefault((curve.scene, curve.resolution), []).append(curve)
    return list(groups.values())


def _ablation_groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in ablations(rows):
        width, height = row["resolution"]
        title = f"{row['scene']}, {width}x{height}, {row['steps']} steps"
        groups.setdefault(title, []).append(row)
    return groups


def _dated(rows: Sequence[Row]) -> str:
    days = sorted({row["date"][:10] for row in rows})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"Measured {span} on {'; '.join(sorted({row['machine'] for row in rows}))}."


def _provenance(rows: Sequence[Row], files: Sequence[str]) -> str:
    lines = ["```"]
    for plan in sorted({row["plan"] for row in rows if row.get("plan")}):
        command = f"shacira bench rd configs/sweeps/{plan} --data-root DATA --output RESULTS.jsonl"
        lines.append(command)
    lines += [f"shacira bench report {' '.join(files)} --output FOLDER", "```", ""]
    origins = {
        "backend": {row["backend"] for row in rows},
        "commit of the training code": {row["commit"] for row in rows},
        "commit of the measuring code": {row.get("measured_commit", row["commit"]) for row in rows},
        "versions": {
            ", ".join(f"{name} {version}" for name, version in row.get("versions", {}).items())
            for row in rows
        },
    }
    lines += [f"- {name}: {'; '.join(sorted(values))}" for name, values in origins.items()]
    return "\n".join(lines)
