"""Where the bytes of a file go, as a picture: by part, and level by level.

Drawn with matplotlib, which Nerfstudio brings along; it loads when a plot is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shacira_nerfstudio.output_files import write_file

_COLORS = {
    "latents": "#2563eb",
    "weights": "#d97706",
    "occupancy": "#059669",
    "other": "#6b7280",
}
_OTHER_COLOR = "#7c3aed"
_PSNR_COLOR = "#dc2626"


def write_byte_plot(path: Path, description: Mapping[str, Any], title: str) -> None:
    """Draws what :func:`shacira_nerfstudio.codec.describe` says, as PNG.

    Left are the parts of the file, right the levels from coarse to fine; where the file says how
    good each prefix of it is, a line shows that.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    levels = description["bytes_by_level"]
    # Without pyplot: no display is looked for, no global state is left.
    figure = Figure(figsize=(5.6 + max(5.0, 0.42 * len(levels)), 4.6), dpi=130)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    parts, by_level = figure.subplots(1, 2, width_ratios=[4.4, max(5.0, 0.42 * len(levels))])
    figure.suptitle(f"{title}: {description['bytes']:,} bytes", fontweight="bold")
    _draw_parts(parts, description["bytes_by_part"])
    _draw_levels(by_level, description)
    buffer = io.BytesIO()
    # No date and no version in it: the same file gives the same bytes.
    figure.savefig(buffer, metadata={"Software": None})
    write_file(path, buffer.getvalue())


def _draw_parts(axes: Any, by_part: Mapping[str, int]) -> None:
    parts = {name: count for name, count in by_part.items() if count}
    total, largest = sum(parts.values()), max(parts.values())
    rows = range(len(parts))
    colors = [_COLORS.get(name, _OTHER_COLOR) for name in parts]
    axes.barh(rows, list(parts.values()), color=colors, height=0.62)
    for row, count in zip(rows, parts.values(), strict=True):
        text = f" {count:,} ({100 * count / total:.1f} %)"
        axes.text(count, row, text, va="center", fontsize=9)
    axes.set_yticks(list(rows), list(parts))
    axes.invert_yaxis()
    # Room for the text behind the longest bar.
    axes.set_xlim(0, 1.75 * largest)
    axes.set_xticks([])
    axes.set_title("by part, bytes", fontsize=10)
    _open_frame(axes, ("top", "right", "bottom"))


def _draw_levels(axes: Any, description: Mapping[str, Any]) -> None:
    sizes, columns = description["bytes_by_level"], range(len(description["bytes_by_level"]))
    axes.set_title("by level, kB of 1000 bytes", fontsize=10)
    _open_frame(axes, ("top", "right"))
    if not sizes:
        axes.text(0.5, 0.5, "no level is there", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.bar(columns, [size / 1000 for size in sizes], color=_COLORS["latents"], width=0.7)
    for column, size in zip(columns, sizes, strict=True):
        axes.text(column, size / 1000, _short(size), ha="center", va="bottom", fontsize=7.5)
    axes.set_ylim(0, 1.18 * max(sizes) / 1000 + 1e-9)
    resolutions = [_resolution(axis) for axis in description["resolutions"]]
    labels = [f"{column}\n{resolutions[column]}" for column in columns]
    is_long = max(map(len, resolutions)) > 5
    axes.set_xticks(list(columns), labels, fontsize=6 if is_long else 7.5)
    axes.set_xlabel("level and its resolution", fontsize=9)
    axes.tick_params(axis="y", labelsize=8)
    if description["prefix_psnr"]:
        _draw_psnr(axes, columns, description["prefix_psnr"][: len(sizes)])


def _draw_psnr(axes: Any, columns: Sequence[int], psnr: Sequence[float]) -> None:
    beside = axes.twinx()
    beside.plot(columns, psnr, color=_PSNR_COLOR, marker="o", markersize=3.5, linewidth=1.4)
    beside.set_ylabel("PSNR of the file up to here, dB", color=_PSNR_COLOR, fontsize=9)
    beside.tick_params(axis="y", labelcolor=_PSNR_COLOR, labelsize=8)
    beside.spines["top"].set_visible(False)
    low, high = min(psnr), max(psnr)
    beside.set_ylim(low - 0.1 * (high - low) - 0.5, high + 0.25 * (high - low) + 0.5)


def _open_frame(axes: Any, sides: Sequence[str]) -> None:
    for side in sides:
        axes.spines[side].set_visible(False)


def _short(size: int) -> str:
    """Bytes in kB, with three digits at the most; below 100 bytes as they are."""
    if size < 100:
        return f"{size} B"
    return f"{size / 1000:.1f}" if size < 99_950 else f"{size / 1000:.0f}"


def _resolution(axes: Sequence[int]) -> str:
    """One number where all axes have it."""
    return f"{axes[0]}" if len(set(axes)) == 1 else "x".join(map(str, axes))
